"""How long a model's answers become, learnt as it writes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from erank_lite.machine.shapes import USUAL_ANSWER

_SHARE = 0.9  # of the answers are no longer than what is reserved for them
_SEEN = 256  # answers that count, the last
_ENOUGH = 8  # answers without which nothing has been learnt
_MEAN = 400  # tokens of a usual answer with its reasoning
_BARE = 64  # limits that differ by less are those of one mode of thinking


class AnswerLengths:
    """What answers have taken, by the most tokens that were allowed: modes of thinking differ.

    Example:
        >>> lengths = AnswerLengths()
        >>> lengths.reserved(4096), lengths.mean(4096)
        (512, 400.0)
        >>> for tokens in range(100, 200):
        ...     lengths.add(4096, tokens)
        >>> lengths.reserved(4096), lengths.mean(4096), lengths.mean(60)
        (189, 149.5, 60.0)
    """

    def __init__(self, known: Mapping[int, Iterable[int]] = {}) -> None:
        """Begin with the lengths that are known from before, by limit."""
        self._seen = {limit: deque(lengths, _SEEN) for limit, lengths in known.items()}

    @property
    def known(self) -> dict[int, list[int]]:
        """The lengths, by limit: what another object can begin with."""
        return {limit: list(seen) for limit, seen in self._seen.items()}

    def add(self, limit: int, tokens: int) -> None:
        """Learn from an answer of so many tokens, of which `limit` were allowed."""
        self._seen.setdefault(limit, deque(maxlen=_SEEN)).append(tokens)

    def reserved(self, limit: int) -> int:
        """Return how many tokens nine of ten answers stay within, where `limit` are allowed."""
        seen = sorted(self._seen.get(limit, ()))
        if len(seen) < _ENOUGH:
            seen = sorted([*seen, *[USUAL_ANSWER] * (_ENOUGH - len(seen))])
        return min(limit, seen[int(_SHARE * (len(seen) - 1))])

    def knows(self, limit: int) -> bool:
        """Whether answers of this mode, of which some `limit` tokens are allowed, were seen."""
        return len(self._near(limit)) >= _ENOUGH

    def mean(self, limit: int) -> float:
        """Return how many tokens an answer takes on average, where some `limit` are allowed."""
        seen = self._near(limit)
        usual = float(min(limit, _MEAN))
        if not seen:
            return usual
        # A few answers are drawn to the usual length: those that end first are the short ones.
        trust = 1.0 if len(seen) >= _ENOUGH else len(seen) / (len(seen) + 1)
        return float(usual ** (1 - trust) * max(1.0, sum(seen) / len(seen)) ** trust)

    def _near(self, limit: int) -> Collection[int]:
        """Return the lengths that were seen of this mode."""
        near = [known for known in self._seen if abs(known - limit) < _BARE]
        return self._seen[min(near, key=lambda known: abs(known - limit))] if near else ()
