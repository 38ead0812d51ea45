"""In which order documents are read, and what is expected of those that were not."""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from erank_lite.documents import Doc

_LAST, _FEWEST = 1 / 3, 5


def reading_order(docs: Sequence[Doc], names: Sequence[str]) -> list[int]:
    """Return the places of documents in the order in which they are read.

    Args:
        docs: the documents.
        names: keys of scores, the first that all documents have as a number decides, highest first;
            where there is none, they are read as they came.

    Example:
        >>> docs = [{"content": "a", "bm25": 2}, {"content": "b", "bm25": 7}]
        >>> reading_order(docs, ["bm25"]), reading_order(docs, ["other"])
        ([1, 0], [0, 1])
    """
    for name in names:
        scores = [_number(doc, name) for doc in docs]
        if all(score is not None for score in scores):
            return sorted(range(len(docs)), key=lambda i: -(scores[i] or 0.0))
    return list(range(len(docs)))


def _number(doc: Doc, name: str) -> float | None:
    value = doc.get(name) if isinstance(doc, Mapping) else None
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
        return None
    return float(value)


def estimate(read: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the rank score that is expected of the documents after those that were read.

    That is the mean of the last third of these, and of five at least: further down the list scores
    hardly rise. So a document that was read and found poor does not stand before others only
    because they were not read.

    Args:
        read: results in the order in which they were read.

    Returns:
        The estimate; None where nothing was read.

    Example:
        >>> estimate([{"rank_score": score} for score in (9.0, 8.0, 7.0, 3.0, 0.0, 1.0, 0.0)])
        2.2
    """
    scores = [
        score
        for result in read
        if (score := result["rank_score"]) is not None
        or (score := result.get("estimate")) is not None
    ]
    if not scores:
        return None
    return statistics.fmean(scores[-max(_FEWEST, math.ceil(len(scores) * _LAST)) :])
