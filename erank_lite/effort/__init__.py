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
            raise InputError(f"depth must be a number of documents from 1, not {self.depth!r}")
        if self.tokens is not None and not _whole(self.tokens):
            raise InputError(f"a budget must be a number of tokens, not {self.tokens!r}")
        if self.within is not None and (
            not isinstance(self.within, numbers.Real)
            or isinstance(self.within, bool)
            or math.isnan(self.within)
        ):
            raise InputError(f"within must be a number of seconds, not {self.within!r}")

    @property
    def limited(self) -> bool:
        """Whether a document that was begun may have to be given up."""
        return self.within is not None or self.tokens is not None


FULL = Effort()
"""Every document is read to the end."""


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
