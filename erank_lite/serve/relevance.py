"""One number from 0 to 1 for each result, in whose order clients sort again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erank_lite.effort.order import placed_by

_STEP = 1e-9


def relevance(results: Sequence[Mapping[str, Any]], best: float = 10.0) -> list[float]:
    """Return `rank_score / best` of each result, raised by billionths where that keeps the order.

    Many documents tie, at zero mostly; their order is that of their expected scores, which a client
    that sorts by the number alone would lose. What was not read to the end has the number of its
    place; a failure has 0.

    Args:
        results: best first, as `Reranker.rerank` returns them.
        best: the highest rank score of the family, `Family.best`; ERank's by default.

    Returns:
        Numbers from 0 to 1, none larger than the one before it.

    Example:
        >>> relevance([
        ...     {"rank_score": 8.0, "expected_score": 8.1},
        ...     {"rank_score": 0.0, "expected_score": 0.5},
        ...     {"rank_score": 0.0, "expected_score": 0.1},
        ...     {"rank_score": None, "failure": "the document is empty"},
        ... ])
        [0.8, 1e-09, 0.0, 0.0]
    """
    numbers = [0.0] * len(results)
    following: tuple[Any, ...] | None = None
    below = 0.0
    for place in range(len(results) - 1, -1, -1):
        result = results[place]
        if result.get("failure") is not None:
            continue
        value, key = (placed_by(result) or 0.0), _key(result, place)
        rises = following is not None and key != following
        numbers[place] = max(value / best, below + _STEP * rises)
        below, following = numbers[place], key
    if numbers and numbers[0] > 1:
        numbers = [min(number, 1 - place * _STEP) for place, number in enumerate(numbers)]
    return numbers


def _key(result: Mapping[str, Any], place: int) -> tuple[Any, ...]:
    """Return what tells a result's place from the next one's."""
    unread = result.get("level", "full") is None
    return (placed_by(result) or 0.0), result.get("expected_score"), place if unread else None
