"""Jobs on a Ray cluster of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from erank_lite import Reranker
from erank_lite.jobs import ray as jobs
from erank_lite.jobs.inputs import open_queries
from erank_lite.jobs.outputs import Journal
from erank_lite.jobs.run import Settings, run

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.clients

DOCS = ["A loaf stays fresh in a bread box.", "The Danube is long.", "Mars has two moons."]
OPTIONS = {"model": "erank-tiny", "thinking": "none", "strict": True}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Any:
    ray.init(num_cpus=4, object_store_memory=200_000_000, include_dashboard=False,
             log_to_driver=False)  # fmt: skip
    yield
    ray.shutdown()


def write(path: Path, count: int) -> Path:
    path.write_text("".join(
        json.dumps({"id": f"q{n}", "query": f"bread and rivers {n}", "documents": DOCS}) + "\n"
        for n in range(count)
    ))  # fmt: skip
    return path


def test_a_worker_that_dies_costs_no_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = tmp_path / "died"

    class Dying(jobs._Worker):
        def rank(self, part: Any, settings: Settings) -> Any:
            if not died.exists():
                died.touch()
                os._exit(1)
            return super().rank(part, settings)

    monkeypatch.setattr(jobs, "_Worker", Dying)
    monkeypatch.setattr(jobs, "_DOCUMENTS", 12)
    queries = open_queries(write(tmp_path / "in.jsonl", 60))
    with Journal(tmp_path / "here.jsonl", {}) as journal, Reranker(**OPTIONS) as reranker:
        run(reranker, queries, queries.entries, journal, Settings())
        here = list(journal.records())
    with Journal(tmp_path / "there.jsonl", {}) as journal:
        summary = jobs.run_on_ray(OPTIONS, queries, queries.entries, journal, Settings(), workers=2)
        there = list(journal.records())
    assert died.exists() and summary.queries == 60 and summary.documents == 180
    assert there == here


def test_rows_of_a_dataset() -> None:
    rows = [{"query": f"bread {n % 3}", "text": DOCS[n % 2], "n": n} for n in range(40)]
    scored = ray.data.from_items(rows).map_batches(
        jobs.RerankBatch, fn_constructor_kwargs=OPTIONS, batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5,
    ).take_all()  # fmt: skip
    assert sorted(row["n"] for row in scored) == list(range(40))
    assert all(row["failure"] is None and 0 <= row["rank_score"] <= 10 for row in scored)
