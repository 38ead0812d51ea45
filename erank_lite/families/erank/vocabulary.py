"""What a tokenizer's vocabulary means to the score core."""

from __future__ import annotations

from collections.abc import Iterable

from erank_lite.text.tokenizer import Tokenizer


class ScoreVocabulary:
    """What a tokenizer's vocabulary means to the score core. Shared by all its guides.

    Attributes:
        pieces: bytes by token id.
        values: id → integer 0–10, for every token that is such a number, white space apart.
        candidates: the ids of `values`; their probabilities give the expected score.
        one_token_ten: 10 is a token of its own, so no second digit need be looked at.
    """

    def __init__(self, tokenizer: Tokenizer, end_ids: Iterable[int]) -> None:
        """Look the vocabulary through once.

        Args:
            tokenizer: the model's.
            end_ids: every token that ends the model's turn.
        """
        self.pieces = tokenizer.pieces
        self.end_ids = frozenset(end_ids)
        numbers = {str(n).encode(): n for n in range(11)}
        self.values = {
            i: numbers[piece.strip()]
            for i, piece in enumerate(self.pieces)
            if len(piece) < 8 and piece.strip() in numbers
        }
        self.candidates = tuple(self.values)
        self.one_token_ten = 10 in self.values.values()
        self.ids = {self.pieces[i]: i for i in self.candidates}
        self.close_and_ask = tokenizer.encode_trusted("</think><answer>")
        self.ask = tokenizer.encode_trusted("<answer>")
        self._tokenizer = tokenizer

    def no_thinking(self, think_prefix: str | None) -> tuple[int, ...]:
        """Return the ids of an empty reasoning and an opened answer.

        Args:
            think_prefix: what the template put after a `<think>` of its own, else None.
        """
        text = "<think>\n\n</think>\n\n<answer>"
        if think_prefix is not None:
            text = text.removeprefix("<think>")
            text = (
                text.removeprefix(think_prefix)
                if text.startswith(think_prefix)
                else text.lstrip("\n")
            )
        return self._tokenizer.encode_trusted(text)
