"""What cheaper ways would have given: their orders, their costs, how near they come."""

from __future__ import annotations

import math

import pytest

from erank_lite.benchmarks.effort import replay
from erank_lite.benchmarks.effort.measure import Reading
from erank_lite.benchmarks.effort.probe import Probe


def reading(name: str, rank_score: float, tokens: int = 100, **probes: float) -> Reading:
    """Return a document of 40 own tokens; `p0=3` is what it would have answered at once."""
    seen = {int(cut[1:]): Probe(int(cut[1:]), value, 0.9) for cut, value in probes.items()}
    return Reading("q", name, 1.0, 40, tokens, rank_score, None, seen)


FOUND = [
    reading("a", 0.0, p0=1.0, p32=0.5),
    reading("b", 9.0, p0=2.0, p32=8.0),
    reading("c", 5.0, tokens=20, p0=6.0),
    reading("d", 8.0, p0=7.0, p32=7.5),
]


def names(way: replay.Way) -> str:
    return "".join(r.id for r in way(FOUND, 0.5).documents)


def test_orders() -> None:
    assert names(replay.full) == "bdca"
    assert names(replay.first_stage(2)) == "bacd"
    assert names(replay.cut(0)) == "dcba"
    assert names(replay.cut(32)) == "bdca"  # c had finished by then
    assert names(replay.glance(2)) == "dcba"
    scores = {("q", "a"): 9.0, ("q", "b"): 8.0, ("q", "c"): 0.0, ("q", "d"): 0.5}
    assert names(replay.by(scores, 2)) == "badc"


def test_costs() -> None:
    each = 0.5 * 40
    assert replay.full(FOUND, 0.5).cost == 4 * each + 320
    assert replay.first_stage(1)(FOUND, 0.5).cost == each + 100
    asked = 0.5 * (40 + replay.ASKED)
    assert replay.cut(32)(FOUND, 0.5).cost == 3 * (asked + 33) + each + 20
    assert replay.glance(1)(FOUND, 0.5).cost == 4 * (asked + 1) + each + 100
    assert (
        replay.by(dict.fromkeys((("q", r.id) for r in FOUND), 0.0), 1, 3.0)(FOUND, 0.5).cost
        == 4 * 3 + each + 100
    )


def test_self_ndcg_is_that_of_the_models_own_scores() -> None:
    best = 9 + 8 / math.log2(3)
    assert replay.self_ndcg(replay.full(FOUND, 0).documents, 2) == 1
    other = replay.cut(0)(FOUND, 0).documents
    assert replay.self_ndcg(other, 2) == pytest.approx((8 + 5 / math.log2(3)) / best)
    assert replay.self_ndcg([reading("a", 0.0), reading("b", 0.0)]) == 1


def test_agreement_over_queries() -> None:
    queries = {"q": FOUND, "r": FOUND[:2]}
    found = replay.agreement(queries, replay.full, 0.5)
    assert (found.cost, found.self_ndcg, found.overlap, found.spearman) == (1, 1, 1, 1)
    assert found.interval == (1, 1)
    worse = replay.agreement(queries, replay.first_stage(1), 0.5)
    assert worse.cost < 0.5 and worse.self_ndcg < 1 and worse.interval[0] <= worse.self_ndcg


def test_the_first_stages_cut_at_equal_cost_costs_no_more() -> None:
    queries = {"q": FOUND}
    depth, _ = replay.equal_cost(queries, 0.5, 0.5)
    assert depth == 1
    assert replay.equal_cost(queries, 1.0, 0.5)[0] == 4


def test_spearman() -> None:
    order = replay.full(FOUND, 0).documents
    assert replay.spearman(order, order) == 1
    assert replay.spearman(order[::-1], order) == -1
