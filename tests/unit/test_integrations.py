"""What all adapters have in common, and the one that needs no framework."""

from __future__ import annotations

import numpy as np
import pytest
from support.answering import answering

from erank_lite import InputError, ModelError, Reranker
from erank_lite.integrations.cross_encoder import ERankCrossEncoder
from erank_lite.integrations.ranking import pair_scores, ranker

DOCS = ["one", "two", "three"]


@pytest.fixture
def reranker() -> Reranker:
    return Reranker(answering({"one": 0, "two": 9, "three": 6}))


def test_pairs_come_back_in_their_order(reranker: Reranker) -> None:
    pairs = [("q", "two"), ("r", "one"), ("q", "three")]
    assert pair_scores(ranker(reranker), pairs) == pytest.approx([0.45, 0.0, 0.3])
    scores = ERankCrossEncoder(reranker).predict(pairs)
    assert scores.tolist() == pytest.approx([0.45, 0.0, 0.3])


def test_one_pair_gets_a_number(reranker: Reranker) -> None:
    encoder = ERankCrossEncoder(reranker)
    assert isinstance(encoder.predict(("q", "two")), np.float32)
    assert encoder.predict(sentences=[("q", "two")]).shape == (1,)
    assert encoder.predict([]).shape == (0,)


@pytest.mark.parametrize("wrong", [None, ["q"], [("q",)], [("q", 3)]])
def test_what_are_no_pairs_is_refused(reranker: Reranker, wrong: object) -> None:
    with pytest.raises((InputError, TypeError)):
        ERankCrossEncoder(reranker).predict(wrong)  # type: ignore[arg-type]


def test_texts_are_ranked(reranker: Reranker) -> None:
    found = ERankCrossEncoder(reranker).rank("q", DOCS, top_k=2, return_documents=True)
    assert [(r["corpus_id"], r["text"]) for r in found] == [(1, "two"), (2, "three")]


def test_a_reranker_of_the_callers_stays_open(reranker: Reranker) -> None:
    ranker(reranker).close()
    assert reranker.rerank("q", ["two"])[0]["score"] == 9
    with pytest.raises(InputError, match="options belong"):
        ranker(reranker, thinking="none")


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ModelError, match="does not answer"):
        ranker("http://127.0.0.1:9").rank("q", DOCS)
