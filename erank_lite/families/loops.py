"""Reasoning that repeats itself: greedy decoding hardly ever leaves such a loop."""

from __future__ import annotations

from collections.abc import Sequence

# A loop is the same stretch of up to this many tokens, so often that it fills so many tokens.
_PERIOD = 128
_TOKENS = 96
_TIMES = 4
CHECK_EVERY = 32
"""Tokens between two looks: a loop goes on, so that none need be seen at once."""


def loops(ids: Sequence[int]) -> bool:
    """Return whether `ids` end in one stretch that has been repeated for long enough.

    Example:
        >>> loops([1, 2, 3] * 40), loops(list(range(200)))
        (True, False)
    """
    length = len(ids)
    for period in range(1, _PERIOD + 1):
        span = max(_TOKENS, period * _TIMES)
        if span > length:
            return False
        if ids[-1] == ids[-1 - period] and ids[-span:-period] == ids[period - span :]:
            return True
    return False
