"""How near one model's results are to another's on the same documents.

Agreement is measured on scores and order, not on text: greedy reasoning diverges token by token
after the smallest change. Failed documents count as rank score 0, and as equal where both failed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
_P = 0.9  # of rank-biased overlap: the first ten ranks have 86 % of the weight
_RESAMPLES = 10_000


def agreement(
    these: Mapping[str, Sequence[Row]], reference: Mapping[str, Sequence[Row]]
) -> dict[str, float]:
    """Compare two rankings of the same documents.

    Args:
        these: for each query its documents best first, as `Reranker.rerank` returns them, with
            `id`.
        reference: the same documents by the other.

    Returns:
        - same: share of documents with equal integers;
        - difference, difference_95: mean and 95th percentile of |Δ rank_score|, of 10;
        - tau: Kendall's tau-b of the rank scores, mean over the queries where it is defined
          (not all of a side's scores are equal);
        - rbo: rank-biased overlap, extrapolated, p = 0.9 (Webber et al. 2010, equation 32), mean
          over queries;
        - top_10: share of the reference's first ten that are among the other's, mean over queries;
        - forced, failed: shares of documents;
        - tokens: mean number of tokens generated.
    """
    pairs = [
        (row, other)
        for query, documents in reference.items()
        for row, other in _paired(these[query], documents)
    ]
    differences = [abs(_rank_score(a) - _rank_score(b)) for a, b in pairs]
    rows = [row for row, _ in pairs]
    taus = [_tau(_paired(these[query], documents)) for query, documents in reference.items()]
    orders = [
        ([r["id"] for r in these[query]], [r["id"] for r in documents])
        for query, documents in reference.items()
        if documents
    ]
    return {
        "same": statistics.fmean(a["score"] == b["score"] for a, b in pairs),
        "difference": statistics.fmean(differences),
        "difference_95": float(np.percentile(differences, 95)),
        "tau": _mean([tau for tau in taus if not math.isnan(tau)]),
        "rbo": _mean([rank_biased_overlap(a, b) for a, b in orders]),
        "top_10": _mean([len({*a[:10]} & {*b[:10]}) / len(b[:10]) for a, b in orders]),
        "forced": statistics.fmean(row["forced"] for row in rows),
        "failed": statistics.fmean(row["failure"] is not None for row in rows),
        "tokens": statistics.fmean(row["tokens"] for row in rows),
    }


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = _P) -> float:
    """Return the extrapolated rank-biased overlap of two rankings of equal length, 0 to 1.

    Webber, Moffat, Zobel 2010, "A similarity measure for indefinite rankings", equation 32 for
    lists of one length k: overlap(k)/k · p^k + (1 - p)/p · Σ overlap(d)/d · p^d.
    """
    seen_a: set[str] = set()
    seen_b: set[str] = set()
    overlap, total = 0, 0.0
    for depth, (x, y) in enumerate(zip(a, b, strict=True), 1):
        overlap += (x == y) + (x in seen_b) + (y in seen_a)
        seen_a.add(x)
        seen_b.add(y)
        total += overlap / depth * p**depth
    return overlap / len(a) * p ** len(a) + (1 - p) / p * total if a else 1.0


def interval(
    these: Mapping[str, float], reference: Mapping[str, float], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a measure's mean change, by a paired bootstrap over queries.

    Args:
        these: the measure of each query.
        reference: the same by the other.
        seed: of the 10,000 resamples (percentile method).
    """
    change = np.array([these[query] - reference[query] for query in reference])
    draws = np.random.default_rng(seed).integers(len(change), size=(_RESAMPLES, len(change)))
    low, high = np.percentile(change[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _paired(these: Sequence[Row], reference: Sequence[Row]) -> list[tuple[Row, Row]]:
    by_id = {row["id"]: row for row in these}
    return [(by_id[row["id"]], row) for row in reference]


def _tau(pairs: Sequence[tuple[Row, Row]]) -> float:
    from scipy.stats import kendalltau

    if len(pairs) < 2:
        return math.nan
    found = kendalltau([_rank_score(a) for a, _ in pairs], [_rank_score(b) for _, b in pairs])
    return float(found.statistic)


def _rank_score(row: Row) -> float:
    return float(row["rank_score"] or 0.0)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
