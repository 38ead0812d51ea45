"""What prompts begin with and was computed before: saved, to be restored instead of read again."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.engines.llama_cpp.state import State

_MOST = 8  # that are kept
_SHORTEST = 16  # tokens; below, saving and restoring is not worth it


class Prefixes:
    """The beginnings that documents of a query share."""

    def __init__(self, memory: int, exact: bool) -> None:
        """Begin with none.

        Args:
            memory: bytes that they may take; one is always kept.
            exact: take only what is the whole beginning, so that results do not depend on the
                query before, whose beginning another may share.
        """
        self._memory, self._exact = memory, exact
        self._states: dict[tuple[int, ...], State] = {}

    def longest(self, ids: tuple[int, ...]) -> tuple[State | None, int]:
        """Return the state that has most in common with `ids`, and how many tokens that is."""
        if ids in self._states:
            state = self._states[ids] = self._states.pop(ids)  # the last used is the last to go
            return state, len(ids)
        if self._exact or not self._states:
            return None, 0
        known = max(self._states, key=lambda known: _common(known, ids))
        common = _common(known, ids)
        return (self._states[known], common) if common >= _SHORTEST else (None, 0)

    def wants(self, ids: tuple[int, ...]) -> bool:
        """Return whether `ids` are not kept, and worth it."""
        return len(ids) >= _SHORTEST and ids not in self._states

    def keep(self, ids: tuple[int, ...], state: State) -> None:
        """Keep what was computed of `ids`, and let the oldest go."""
        self._states[ids] = state
        while len(self._states) > 1 and (
            len(self._states) > _MOST
            or sum(state.size for state in self._states.values()) > self._memory
        ):
            del self._states[next(iter(self._states))]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
