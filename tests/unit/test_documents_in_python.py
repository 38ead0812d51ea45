"""Documents as Python programs have them: frames, objects, numbers of other libraries."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_reranker import answering

from erank_lite import InputError, Reranker, hybrid_scores
from erank_lite.documents import as_documents


@dataclass
class Document:
    """As LangChain's: its text, and what is known about it."""

    page_content: Any
    metadata: dict[str, Any]


class Frame:
    """What pandas and polars frames have in common: to iterate over them gives the columns."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.columns = rows, list(rows[0]) if rows else []

    def __iter__(self) -> Any:
        return iter(self.columns)


class PandasFrame(Frame):
    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self.rows


class PolarsFrame(Frame):
    def to_dicts(self) -> list[dict[str, Any]]:
        return self.rows


ROWS = [{"id": 1, "content": "a", "first_stage_score": 3.0}, {"id": 2, "content": "b"}]


@pytest.mark.parametrize("kind", [list, tuple, iter, PandasFrame, PolarsFrame])
def test_rows_are_documents(kind: Any) -> None:
    reranker = Reranker(answering({"a": "2", "b": "7"}))
    results = reranker.rerank("q", kind(ROWS))
    assert [(r["id"], r["content"], r["score"]) for r in results] == [(2, "b", 7), (1, "a", 2)]


def test_real_frames() -> None:
    pandas = pytest.importorskip("pandas")
    assert as_documents(pandas.DataFrame(ROWS))[0] == ROWS[0]
    assert as_documents(pandas.DataFrame({"content": []})) == []
    assert as_documents(pandas.Series(["a", "b"])) == ["a", "b"]


def test_objects_with_a_text_are_kept() -> None:
    page = Document("a", {"source": "x.pdf"})
    (result,) = Reranker(answering({"a": "5"})).rerank("q", [page])
    assert result["content"] == "a" and result["document"] is page


def test_texts_of_numpy_are_texts() -> None:
    (found,) = as_documents(np.array(["a"]))
    assert type(found) is str and found == "a"


@pytest.mark.parametrize(
    ("doc", "says"),
    [
        (None, "document 1 is nothing"),
        (float("nan"), "document 1 is float, without a text"),
        (5, "document 1 is int, without a text"),
        (["a"], "document 1 is list, without a text"),
        (b"a", "document 1 is bytes, without a text"),
        ({}, "document 1 has no text under content or text; its keys are none"),
        (
            {"content": None, "id": 1},
            "document 1 has no text under content or text; its keys are content, id",
        ),
        ({"content": float("nan")}, "document 1 has nothing (nan) for its content"),
        ({"content": ["a"], "text": "b"}, "document 1 has list for its content"),
        (Document(None, {}), "document 1 is Document, without a text"),
        (Document(3, {}), "document 1 has int for its page_content"),
        (namedtuple("Row", "id body")(1, "a"), "document 1 is Row, without a text"),
    ],
    ids=repr,
)
def test_what_is_no_document_is_refused_by_name(doc: Any, says: str) -> None:
    with pytest.raises(InputError) as raised:
        as_documents(["fine", doc])
    assert raised.value.message == says


@pytest.mark.parametrize("docs", ["a", b"a", {"content": "a"}, 5, None, Frame(ROWS)])
def test_what_is_no_list_is_refused(docs: Any) -> None:
    with pytest.raises(InputError, match="must be a list of documents, not"):
        as_documents(docs)


@pytest.mark.parametrize(
    ("docs", "hint"),
    [
        ("a", "put a single document in a list"),
        (Document("a", {}), "put a single document in a list"),
        (SimpleNamespace(collect=list, columns=["content"]), "collect it first"),
        (np.array("a"), "give an iterable of documents"),
        (7, "give an iterable of documents"),
    ],
)
def test_the_hint_says_what_to_give(docs: Any, hint: str) -> None:
    with pytest.raises(InputError) as raised:
        as_documents(docs)
    assert raised.value.hint == hint


def test_what_a_generator_of_documents_raises_is_its_own() -> None:
    with pytest.raises(TypeError, match="can only concatenate"):
        as_documents("a" + 1 for _ in range(2))  # type: ignore[operator]


@pytest.mark.parametrize("result", ["a", {"content": "a"}])
def test_a_hybrid_of_what_is_no_result_is_refused(result: Any) -> None:
    with pytest.raises(InputError, match=r"result 0 is (str|dict) without a rank_score"):
        hybrid_scores([result], 0.2)


def test_a_frame_with_two_columns_of_a_name_is_refused() -> None:
    frame = SimpleNamespace(columns=["content", "content"], to_dict=lambda kind: [{"content": "b"}])
    with pytest.raises(InputError, match="two columns of the frame are named 'content'"):
        as_documents(frame)


def test_what_queries_raise_comes_after_those_before() -> None:
    def queries() -> Any:
        yield "q", ["a"]
        yield "q", ["a"]
        raise KeyError("gone")

    found = []
    with pytest.raises(KeyError, match="gone"):
        for ranking in Reranker(answering({"a": "5"})).rerank_many(queries()):
            found.append(ranking)
    assert len(found) == 2
    with pytest.raises(InputError, match="pairs, not int"):
        list(Reranker(answering({})).rerank_many(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", ["ab", ("q",), ("q", ["a"], "i", 3), None, {"q": 1, "d": 2}, 7])
def test_a_query_without_its_documents_is_refused(pair: Any) -> None:
    reranker = Reranker(answering({"a": "5"}))
    done = reranker.rerank_many([("q", ["a"]), pair])
    assert len(next(done)) == 1
    with pytest.raises(InputError, match="query 1: it is not a pair"):
        next(done)


def test_numbers_of_other_libraries_are_numbers() -> None:
    results = [
        {"content": "a", "first_stage_score": Decimal("2.5"), "rank_score": np.float32(1.5)},
        {"content": "b", "first_stage_score": np.int64(1), "rank_score": 3.0},
    ]
    plain = [
        {"content": "a", "first_stage_score": 2.5, "rank_score": 1.5},
        {"content": "b", "first_stage_score": 1, "rank_score": 3.0},
    ]
    expected = [r["hybrid_score"] for r in hybrid_scores(plain, 0.25)]
    for alpha in (0.25, np.float32(0.25), Decimal("0.25")):
        found = [r["hybrid_score"] for r in hybrid_scores(results, alpha)]
        assert found == expected and json.dumps(found)
    reranker = Reranker(answering({"a": "5"}))
    (result,) = reranker.rerank("q", ["a"], truncate_length=np.int64(100))
    assert result["score"] == 5


@pytest.mark.parametrize("length", [0, -1, 2.0, True, "5", np.float64(3)])
def test_a_length_that_is_none_is_refused(length: Any) -> None:
    with pytest.raises(InputError, match="truncate_length must be an integer"):
        Reranker(answering({"a": "5"})).rerank("q", ["a"], truncate_length=length)


@pytest.mark.parametrize("thinking", [None, True, 2.5, "", "deep"])
def test_a_thinking_mode_that_is_none_is_refused(thinking: Any) -> None:
    with pytest.raises(InputError, match="thinking must be"):
        Reranker(answering({}), thinking=thinking)
