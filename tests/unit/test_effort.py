"""How many documents are read, in how much time: what comes back of those that are not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from support.answering import END, TOKENIZER, answering
from support.tokenizers import CHAT_TEMPLATE

from erank_lite import Effort, InputError, ModelError, Reranker, hybrid_scores
from erank_lite.effort.budget import Budget, BudgetSource, OutOfTimeError
from erank_lite.engines.fake import FakeEngine
from erank_lite.types import Prompt, Request

THOUGHT = "a reasoning of some length, "
ANSWERS = {"a": 2, "b": 4, "c": 6, "d": 8}
DOCS: list[dict[str, Any]] = [
    {"content": "a", "first_stage_score": 1.0},
    {"content": "b", "first_stage_score": 3.0},
    {"content": "c", "first_stage_score": 4.0},
    {"content": "d", "first_stage_score": 2.0},
]


def contents(results: Sequence[dict[str, Any]]) -> str:
    return "".join(r["content"] for r in results)


def test_only_the_first_by_the_first_stage_are_read_and_the_others_follow() -> None:
    engine = answering(ANSWERS)
    results = Reranker(engine).rerank("q", DOCS, effort=Effort(depth=2))
    assert contents(results) == "cbda"
    assert [r["level"] for r in results] == ["full", "full", None, None]
    assert [r["rank"] for r in results] == [1, 2, 3, 4]
    assert all(r["rank_score"] is r["estimate"] is r["failure"] is None for r in results[2:])
    assert len(engine.prompts) == 2


def test_without_scores_for_all_they_are_read_as_they_come() -> None:
    texts = Reranker(answering(ANSWERS)).rerank("q", ["a", "b", "c", "d"], effort=Effort(depth=2))
    assert contents(texts) == "bacd"
    some = [DOCS[0], "b", DOCS[2], DOCS[3]]
    assert (
        contents(Reranker(answering(ANSWERS)).rerank("q", some, effort=Effort(depth=2))) == "bacd"
    )


def test_a_document_that_fails_still_comes_last() -> None:
    docs = [{"content": "", "first_stage_score": 9.0}, *DOCS]
    results = Reranker(answering(ANSWERS)).rerank("q", docs, effort=Effort(depth=2))
    assert contents(results) == "cbda" and results[-1]["failure"] == "the document is empty"


def test_a_first_pass_decides_what_is_read() -> None:
    first = Reranker(answering({"a": 9, "b": 1, "c": 2, "d": 5}))
    engine = answering(ANSWERS)
    with Reranker(engine, first_pass=first) as reranker:
        results = reranker.rerank("q", DOCS, effort=Effort(depth=2))
        assert contents(results) == "dacb"
        assert [r["reading_rank"] for r in results] == [2, 1, 3, 4]
        assert len(first.engine.prompts) == 4 and len(engine.prompts) == 2  # type: ignore[attr-defined]
    assert contents(first.rerank("q", DOCS)) == "adcb"  # it is the caller's, and still open


def test_a_first_pass_that_fails_leaves_the_first_stage_to_decide(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Reranker(answering(ANSWERS))
    first.close()
    first.engine.close()
    results = Reranker(answering(ANSWERS), first_pass=first).rerank(
        "q", DOCS, effort=Effort(depth=2)
    )
    assert contents(results) == "cbda"
    assert "the first pass failed" in caplog.text


def test_the_others_follow_in_the_order_of_reading_whatever_their_keys() -> None:
    docs = [d | {"first_pass_score": i, "expected_score": i} for i, d in enumerate(DOCS)]
    docs[2] = docs[2] | {"first_stage_score": None}
    assert contents(Reranker(answering(ANSWERS)).rerank("q", docs, effort=Effort(1))) == "abcd"
    zeros = Reranker(answering({}))
    first = zeros.rerank("q", DOCS)
    ranked = Reranker(answering(ANSWERS), first_pass=zeros).rerank("q", DOCS, effort=Effort(1))
    assert contents(ranked) == contents(first)


def test_many_queries_are_each_read_to_the_depth() -> None:
    rankings = list(
        Reranker(answering(ANSWERS)).rerank_many([("q", DOCS), ("r", DOCS[:1])], effort=Effort(1))
    )
    assert [contents(ranking) for ranking in rankings] == ["cbda", "a"]


def test_a_budget_is_for_one_query() -> None:
    reranker = Reranker(answering(ANSWERS))
    with pytest.raises(InputError, match="for one query"):
        next(reranker.iter_rerank_many([("q", DOCS)], effort=Effort(within=3)))


def test_what_is_under_way_when_tokens_are_spent_is_asked_for_its_answer() -> None:
    whole = len(TOKENIZER.encode_trusted(f"<think>{THOUGHT}</think><answer>6</answer>"))
    engine = answering(ANSWERS, THOUGHT)
    results = Reranker(engine).rerank("q", DOCS, effort=Effort(tokens=whole + 12))
    by_content = {r["content"]: r for r in results}
    assert by_content["c"]["level"] == "full" and by_content["c"]["rank_score"] == 3.0
    stopped = by_content["b"]
    assert stopped["level"] in range(9, 25) and stopped["forced"]
    assert stopped["rank_score"] is None and (stopped["score"], stopped["estimate"]) == (4, 2.0)
    # Two say too little of the others: these follow.
    assert contents(results) == "cbda"
    assert by_content["d"]["level"] is None and by_content["d"]["estimate"] == 2.0
    assert engine.tokens_generated < whole + 12 + 16


@pytest.mark.parametrize("effort", [Effort(within=0), Effort(within=-1.5), Effort(tokens=0)])
def test_nothing_is_read_without_a_budget_and_the_first_stage_orders(effort: Effort) -> None:
    engine = answering(ANSWERS)
    results = Reranker(engine).rerank("q", DOCS, effort=effort)
    assert contents(results) == "cbda" and not engine.prompts
    assert all(r["level"] is r["estimate"] is None for r in results)


def test_a_long_time_changes_nothing() -> None:
    plain = Reranker(answering(ANSWERS)).rerank("q", DOCS)
    results = Reranker(answering(ANSWERS)).rerank("q", DOCS, effort=Effort(within=1e6))
    assert [{k: v for k, v in r.items() if k != "reading_rank"} for r in results] == plain


def test_it_is_the_same_for_asyncio() -> None:
    effort = Effort(depth=2, within=1e6)
    results = asyncio.run(Reranker(answering(ANSWERS)).arerank("q", DOCS, effort=effort))
    assert contents(results)[:2] == "cb" and [r["level"] for r in results][2:] == [None, None]


def test_the_time_of_one_that_hangs_is_up_all_the_same() -> None:
    class Stuck(FakeEngine):
        stuck = True

        def _advance(self, queue: Any) -> list[Any]:
            while self.stuck and not self._queue.closed:  # type: ignore[union-attr]
                if self._queue.withdrawn():  # type: ignore[union-attr]
                    self.stuck = False
            return []

    engine = Stuck(TOKENIZER, lambda *_: [(END, 1.0)], CHAT_TEMPLATE, [END])
    with engine:
        results = Reranker(engine).rerank("q", DOCS, effort=Effort(within=0.2))
        assert contents(results) == "cbda"


def test_a_source_gives_up_what_is_only_read_and_ends_with_what_writes() -> None:
    now = 0.0
    budget = Budget(Effort(within=10), together=2, reserve=2, clock=lambda: now)
    requests = (
        Request(key, Prompt((1,), 0), lambda: None, 1)  # type: ignore[arg-type, return-value]
        for key in itertools.count()
    )
    source = BudgetSource(requests, budget, writes=lambda key: key == 0)
    assert [source.take().key, source.take().key] == [0, 1]  # type: ignore[union-attr]
    assert not source.ended and not source.given_up
    now = 8.1
    source.look()
    assert source.take() is None and source.given_up == {1} and not source.ended
    source.came_back(0)
    assert source.ended
    now = 10.0
    with pytest.raises(OutOfTimeError):
        source.look()


def test_at_most_a_quarter_of_the_time_is_kept_back() -> None:
    now = 0.0
    budget = Budget(Effort(within=10), together=2, reserve=1e9, clock=lambda: now)
    assert not budget.spent() and budget.left() == 7.5
    assert Budget(Effort(tokens=5), together=2, reserve=2).left() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0}, {"depth": 1.5}, {"depth": True}, {"within": "20"}, {"within": float("nan")},
        {"within": 10**400},
        {"tokens": 2.5}, {"tokens": "many"},
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Effort(**wrong)


def test_a_hybrid_takes_estimates_for_rank_scores() -> None:
    results = [
        {"content": "a", "first_stage_score": 1.0, "rank_score": 5.0, "estimate": None},
        {"content": "b", "first_stage_score": 2.0, "rank_score": None, "estimate": 6.0},
        {"content": "c", "first_stage_score": 3.0, "rank_score": None, "estimate": None},
    ]
    hybrid = hybrid_scores(results, 0.2)
    assert contents(hybrid) == "bac" and hybrid[-1]["hybrid_score"] is None


def test_a_query_that_cannot_be_used_is_told_for_asyncio_too() -> None:
    async def rank() -> Any:
        return await Reranker(answering(ANSWERS)).arerank("q " * 9_000, DOCS)

    with pytest.raises(InputError, match="before any document"):
        asyncio.run(rank())


def test_a_closed_engine_is_told_as_ever() -> None:
    engine = answering(ANSWERS)
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        Reranker(engine).rerank("q", DOCS, effort=Effort(within=5))


@pytest.mark.parametrize("wrong", [None, 5, {"depth": 2}])
def test_an_effort_of_another_type_is_refused(wrong: Any) -> None:
    reranker = Reranker(answering(ANSWERS))
    with pytest.raises(InputError, match="effort must be"):
        reranker.rerank("q", DOCS, effort=wrong)
    with pytest.raises(InputError, match="effort must be"):
        list(reranker.rerank_many([("q", DOCS)], effort=wrong))


def test_to_begin_a_document_costs_no_token() -> None:
    results = Reranker(answering(ANSWERS, THOUGHT)).rerank("q", DOCS, effort=Effort(tokens=1))
    assert [r["level"] for r in results if r["level"] is not None] == [1]


def test_tokens_of_another_call_do_not_count() -> None:
    engine = answering(ANSWERS, THOUGHT)
    engine.tokens_generated = 10_000
    results = Reranker(engine).rerank("q", DOCS, effort=Effort(tokens=10_000))
    assert [r["level"] for r in results] == ["full"] * 4
