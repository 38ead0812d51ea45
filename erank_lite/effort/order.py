"""In which order documents are read, and what is expected of those that were not."""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from erank_lite.documents import Doc

_LAST, _FEWEST = 1 / 3, 5


def reading_order(docs: Sequence[Doc]) -> list[int]:
    """Return the places of documents in the order in which they are read.

    That is by `first_stage_score`, highest first, if all have it as a number; else as they came.

    Example:
        >>> docs = [{"content": "a", "first_stage_score": 2}, {"content": "b"}]
        >>> reading_order(docs), reading_order([docs[0], docs[0] | {"first_stage_score": 7}])
        ([0, 1], [1, 0])
    """
    scores = [_score(doc) for doc in docs]
    if any(score is None for score in scores):
        return list(range(len(docs)))
    return sorted(range(len(docs)), key=lambda i: -(scores[i] or 0.0))


def _score(doc: Doc) -> float | None:
    value = doc.get("first_stage_score") if isinstance(doc, Mapping) else None
    if not isinstance(value, numbers.Real | Decimal) or isinstance(value, bool):
        return None
    try:
        return None if math.isnan(value) else float(value)
    except (OverflowError, ValueError):
        return None


def placed_by(result: Mapping[str, Any]) -> float | None:
    """Return the rank score, or the estimate of what was not read to the end; None with neither."""
    value = result.get("rank_score")
    if value is None:
        value = result.get("estimate")
    return None if value is None else float(value)


def estimate(read: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the rank score that is expected of the documents after those that were read.

    That is the mean of the last third of these, and of five at least: further down the list scores
    hardly rise. So a document that was read and found poor does not stand before others only
    because they were not read. Fewer than five say too little of the others: none of these then
    falls behind what was not read.

    Args:
        read: results in the order in which they were read.

    Returns:
        The estimate; None where nothing was read.

    Example:
        >>> estimate([{"rank_score": score} for score in (9.0, 8.0, 7.0, 3.0, 0.0, 1.0, 0.0)])
        2.2
        >>> estimate([{"rank_score": score} for score in (1.0, 8.0)])
        1.0
    """
    scores = [score for result in read if (score := placed_by(result)) is not None]
    if not scores:
        return None
    if len(scores) < _FEWEST:
        return min(scores)
    return statistics.fmean(scores[-max(_FEWEST, math.ceil(len(scores) * _LAST)) :])
