"""What every guide keeps of a completion: its tokens and their text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from erank_lite.text.tokenizer import Tokenizer


class Completed:
    """The tokens of a completion so far, and their text as bytes.

    Attributes:
        text: of all of them.
        ids: without an end token.
        ends: for each, where it ends in the text.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        """Begin with nothing.

        Args:
            pieces: bytes by token id, `Tokenizer.pieces`.
        """
        self._pieces = pieces
        self.text = bytearray()
        self.ids: list[int] = []
        self.ends: list[int] = []

    def append(self, ids: Iterable[int]) -> None:
        """Take what was generated, or is forced."""
        for i in ids:
            self.text += self._pieces[i] if i < len(self._pieces) else b""
            self.ids.append(i)
            self.ends.append(len(self.text))

    def cut(self, length: int, then: str, tokenizer: Tokenizer) -> tuple[int, tuple[int, ...]]:
        """Cut the text after `length` bytes and go on with `then`.

        Returns:
            How many ids were dropped, and those that were appended: a token that is cut through is
            encoded again.
        """
        kept = sum(end <= length for end in self.ends)
        begin = self.ends[kept - 1] if kept else 0
        rest = bytes(self.text[begin:length]).decode("utf-8", "ignore")
        dropped = len(self.ids) - kept
        del self.ids[kept:], self.ends[kept:], self.text[begin:]
        appended = tokenizer.encode_trusted(rest + then)
        self.append(appended)
        return dropped, appended

    def decoded(self) -> str:
        """Return the text; a broken character gives U+FFFD."""
        return self.text.decode("utf-8", "replace")


def without_tags(text: str) -> str:
    """Return what stands between `<think>` and `</think>`, or all where neither is there.

    Example:
        >>> without_tags("<think>It answers.</think> true")
        'It answers.'
    """
    return text.partition("</think>")[0].strip().removeprefix("<think>").strip()


def is_nan(logprobs: Mapping[int, float] | None) -> bool:
    """Return whether a model computed no number."""
    return logprobs is not None and any(map(math.isnan, logprobs.values()))


DAMAGED = "the model computes no numbers (NaN): its file is damaged"
