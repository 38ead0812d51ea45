"""The public interface, through a fake engine: order, ties, failures, mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.tokenizers import CHAT_TEMPLATE, byte_tokenizer

from erank_lite import InputError, ModelError, Reranker, hybrid_scores, sort_results
from erank_lite.engines.fake import FakeEngine
from erank_lite.types import Prompt

TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode_trusted("<|im_end|>")[0]


def answering(answers: dict[str, str], probability: float = 0.5) -> FakeEngine:
    """Return an engine that answers each document as `answers` says, by the document's text."""

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        text = TOKENIZER.decode(prompt.ids)
        answer = next(a for key, a in answers.items() if f"document:\n{key}\n" in text)
        wanted = [*TOKENIZER.encode_trusted(f"<think></think><answer>{answer}</answer>"), END]
        follows = tuple(wanted[: len(ids)]) == tuple(ids)
        return [(wanted[len(ids)] if follows else END, probability)]

    return FakeEngine(TOKENIZER, script, CHAT_TEMPLATE, [END])


def test_the_published_interface() -> None:
    docs: list[dict[str, Any]] = [
        {"content": "excited", "first_stage_score": 46.7, "extra": 1},
        {"content": "sad", "first_stage_score": 1.5},
        {"content": "peaceful", "first_stage_score": 2.3},
    ]
    before = [dict(d) for d in docs]
    reranker = Reranker(answering({"excited": "9", "sad": "0", "peaceful": "6"}))
    instruction = "Retrieve relevant documents for the query."
    results = reranker.rerank("I am happy", docs, instruction, truncate_length=2048)
    assert docs == before
    assert [r["content"] for r in results] == ["excited", "peaceful", "sad"]
    assert [r["rank_score"] for r in results] == pytest.approx([4.5, 3.0, 0.0])
    assert [r["rank"] for r in results] == [1, 2, 3]
    assert results[0]["extra"] == 1
    backwards = [r | {"first_stage_score": -r["first_stage_score"]} for r in results]
    hybrid = hybrid_scores(backwards, 1.0)
    assert [r["content"] for r in hybrid] == ["sad", "peaceful", "excited"]
    assert [r["rank"] for r in hybrid] == [1, 2, 3]


def test_failures_come_last_and_keep_their_text() -> None:
    reranker = Reranker(answering({"a": "no", "b": "0", "c": "5"}))
    results = reranker.rerank("q", ["a", "", "b", "c"])
    assert [r["content"] for r in results] == ["c", "b", "a", ""]
    assert [r["failure"] is None for r in results] == [True, True, False, False]
    assert results[2]["completion"].startswith("<think></think><answer>n")


def result(index: int, rank_score: float | None, **more: Any) -> dict[str, Any]:
    return {"index": index, "rank_score": rank_score, "expected_score": None, **more}


def order(*results: dict[str, Any]) -> list[int]:
    return [r["index"] for r in sort_results(results)]


def test_ties_are_broken_by_the_expected_score_where_all_have_it() -> None:
    assert order(result(0, 0.0, expected_score=0.1), result(1, 0.0, expected_score=0.4)) == [1, 0]
    assert order(result(0, 0.0, expected_score=0.1), result(1, 0.0)) == [0, 1]
    assert order(result(0, 2.0, expected_score=0.1), result(1, 3.0), result(2, None)) == [1, 0, 2]


def test_ties_are_broken_by_the_first_stage_otherwise() -> None:
    one = result(0, 0.0, first_stage_score=1.0, expected_score=9.0)
    assert order(one, result(1, 0.0, first_stage_score=2.0)) == [1, 0]
    assert order(result(1, 0.0), result(0, 0.0)) == [0, 1]


@pytest.mark.parametrize("docs", ["text", {"content": "a"}, None, 5, [1], [{"body": "a"}], [b"a"]])
def test_documents_are_checked(docs: Any) -> None:
    with pytest.raises(InputError, match="doc"):
        Reranker(answering({})).rerank("q", docs)


def test_documents_may_be_any_iterable() -> None:
    reranker = Reranker(answering({"a": "1", "b": "2"}))
    lists: list[Any] = [iter(["a", "b"]), ("a", "b"), (d for d in "ab")]
    for docs in lists:
        assert [r["content"] for r in reranker.rerank("q", docs)] == ["b", "a"]
    assert reranker.rerank("q", []) == []


@pytest.mark.parametrize(
    ("query", "instruction", "length", "message"),
    [
        (None, None, None, "strings"),
        ("q", 5, None, "strings"),
        (" ", None, None, "empty"),
        ("q", None, 0, "truncate_length"),
        ("q", None, 1.5, "truncate_length"),
        ("q", None, True, "truncate_length"),
        ("q", "bright/nope", None, "bright/"),
    ],
)
def test_options_are_checked(query: Any, instruction: Any, length: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Reranker(answering({})).rerank(query, ["a"], instruction, length)


@pytest.mark.parametrize("model", [None, 5, b"model.gguf"])
def test_the_model_is_checked(model: Any) -> None:
    with pytest.raises(InputError, match="model"):
        Reranker(model)


def test_a_bad_query_loses_no_query_before_it() -> None:
    reranker = Reranker(answering({"a": "1", "b": "2"}))
    queries: list[Any] = [("one", ["a"]), ("two", ["b"]), ("three", [5]), ("four", ["a"])]
    results = reranker.rerank_many(queries)
    assert next(results)[0]["score"] == 1
    assert next(results)[0]["score"] == 2
    with pytest.raises(InputError, match="query 2: document 0"):
        next(results)


def test_a_closed_reranker_says_so(tiny_gguf: Path) -> None:
    reranker = Reranker(tiny_gguf, threads=1, thinking=4)
    reranker.close()
    reranker.close()
    with pytest.raises(ModelError, match="closed"):
        reranker.rerank("q", ["a"])


def test_importing_the_package_loads_no_engine() -> None:
    code = "import sys, erank_lite; print(any(m in sys.modules for m in ('llama_cpp', 'torch')))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
