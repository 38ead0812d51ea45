"""A budget of seconds or tokens for one query, and the source that keeps an engine to it.

There are two moments. From the first on, nothing is begun, documents that write are asked for their
answer, and those that are only being read beside them are given up: enough is left for these
answers. At the second, whatever is not answered by then is given up too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from erank_lite.effort import Effort
from erank_lite.types import Request

_LOOK = 0.25  # seconds between two looks at the clock, at the most
_MOST_KEPT_BACK = 0.25  # of the time, however long the last answers are expected to take


class OutOfTimeError(Exception):
    """The time is up while documents are under way: what came back by now is all there is."""


class Budget:
    """What is left of a query's time and tokens.

    Attributes:
        together: documents that are under way at once.

    Example:
        >>> now = 0.0
        >>> budget = Budget(Effort(within=10), together=16, reserve=2, clock=lambda: now)
        >>> budget.spent(), budget.over()
        (False, False)
        >>> now = 8.5
        >>> budget.spent(), budget.over()
        (True, False)
    """

    def __init__(
        self,
        effort: Effort,
        together: int,
        reserve: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            effort: the limits.
            together: documents that are under way at once.
            reserve: seconds that the last answers are expected to take.
            clock: the time in seconds.
        """
        self.together = together
        self._clock, self._written = clock, 0
        self._end = self._last = float("inf")
        if effort.within is not None:
            self._end = clock() + effort.within
            self._last = self._end - min(reserve, _MOST_KEPT_BACK * max(0.0, effort.within))
        self._tokens = float("inf") if effort.tokens is None else effort.tokens

    def wrote(self) -> bool:
        """Count a token of reasoning; return whether the budget is spent."""
        self._written += 1
        return self.spent()

    def spent(self) -> bool:
        """Return whether nothing is to be begun any more, and what is under way is to answer."""
        return self._written >= self._tokens or self._clock() >= self._last

    def over(self) -> bool:
        """Return whether nothing is waited for any more."""
        return self._clock() >= self._end

    def until_next(self) -> float:
        """Return the seconds until one of the two moments."""
        now = self._clock()
        return max(0.0, min(m - now for m in (self._last, self._end) if m > now or m == self._end))

    def left(self) -> float | None:
        """Return the seconds until nothing is to be begun; None where time does not count."""
        return None if self._last == float("inf") else max(0.0, self._last - self._clock())


class BudgetSource:
    """Requests until a budget is spent. See `erank_lite.types.Source`.

    Attributes:
        given_up: keys of requests that are wanted no longer.
    """

    def __init__(
        self, requests: Iterator[Request[Any]], budget: Budget, writes: Callable[[int], bool]
    ) -> None:
        """Take the requests.

        Args:
            requests: of one query.
            budget: how long they are given.
            writes: whether a request, by its key, has tokens of its answer already.
        """
        self._requests, self._budget, self._writes = requests, budget, writes
        self._under_way: set[int] = set()
        self._no_more = False
        self.given_up: set[int] = set()

    def look(self) -> None:
        """Look at the clock.

        Raises:
            OutOfTimeError: nothing that is under way is waited for any more.
        """
        if self._budget.over():
            raise OutOfTimeError
        if self._budget.spent():
            self._no_more = True
            reading = {key for key in self._under_way if not self._writes(key)}
            if reading != self._under_way:  # where none writes, there is nothing to lose by reading
                self.given_up |= reading
                self._under_way -= reading

    def take(self) -> Request[Any] | None:
        """Return the next request, if the budget allows it."""
        full = len(self._under_way) >= self._budget.together
        if self._no_more or full or self._budget.spent():
            return None
        request = next(self._requests, None)
        if request is None:
            self._no_more = True
        else:
            self._under_way.add(request.key)
        return request

    @property
    def ended(self) -> bool:
        """Whether all came back; until then, `take` is asked and looks at the clock."""
        return self._no_more and not self._under_way

    @property
    def pause(self) -> float:
        """Seconds after which to look at the clock again."""
        return min(_LOOK, self._budget.until_next() + 0.001)

    def came_back(self, key: int) -> None:
        """Take that a request is completed."""
        self._under_way.discard(key)
