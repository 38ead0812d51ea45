"""When long work will be done, told from how far it is."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class TimeLeft:
    """Takes the end to be where the mean pace so far leads.

    Between two steps of the work it counts down: that nothing was finished meanwhile says nothing.

    Attributes:
        end: the time (of `clock`) at which the work is expected to be done; None while it is not
            known.

    Example:
        >>> seconds = [0.0]
        >>> left = TimeLeft(0, lambda: seconds[0])
        >>> seconds[0] = 10.0
        >>> left.update(2.5, 10)
        >>> left.end
        40.0
        >>> seconds[0] = 12.0
        >>> left.update(2.5, 10)
        >>> left.end
        40.0
    """

    def __init__(self, done: float, clock: Callable[[], float] = monotonic) -> None:
        """Begin.

        Args:
            done: how much was done before, which says nothing of the pace.
            clock: returns seconds.
        """
        self.end: float | None = None
        self._clock, self._begun = clock, clock()
        self._first = self._done = done

    def update(self, done: float, total: float) -> None:
        """Take that `done` of `total` are done, parts counted."""
        if done == self._done:
            return
        self._done = done
        if done > self._first:
            now = self._clock()
            each = (now - self._begun) / (done - self._first)
            self.end = now + (total - done) * each
