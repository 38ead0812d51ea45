"""Hybrid of the first stage and the reranker: a weighted sum, in the forms that are published."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from erank_lite.effort.order import placed_by
from erank_lite.errors import InputError

FORMS = ("z", "minmax", "plain")


def hybrid_scores(
    results: Sequence[Mapping[str, Any]], alpha: float, form: str = "z"
) -> list[dict[str, Any]]:
    """Add `hybrid_score` = alpha·f(first_stage_score) + (1 − alpha)·f(rank_score) and sort by it.

    | form     | f                                             | published                        |
    |----------|-----------------------------------------------|----------------------------------|
    | "z"      | z-score, population standard deviation        | ERank, alpha 0.2                 |
    | "minmax" | from 0, the lowest, to 1, the highest         | Rank-R1 v0.2, alpha 0.1          |
    | "plain"  | the number itself                             | JudgeRank, 100·s + BM25: 1/101   |

    All are taken over the list; where all values are equal, the first two are 0.
    Of a document that was not read to the end, its `estimate` stands for the rank score. One with
    neither (a failure, or unread) stays outside the means, gets `hybrid_score=None` and sorts last.

    Args:
        results: what `Reranker.rerank` returned; not changed.
        alpha: weight of the first stage, 0 to 1.
        form: one of `FORMS`.

    Returns:
        New dicts, best first; equal scores keep the order of `results`. A `rank`, where they have
        one, is that of the new order.

    Example:
        >>> results = [
        ...     {"content": "excited", "first_stage_score": 46.7, "rank_score": 4.84},
        ...     {"content": "sad", "first_stage_score": 1.5, "rank_score": 0.0},
        ...     {"content": "peaceful", "first_stage_score": 2.3, "rank_score": 2.98},
        ... ]
        >>> [(r["content"], round(r["hybrid_score"], 2)) for r in hybrid_scores(results, 0.2)]
        [('excited', 1.18), ('peaceful', 0.01), ('sad', -1.19)]

    Raises:
        InputError: alpha is outside 0…1, there is no such form, a ranked document has no finite
            first_stage_score, or `results` are not those of a reranker.
    """
    if not isinstance(alpha, numbers.Real | Decimal) or not 0 <= alpha <= 1:
        raise InputError(f"alpha must be a number between 0 and 1, not {alpha!r}")
    if form not in FORMS:
        raise InputError(f"there is no form {form!r} of a hybrid", f"forms are {', '.join(FORMS)}")
    for place, result in enumerate(results):
        if not isinstance(result, Mapping) or "rank_score" not in result:
            raise InputError(
                f"result {place} is {type(result).__name__} without a rank_score",
                "give what Reranker.rerank returned",
            )
    alpha = float(alpha)  # of numpy too: what is made of it must be plain numbers
    ranked = [dict(r) for r in results if placed_by(r) is not None]
    failed = [dict(r) | {"hybrid_score": None} for r in results if placed_by(r) is None]
    scaled = {"z": _z, "minmax": _minmax, "plain": list}[form]
    first = scaled([_first_stage(r, place) for place, r in enumerate(ranked, 1)])
    second = scaled([placed_by(r) or 0.0 for r in ranked])
    for result, a, b in zip(ranked, first, second, strict=True):
        result["hybrid_score"] = alpha * a + (1 - alpha) * b
    order = sorted(ranked, key=lambda r: -r["hybrid_score"]) + failed
    return [r | {"rank": rank} if "rank" in r else r for rank, r in enumerate(order, 1)]


def _first_stage(result: Mapping[str, Any], place: int) -> float:
    value = result.get("first_stage_score")
    try:
        if isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except OverflowError:
        pass
    name = result.get("id", f"at rank {place}")
    raise InputError(
        f"document {name} has no usable first_stage_score ({str(value)[:40]!r})",
        "give a number for every document: a hybrid score needs it",
    )


def _minmax(values: Sequence[float]) -> list[float]:
    # Halves, so that numbers near the ends of floats do not overflow.
    low, high = min(values, default=0.0) / 2, max(values, default=0.0) / 2
    return [(v / 2 - low) / (high - low) if high > low else 0.0 for v in values]


def _z(values: Sequence[float]) -> list[float]:
    # Numbers near the ends of floats would overflow when squared, or vanish.
    scale = max((abs(v) for v in values), default=0.0)
    if scale == 0:
        return [0.0] * len(values)
    scaled = [v / scale for v in values]
    mean = math.fsum(scaled) / len(scaled)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in scaled) / len(scaled))
    # Rounding leaves a deviation of the order of the values' last bit where they are all equal.
    if deviation <= 1e-12:
        return [0.0] * len(scaled)
    return [(v - mean) / deviation for v in scaled]
