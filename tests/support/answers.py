"""The answers of a form of erank-tiny, and how far two forms' answers are apart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erank_lite import Reranker

Job = tuple[str, list[dict[str, Any]]]


def everyday(queries: int) -> list[Job]:
    """The first of the everyday queries, which were kept out of training, with 8 texts each."""
    path = Path(__file__).parents[2] / "training" / "everyday.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()][:queries]
    return [(row["query"], [{"content": text} for text in row["documents"]]) for row in rows]


def results_of(jobs: list[Job], model: str | Path, **options: Any) -> list[list[dict[str, Any]]]:
    """Each query's results, best first."""
    with Reranker(model, **options) as reranker:
        return list(reranker.rerank_many(jobs))


def in_order(results: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of all queries, each query's in the order in which its documents were given."""
    return [r for ranked in results for r in sorted(ranked, key=lambda r: r["index"])]


def agreement(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> tuple[float, float]:
    """The share of pairs with the same score, and the mean difference of their rank scores."""
    pairs = list(zip(ours, theirs, strict=True))
    same = statistics.mean(a["score"] == b["score"] for a, b in pairs)
    return same, statistics.mean(abs(a["rank_score"] - b["rank_score"]) for a, b in pairs)
