"""Files of queries: how they are read, how a job goes on, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.answering import answering

from erank_lite import InputError, Reranker
from erank_lite.jobs.inputs import Run, open_queries, parse
from erank_lite.jobs.outputs import Journal, check, unfinished, write
from erank_lite.jobs.run import Settings, in_order, run, shard

ANSWERS = {"bread": 9, "rivers": 2, "moons": 5}
DOCS = list(ANSWERS)


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return path


def queries(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{n}", "query": f"query {n % 3}", "documents": DOCS} for n in range(count)]


def finish(path: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    """Do a job, and return what was written."""
    found = open_queries(path)
    with (
        Reranker(answering(ANSWERS)) as reranker,
        Journal(out, {"input": found.digest}) as journal,
    ):
        run(reranker, found, found.entries, journal, Settings(), **options)
        journal.finish(out)
    return [json.loads(line) for line in out.read_text().splitlines()]


# In


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "it is list"),
        ({"query": "q", "documents": ["a"]}, "no id"),
        ({"id": None, "query": "q", "documents": ["a"]}, "no id"),
        ({"id": True, "query": "q", "documents": ["a"]}, "no id"),
        ({"id": 1, "documents": ["a"]}, "no query"),
        ({"id": 1, "query": " ", "documents": ["a"]}, "no query"),
        ({"id": 1, "query": "q"}, "no documents"),
        ({"id": 1, "query": "q", "documents": "text"}, "no documents"),
        ({"id": 1, "query": "q", "documents": []}, "is empty"),
        ({"id": 1, "query": "q", "documents": [3]}, "document 0"),
        ({"id": 1, "query": "q", "documents": [{"id": "d", "text": "a"}] * 2}, "'d'"),
        ({"id": 1, "query": "q", "documents": ["a"], "instruction": 3}, "instruction"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_record_that_is_no_query_is_told(tmp_path: Path, record: Any, says: str) -> None:
    path = write_lines(tmp_path / "in.jsonl", [*queries(1), record, *queries(3)[2:]])
    found = open_queries(path)
    assert [entry.id for entry in found.entries] == ["q0", "q2"]
    ((where, why),) = found.mistakes
    assert where == "line 2" and says in why


def test_an_id_twice_is_told(tmp_path: Path) -> None:
    found = open_queries(write_lines(tmp_path / "in.jsonl", [*queries(2), *queries(1)]))
    assert found.mistakes == [("line 3", "the id 'q0' comes twice, first in line 1")]


def test_the_names_that_people_use(tmp_path: Path) -> None:
    record = {
        "qid": 7, "query": "q", "candidates": [{"docid": "a", "text": "x"}, {"content": "y"}],
    }  # fmt: skip
    found = parse(record, 0)
    assert found.id == "7" and [d["id"] for d in found.documents] == ["a", "1"]
    assert [d["content"] for d in found.documents] == ["x", "y"]


def test_a_last_line_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, queries(2)))[:-5])
    assert [where for where, _ in open_queries(path).mistakes] == ["line 2"]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", queries(3))
    found = open_queries(path)
    write_lines(path, [{"id": "other", "query": "q", "documents": ["a"]}])
    with pytest.raises(InputError, match="changed while it was read"):
        found.read(found.entries[2])


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    rows = [
        {"id": f"q{n}", "query": f"query {n}",
         "documents": [{"id": d, "text": d} for d in DOCS], "instruction": None}
        for n in range(50)
    ]  # fmt: skip
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=7)
    found = open_queries(path)
    assert len(found.entries) == 50 and not found.mistakes
    query = found.read(found.entries[31])
    assert (query.id, [d["id"] for d in query.documents]) == ("q31", DOCS)
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_queries(tmp_path / "bad.parquet")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_missing_file_is_told_with_what_was_meant(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"queries.{ending}").touch()
    with pytest.raises(
        InputError, match="cannot be read: No such file or directory\nhint"
    ) as missing:
        open_queries(tmp_path / f"query.{ending}")
    assert missing.value.hint == f"did you mean `{tmp_path / f'queries.{ending}'}`?"


def test_a_run_over_a_collection() -> None:
    found = Run({"1": "bread"}, {"1": [("d1", 2.0), ("d2", 1.0)]}, {"d1": "x", "d2": "y"}, "find")
    query = found.read(found.entries[0])
    assert query.text == "bread" and query.instruction == "find"
    assert [(d["id"], d["content"], d["first_stage_score"]) for d in query.documents] == [
        ("d1", "x", 2.0), ("d2", "y", 1.0)
    ]  # fmt: skip


# Out


def test_the_output_is_in_the_order_of_the_input(tmp_path: Path) -> None:
    written = finish(write_lines(tmp_path / "in.jsonl", queries(10)), tmp_path / "out.jsonl")
    assert [line["id"] for line in written] == [f"q{n}" for n in range(10)]
    for line in written:
        assert [r["id"] for r in line["results"]] == ["0", "2", "1"]
        assert [r["score"] for r in line["results"]] == [9, 5, 2]
    assert not unfinished(tmp_path / "out.jsonl").exists()


def test_queries_alike_follow_each_other(tmp_path: Path) -> None:
    found = open_queries(write_lines(tmp_path / "in.jsonl", queries(7)))
    assert [e.number for e in in_order(found.entries)] == [0, 3, 6, 1, 4, 2, 5]


def test_shards_are_the_whole(tmp_path: Path) -> None:
    found = open_queries(write_lines(tmp_path / "in.jsonl", queries(10)))
    parts = [shard(found.entries, n, 3) for n in range(3)]
    assert sorted(e.number for part in parts for e in part) == list(range(10))


def test_each_query_has_its_own_instruction(tmp_path: Path) -> None:
    asked: list[str] = []
    engine = answering(ANSWERS)
    script = engine._script

    def spied(prompt: Any, ids: Any) -> Any:
        asked.append(engine.tokenizer.decode(prompt.ids))
        return script(prompt, ids)

    engine._script = spied  # type: ignore[method-assign]
    records = [q | {"instruction": f"Find number {n}."} for n, q in enumerate(queries(3))]
    found = open_queries(write_lines(tmp_path / "in.jsonl", records))
    out = tmp_path / "out.jsonl"
    with Reranker(engine) as reranker, Journal(out, {}) as journal:
        run(reranker, found, found.entries, journal, Settings("Find nothing."))
    for n in range(3):
        assert any(f"Find number {n}." in text and f"query {n}" in text for text in asked)
    assert not any("Find nothing." in text for text in asked)


def test_a_job_goes_on_where_it_was(tmp_path: Path) -> None:
    path, out = write_lines(tmp_path / "in.jsonl", queries(9)), tmp_path / "out.jsonl"
    whole = finish(path, tmp_path / "whole.jsonl")
    found = open_queries(path)
    job = {"input": found.digest}

    class Stopped(Exception):
        pass

    class Stopping(Journal):
        def add(self, number: int, record: Any) -> None:
            super().add(number, record)
            if len(self) == 4:
                raise Stopped

    with (
        pytest.raises(Stopped),
        Reranker(answering(ANSWERS)) as reranker,
        Stopping(out, job) as journal,
    ):
        run(reranker, found, found.entries, journal, Settings())
    assert not out.exists()
    # The last line was cut off as the process was killed.
    journal_file = unfinished(out)
    journal_file.write_bytes(journal_file.read_bytes()[:-7])
    with Journal(out, job) as journal:
        assert len(journal) == 3
        with Reranker(answering(ANSWERS)) as reranker:
            summary = run(reranker, found, found.entries, journal, Settings())
        assert (summary.before, summary.queries) == (3, 9)
        journal.finish(out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == whole


def test_another_jobs_journal_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Journal(out, {"input": "a", "model": "x"}) as journal:
        journal.add(0, {"id": "q"})
    with pytest.raises(InputError, match=r"(?s)another job.*its model is another"):
        Journal(out, {"input": "a", "model": "y"})
    with Journal(out, {"input": "a", "model": "x"}) as journal:
        assert len(journal) == 1
    with Journal(out, {"input": "b", "model": "y"}, force=True) as journal:
        assert len(journal) == 0


def test_outputs_are_checked_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text("mine")
    for out, says in (("out", "no ending"), ("out.docx", "no ending"), ("no/out.jsonl", "folder"),
                      ("there.jsonl", "--force")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            check(tmp_path / out, force=False)
    check(tmp_path / "there.jsonl", force=True)


def results(*scores: float | None) -> list[dict[str, Any]]:
    return [
        {"id": f"d {n}", "index": n, "rank": n + 1, "score": 7, "probability": 0.5,
         "rank_score": s, "truncated": False, "failure": None if s is not None else "empty"}
        for n, s in enumerate(scores)
    ]  # fmt: skip


def test_a_run_keeps_the_order_whoever_sorts_by_its_scores(tmp_path: Path) -> None:
    out = tmp_path / "out.trec"
    write(out, ".trec", iter([{"id": "1", "results": results(3.5, 0.0, 0.0, None)}]))
    rows = [line.split() for line in out.read_text().splitlines()]
    assert [row[2] for row in rows] == ["d_0", "d_1", "d_2", "d_3"]
    scores = [float(row[4]) for row in rows]
    assert scores == sorted(set(scores), reverse=True) and all(len(row) == 6 for row in rows)


def test_parquet_out(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    records = [{"id": str(n), "results": results(3.5, None)} for n in range(600)]
    write(out, ".parquet", iter([*records, {"id": "bad", "results": [], "failure": "long"}]))
    rows = parquet.read_table(out).to_pylist()
    assert len(rows) == 601 and rows[-1]["failure"] == "long"
    assert [r["rank_score"] for r in rows[0]["results"]] == [3.5, None]


def test_a_query_that_cannot_be_used_is_skipped_and_told(tmp_path: Path) -> None:
    records = queries(5)
    records[2]["query"] = "long " * 20_000
    found = open_queries(write_lines(tmp_path / "in.jsonl", records))
    out = tmp_path / "out.jsonl"
    with Reranker(answering(ANSWERS)) as reranker:
        with Journal(out, {}) as journal, pytest.raises(InputError, match="fit the context"):
            run(reranker, found, found.entries, journal, Settings())
        with Journal(out, {}) as journal:
            run(reranker, found, found.entries[:3], journal, Settings(), skip_mistakes=True)
        with Journal(out, {}) as journal:  # what was skipped in an earlier run is told again
            summary = run(reranker, found, found.entries, journal, Settings(), skip_mistakes=True)
            journal.finish(out)
    assert [name for name, _ in summary.skipped] == ["q2"] and summary.queries == 4
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [bool(line["results"]) for line in written] == [True, True, False, True, True]
    assert "fit the context" in written[2]["failure"]
