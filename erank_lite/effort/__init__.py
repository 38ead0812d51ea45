"""How much is spent on a query: how many documents are read, in how much time."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from erank_lite.errors import InputError


@dataclass(frozen=True)
class Effort:
    """What a query may cost.

    Documents are read in the order of the first pass, if the reranker has one; else of their
    `first_stage_score`, if all have one; else as they came.

    Attributes:
        depth: only the first so many are read; the others follow them in that order.
        within: seconds from the call, after which the best order so far comes back. What is being
            written then is asked for its answer. Zero or less reads nothing.
        tokens: as `within`, counted in tokens that the model writes.

    Example:
        >>> Effort(depth=30, within=20)
        Effort(depth=30, within=20, tokens=None)
    """

    depth: int | None = None
    within: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number.

        Raises:
            InputError: a value cannot be used.
        """
        if self.depth is not None and (not _whole(self.depth) or self.depth < 1):
            raise InputError(
                f"depth must be a number of documents from 1, not {_shown(self.depth)}"
            )
        if self.tokens is not None and not _whole(self.tokens):
            raise InputError(f"a budget must be a number of tokens, not {_shown(self.tokens)}")
        if self.within is not None and not _number(self.within):
            raise InputError(f"within must be a number of seconds, not {_shown(self.within)}")

    @property
    def limited(self) -> bool:
        """Whether a document that was begun may have to be given up."""
        return self.within is not None or self.tokens is not None


FULL = Effort()
"""Every document is read to the end."""


def _shown(value: object) -> str:
    try:
        return repr(value)[:40]
    except ValueError:  # a whole number of thousands of digits
        return "such a number"


def _number(value: object) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
