"""What is measured: the documents of one query, by what each costs in tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from erank_lite.errors import InputError
from erank_lite.models.gguf import GGUFFile

_FIRST_ID = 1000  # below are special tokens and single bytes, in a vocabulary of the usual size
_LAST_ID = 40000  # above are rare scripts and, in Qwen's, special tokens
_SMALL_VOCABULARY = 2000
_NORMAL = 1  # token type of ordinary text, in a GGUF
_MAX_VALUE = 1_000_000

AXES = {
    "documents": "documents",
    "shared tokens": "shared",
    "document tokens": "own",
    "reasoning tokens": "tokens",
    "sequences": "sequences",
}
"""What of a workload may vary, and the field that holds it."""


@dataclass(frozen=True)
class Workload:
    """The documents of one query, in tokens.

    Attributes:
        documents: how many there are.
        shared: tokens at the beginning of the prompt that are the same for all.
        own: tokens of the prompt that each document has for itself.
        tokens: generated for each document.
        sequences: documents decoded together.

    Example:
        >>> Workload(documents=4, shared=61, own=100, tokens=16).context_length
        178
    """

    documents: int = 32
    shared: int = 61
    own: int = 164
    tokens: int = 60
    sequences: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value, minimum = getattr(self, field.name), 0 if field.name == "shared" else 1
            if not minimum <= value <= _MAX_VALUE:
                raise InputError(
                    f"{field.name} must lie between {minimum} and {_MAX_VALUE}, not {value}"
                )

    @property
    def context_length(self) -> int:
        """Tokens of context that one document needs."""
        return self.shared + self.own + self.tokens + 1

    @property
    def total_tokens(self) -> int:
        """Tokens generated for all documents."""
        return self.documents * self.tokens

    @property
    def concurrent(self) -> int:
        """Documents that are really decoded together: no more than there are."""
        return min(self.sequences, self.documents)

    def vary(self, axis: str, values: Sequence[int]) -> list[Workload]:
        """Return this workload with each of `values` along `axis`, one of `AXES`."""
        return [replace(self, **{AXES[axis]: value}) for value in values]

    def prompts(self, ordinary: tuple[int, int], seed: int = 7) -> list[tuple[int, ...]]:
        """Return the prompts, of random tokens from `ordinary` (first, one past the last).

        Another seed gives others that share no beginning with these, so that what a system keeps
        of one set is of no use for the other.
        """
        draw = random.Random(seed)
        ids = range(*ordinary)
        shared = tuple(draw.choices(ids, k=self.shared))
        return [shared + tuple(draw.choices(ids, k=self.own)) for _ in range(self.documents)]


def ordinary_ids(gguf: GGUFFile) -> tuple[int, int]:
    """Return a range of ids (first, one past the last) that are ordinary text.

    A prompt of them opens no turn and asks for nothing, so that a completion seldom ends early.

    Raises:
        InputError: the file's vocabulary has no such range.
    """
    count = len(gguf.metadata.get("tokenizer.ggml.tokens") or ())
    types = gguf.metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * count
    first = _FIRST_ID if count > _SMALL_VOCABULARY else 0
    last = min(_LAST_ID, len(types))
    end = next((i for i in range(first, last) if types[i] != _NORMAL), last)
    if end - first < 2:
        raise InputError(f"`{gguf.path.name}` has no ordinary tokens to make prompts of")
    return first, end
