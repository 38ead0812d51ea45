"""Measures of a ranking: trec_eval's, through ir-measures, and FollowIR's p-MRR."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.errors import missing_extra

Ranking = Mapping[str, Sequence[str]]
"""For each query the ids of its documents, best first."""


def mean_measures(ranking: Ranking, collection: Collection, depth: int) -> dict[str, float]:
    """Return the mean of each measure over all judged queries; one without documents counts 0.

    nDCG@10 has trec_eval's linear gain; RR (mean reciprocal rank), AP (mean average precision) and
    recall count as relevant what the collection itself does. Excluded documents never count: they
    are dropped here too, whoever made the ranking. Where instructions were changed, there is p-MRR.

    Raises:
        ModelError: the extra `eval` is not installed.
    """
    values = {
        name: statistics.fmean(by_query.values())
        for name, by_query in measures_by_query(ranking, collection, depth).items()
    }
    if collection.changed:
        values = {"p-MRR": p_mrr(ranking, collection.changed)} | values
    return values


def measures_by_query(
    ranking: Ranking, collection: Collection, depth: int
) -> dict[str, dict[str, float]]:
    """Return each measure of each judged query; see `mean_measures`."""
    try:
        import ir_measures
        from ir_measures import AP, RR, R, nDCG
    except ModuleNotFoundError as error:
        raise missing_extra("measuring a ranking", str(error.name), "eval") from None
    lowest = collection.min_relevant
    names = {
        nDCG @ 10: "nDCG@10",
        RR(rel=lowest): "RR",
        AP(rel=lowest): "AP",
        R(rel=lowest) @ depth: f"R@{depth}",
    }
    # Ranks, not scores: equal scores would be put in an order that is not ours.
    run = {
        query: {
            name: -float(rank)
            for rank, name in enumerate(documents)
            if name not in collection.excluded.get(query, ())
        }
        for query, documents in ranking.items()
    }
    found: dict[str, dict[str, float]] = {
        name: dict.fromkeys(collection.qrels, 0.0) for name in names.values()
    }
    for metric in ir_measures.iter_calc(list(names), collection.qrels, run):
        found[names[metric.measure]][metric.query_id] = float(metric.value)
    return found


def p_mrr(ranking: Ranking, changed: Mapping[str, Sequence[str]]) -> float:
    """Return FollowIR's p-MRR: how far rankings follow a changed instruction, from -1 to 1.

    For each document that the changed instruction makes irrelevant, with its rank before and after:
    after/before - 1 where it did not fall, 1 - before/after where it did; the mean over a topic's
    documents, then over topics (arXiv 2403.15246, section 4, and mteb's implementation). A document
    that is not ranked stands behind the last.

    Args:
        ranking: of the queries `TOPIC-og` and `TOPIC-changed`.
        changed: those documents, by topic.
    """
    topics = []
    for topic, documents in changed.items():
        before, after = (list(ranking[f"{topic}-{which}"]) for which in ("og", "changed"))
        moves = [_move(_rank(before, name), _rank(after, name)) for name in documents]
        if moves:
            topics.append(statistics.fmean(moves))
    return statistics.fmean(topics) if topics else 0.0


def _rank(documents: list[str], name: str) -> int:
    return documents.index(name) + 1 if name in documents else len(documents) + 1


def _move(before: int, after: int) -> float:
    return after / before - 1 if before >= after else 1 - before / after
