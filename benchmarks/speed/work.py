"""What is measured: documents of one query, by what each costs in tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from erank_lite.errors import InputError
from erank_lite.models.gguf import GGUFFile

_FIRST = 1000  # below are special tokens and single bytes, in a vocabulary of the usual size
_LAST = 40000  # above are rare scripts and, in Qwen's, special tokens
_SMALL = 2000
_NORMAL = 1  # token type of ordinary text, in a GGUF
_MOST = 1_000_000


@dataclass(frozen=True)
class Work:
    """Documents of one query, in tokens.

    Attributes:
        documents: how many.
        shared: tokens at the beginning of the prompt that are the same for all.
        own: tokens of the prompt that each document has for itself.
        tokens: written for each document.
        sequences: documents under way at once.
    """

    documents: int = 32
    shared: int = 61
    own: int = 164
    tokens: int = 60
    sequences: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "shared" else 1
            if not least <= value <= _MOST:
                raise InputError(f"{field.name} must lie between {least} and {_MOST}, not {value}")

    @property
    def cells(self) -> int:
        """Tokens of context that one document needs."""
        return self.shared + self.own + self.tokens + 1

    @property
    def written(self) -> int:
        """Tokens written for all documents."""
        return self.documents * self.tokens

    @property
    def together(self) -> int:
        """Documents that are really under way at once: no more than there are."""
        return min(self.sequences, self.documents)

    def prompts(self, ordinary: tuple[int, int], seed: int = 7) -> list[tuple[int, ...]]:
        """Return the prompts, of random tokens from `ordinary` (first, one past the last).

        Another seed gives others that share no beginning with these, so that what a way keeps of
        one set is of no use for the other.
        """
        draw = random.Random(seed)
        ids = range(*ordinary)
        shared = tuple(draw.choices(ids, k=self.shared))
        return [shared + tuple(draw.choices(ids, k=self.own)) for _ in range(self.documents)]


def ordinary_ids(gguf: GGUFFile) -> tuple[int, int]:
    """Return a range of ids (first, one past the last) that are ordinary text.

    A prompt of them opens no turn and asks for nothing, so that a text seldom ends early.

    Raises:
        InputError: the file's vocabulary has no such range.
    """
    count = len(gguf.metadata.get("tokenizer.ggml.tokens") or ())
    kinds = gguf.metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * count
    first = _FIRST if count > _SMALL else 0
    last = min(_LAST, len(kinds))
    end = next((i for i in range(first, last) if kinds[i] != _NORMAL), last)
    if end - first < 2:
        raise InputError(f"{gguf.path.name}: no ordinary tokens are found to make prompts of")
    return first, end
