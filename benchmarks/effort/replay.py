"""What an order would have been, and would have cost, had less been read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from erank_lite.benchmarks.effort.measure import Reading

CUTOFF = 10
ASKED = 6  # tokens that are read to ask for an answer
_SAMPLES = 1_000


@dataclass(frozen=True)
class Order:
    """One way to order a query's documents.

    Attributes:
        documents: best first.
        cost: in tokens written, tokens read counted by what they cost of these.
    """

    documents: list[Reading]
    cost: float


Way = Callable[[Sequence[Reading], float], Order]
"""(a query's documents in the first stage's order, what reading a token costs) → their order."""


def full(readings: Sequence[Reading], share: float) -> Order:
    """Return the order of documents that are all read to the end."""
    return first_stage(len(readings))(readings, share)


def first_stage(depth: int) -> Way:
    """Return the way that reads the first `depth` to the end; the others follow."""

    def order(readings: Sequence[Reading], share: float) -> Order:
        ranked = sorted(readings[:depth], key=_score, reverse=True)
        return Order([*ranked, *readings[depth:]], sum(_cost(r, share) for r in readings[:depth]))

    return order


def cut(tokens: int) -> Way:
    """Return the way that asks each document for its answer after so many tokens of reasoning."""

    def order(readings: Sequence[Reading], share: float) -> Order:
        cost = 0.0
        estimates: dict[str, tuple[float, float]] = {}
        for reading in readings:
            probe = reading.probes.get(tokens)
            if probe is None:  # it had finished by then
                estimates[reading.id] = _score(reading)
                cost += _cost(reading, share)
            else:
                estimates[reading.id] = (probe.expected, 0.0)
                cost += share * (reading.prompt + ASKED) + probe.tokens + 1
        return Order(sorted(readings, key=lambda r: estimates[r.id], reverse=True), cost)

    return order


def glance(depth: int) -> Way:
    """Return the way that asks all at once, without reasoning, and reads the best to the end."""

    def order(readings: Sequence[Reading], share: float) -> Order:
        asked = cut(0)(readings, share)
        best, others = asked.documents[:depth], asked.documents[depth:]
        cost = asked.cost + sum(_cost(r, share) for r in best)
        return Order([*sorted(best, key=_score, reverse=True), *others], cost)

    return order


def by(scores: Mapping[tuple[str, str], float], depth: int, cost: float = 0.0) -> Way:
    """Return the way that reads the best by another model's scores.

    Args:
        scores: the other model's, by query and document.
        depth: how many are read to the end.
        cost: of the other model's pass over one document.
    """

    def order(readings: Sequence[Reading], share: float) -> Order:
        ordered = sorted(readings, key=lambda r: scores[r.query, r.id], reverse=True)
        best, others = ordered[:depth], ordered[depth:]
        spent = cost * len(readings) + sum(_cost(r, share) for r in best)
        return Order([*sorted(best, key=_score, reverse=True), *others], spent)

    return order


def _score(reading: Reading) -> tuple[float, float]:
    return reading.rank_score, reading.expected_score or 0.0


def _cost(reading: Reading, share: float) -> float:
    return share * reading.prompt + reading.tokens


def self_ndcg(order: Sequence[Reading], cutoff: int = CUTOFF) -> float:
    """Return nDCG of an order, the model's own scores after full reasoning being the gains.

    1 where nothing has a gain: no order is then worse than another.
    """
    gains = [r.rank_score for r in order]
    best = _dcg(sorted(gains, reverse=True)[:cutoff])
    return _dcg(gains[:cutoff]) / best if best > 0 else 1.0


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def overlap(order: Sequence[Reading], whole: Sequence[Reading], cutoff: int = CUTOFF) -> float:
    """Return which share of the first documents of the full order is among the first."""
    wanted = {r.id for r in whole[:cutoff]}
    return len(wanted & {r.id for r in order[:cutoff]}) / max(1, len(wanted))


def spearman(order: Sequence[Reading], whole: Sequence[Reading]) -> float:
    """Return the correlation of two orders of the same documents."""
    place = {r.id: i for i, r in enumerate(whole)}
    count = len(order)
    if count < 2:
        return 1.0
    apart = sum((i - place[r.id]) ** 2 for i, r in enumerate(order))
    return 1 - 6 * apart / (count * (count**2 - 1))


@dataclass(frozen=True)
class Agreement:
    """How near a way comes to full reasoning, over queries.

    Attributes:
        cost: share of what full reasoning costs.
        self_ndcg: mean.
        interval: of that mean, 95 %, whole queries drawn anew.
        overlap: mean.
        spearman: mean.
    """

    cost: float
    self_ndcg: float
    interval: tuple[float, float]
    overlap: float
    spearman: float


def agreement(queries: Mapping[str, Sequence[Reading]], way: Way, share: float) -> Agreement:
    """Return how near a way comes to full reasoning."""
    spent = whole = 0.0
    near, shared, alike = [], [], []
    for readings in queries.values():
        best, order = full(readings, share), way(readings, share)
        spent, whole = spent + order.cost, whole + best.cost
        near.append(self_ndcg(order.documents))
        shared.append(overlap(order.documents, best.documents))
        alike.append(spearman(order.documents, best.documents))
    return Agreement(
        spent / whole,
        statistics.fmean(near),
        interval(near),
        statistics.fmean(shared),
        statistics.fmean(alike),
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by the bootstrap over the values."""
    draw = np.random.default_rng(0)
    drawn = draw.choice(np.asarray(values), (_SAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def equal_cost(
    queries: Mapping[str, Sequence[Reading]], cost: float, share: float
) -> tuple[int, Agreement]:
    """Return the deepest cut of the first stage that costs no more, and how near it comes."""
    deepest = max(map(len, queries.values()))
    found = (1, agreement(queries, first_stage(1), share))
    for depth in range(1, deepest + 1):
        at = agreement(queries, first_stage(depth), share)
        if at.cost > cost:
            break
        found = (depth, at)
    return found
