"""The hybrid of first stage and reranker."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from erank_lite.errors import InputError
from erank_lite.hybrid import hybrid_scores


def result(rank_score: Any, first: Any, **more: Any) -> dict[str, Any]:
    return {"rank_score": rank_score, "first_stage_score": first, **more}


# The example of the ERank model card.
PUBLISHED = [result(4.84, 46.7, id="a"), result(0.0, 1.5, id="b"), result(2.98, 2.3, id="c")]


def by_id(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {r["id"]: r["hybrid_score"] for r in results}


def test_the_published_example():
    hybrid = hybrid_scores(PUBLISHED, 0.2)
    assert [r["id"] for r in hybrid] == ["a", "c", "b"]
    assert [round(r["hybrid_score"], 2) for r in hybrid] == [1.18, 0.01, -1.19]


@pytest.mark.parametrize(("alpha", "order"), [(0, "acb"), (1, "acb"), (0.0, "acb"), (1.0, "acb")])
def test_alpha_at_its_ends_uses_one_side_only(alpha: float, order: str):
    hybrid = hybrid_scores(PUBLISHED, alpha)
    values = [r["first_stage_score" if alpha else "rank_score"] for r in PUBLISHED]
    mean, spread = np.mean(values), np.std(values)
    assert "".join(r["id"] for r in hybrid) == order
    for r, value in zip(PUBLISHED, values, strict=True):
        assert by_id(hybrid)[r["id"]] == pytest.approx((value - mean) / spread)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_alpha_outside_its_range_is_refused(alpha: float):
    with pytest.raises(InputError, match="alpha"):
        hybrid_scores(PUBLISHED, alpha)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_equal_scores_say_nothing(count: int):
    for value in (0.0, 5.0, 0.1, 1e-9, 1e9, -3.3):
        hybrid = hybrid_scores([result(value, value, id=i) for i in range(count)], 0.3)
        assert [r["hybrid_score"] for r in hybrid] == [0.0] * count, value
        assert [r["id"] for r in hybrid] == list(range(count)), value


def test_one_side_equal_leaves_the_order_to_the_other():
    hybrid = hybrid_scores([result(7.0, 1.0, id="a"), result(7.0, 2.0, id="b")], 0.2)
    assert by_id(hybrid) == pytest.approx({"a": -0.2, "b": 0.2})
    assert [r["id"] for r in hybrid] == ["b", "a"]


def test_ties_keep_the_order_given():
    rows = [result(1.0, 1.0, id=i) for i in range(5)] + [result(2.0, 2.0, id=5)]
    assert [r["id"] for r in hybrid_scores(rows, 0.5)] == [5, 0, 1, 2, 3, 4]


def test_small_scores_count_as_much_as_large_ones():
    """z does not depend on the scale: products of probabilities may be far below 1e-12."""
    small = [result(r["rank_score"], r["first_stage_score"] * 1e-15, id=r["id"]) for r in PUBLISHED]
    expected = by_id(hybrid_scores(PUBLISHED, 0.2))
    assert by_id(hybrid_scores(small, 0.2)) == pytest.approx(expected)


def test_failed_documents_stay_outside_and_last():
    failed = result(None, 1e6, id="f")
    hybrid = hybrid_scores([failed, *PUBLISHED], 0.2)
    assert [r["id"] for r in hybrid] == ["a", "c", "b", "f"]
    assert hybrid[-1]["hybrid_score"] is None
    assert by_id(hybrid)["a"] == by_id(hybrid_scores(PUBLISHED, 0.2))["a"]


def test_a_failed_document_needs_no_first_stage_score():
    hybrid = hybrid_scores([{"rank_score": None, "id": "f"}, *PUBLISHED], 0.2)
    assert hybrid[-1] == {"rank_score": None, "id": "f", "hybrid_score": None}


def test_only_failed_documents_keep_their_order():
    rows = [result(None, 1.0, id=i) for i in range(3)]
    assert [(r["id"], r["hybrid_score"]) for r in hybrid_scores(rows, 0.2)] == [
        (0, None),
        (1, None),
        (2, None),
    ]


def test_an_empty_list_stays_empty():
    assert hybrid_scores([], 0.2) == []


@pytest.mark.parametrize(
    "value",
    [None, "3", True, math.nan, math.inf, -math.inf, [1], 1j, 10**400, np.float64("nan")],
    ids=lambda value: repr(value)[:20],
)
def test_a_first_stage_score_that_is_no_finite_number_is_named(value: Any):
    with pytest.raises(InputError, match=r"document x .*first_stage_score") as caught:
        hybrid_scores([*PUBLISHED, result(1.0, value, id="x")], 0.2)
    assert "\n" not in caught.value.message


def test_a_missing_first_stage_score_is_named_by_rank_where_there_is_no_id():
    with pytest.raises(InputError, match="at rank 2"):
        hybrid_scores([result(1.0, 1.0), {"rank_score": 0.5}], 0.2)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, int])
def test_other_numbers_are_numbers(kind: Any):
    values = [(4, 46), (0, 1), (3, 2)]
    plain = hybrid_scores([result(float(a), float(b)) for a, b in values], 0.2)
    typed = hybrid_scores([result(kind(a), kind(b)) for a, b in values], 0.2)
    assert [r["hybrid_score"] for r in typed] == [r["hybrid_score"] for r in plain]
    assert {type(r["hybrid_score"]) for r in typed} == {float}


@pytest.mark.parametrize(
    "first", [(1e200, 2.0), (1e308, -1e308), (1.7e308, 1.7e308), (10**300, 1), (5e-324, 0.0)]
)
def test_numbers_at_the_edge_of_floats_do_not_overflow(first: tuple[float, float]):
    hybrid = hybrid_scores([result(1.0, first[0], id="a"), result(1.0, first[1], id="b")], 0.5)
    values = by_id(hybrid)
    expected = 0.0 if first[0] == first[1] else 0.5
    assert values == pytest.approx({"a": expected, "b": -expected})


def test_the_dicts_given_are_left_alone():
    given = [*copy.deepcopy(PUBLISHED), result(None, None, id="f", nested={"k": [1]})]
    before = copy.deepcopy(given)
    hybrid = hybrid_scores(given, 0.2)
    hybrid[0]["id"] = "changed"
    assert given == before


def test_a_hybrid_score_that_is_there_is_replaced():
    hybrid = hybrid_scores([{**r, "hybrid_score": "old"} for r in PUBLISHED], 0.2)
    assert by_id(hybrid) == by_id(hybrid_scores(PUBLISHED, 0.2))


def test_minmax_is_rank_r1s_form() -> None:
    """0.1·BM25 + 0.9·score, each from 0 to 1."""
    results = [
        {"rank_score": 1.0, "first_stage_score": 10.0},
        {"rank_score": 0.5, "first_stage_score": 30.0},
        {"rank_score": 0.75, "first_stage_score": 20.0},
    ]
    found = hybrid_scores(results, 0.1, "minmax")
    assert [r["hybrid_score"] for r in found] == pytest.approx([0.9, 0.1 * 0.5 + 0.9 * 0.5, 0.1])
    equal = [r | {"first_stage_score": 4.0} for r in results]
    assert [r["hybrid_score"] for r in hybrid_scores(equal, 1.0, "minmax")] == [0.0, 0.0, 0.0]
    scores = (-1.7e308, 1.7e308, 0)
    huge = [r | {"first_stage_score": s} for r, s in zip(results, scores, strict=True)]
    assert hybrid_scores(huge, 1.0, "minmax")[0]["hybrid_score"] == 1.0


def test_plain_is_judgeranks_form() -> None:
    """100·s + BM25, but for a factor of 101."""
    results = [
        {"rank_score": 0.91, "first_stage_score": 12.5},
        {"rank_score": 0.95, "first_stage_score": 8.0},
        {"rank_score": 0.02, "first_stage_score": 99.0},
    ]
    found = hybrid_scores(results, 1 / 101, "plain")
    assert [101 * r["hybrid_score"] for r in found] == pytest.approx([103.5, 103.0, 101.0])


def test_an_unknown_form_is_told() -> None:
    with pytest.raises(InputError, match="no form 'log'"):
        hybrid_scores([], 0.5, "log")
