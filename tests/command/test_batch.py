"""`erank-lite batch`: what is written, what is refused, and that it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.command import COMMAND

from erank_lite.util.files import locked

DOCS = ["A loaf stays fresh in a bread box.", "The Danube is long.", "Mars has two moons."]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))


def queries(tmp_path: Path, count: int) -> Path:
    words = ["how does bread stay fresh", "which river is long", "how many moons has Mars"]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(
        json.dumps({"id": f"q{n}", "query": f"{words[n % 3]} {n}", "documents": DOCS}) + "\n"
        for n in range(count)
    ))  # fmt: skip
    return path


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "batch", *map(str, arguments)], capture_output=True, text=True, timeout=200,
        cwd=cwd,
    )  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_of_queries_is_ranked(tmp_path: Path) -> None:
    path = queries(tmp_path, 6)
    done = command(path, "--out", "out.jsonl", "--thinking", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in written] == [f"q{n}" for n in range(6)]
    assert all(sorted(r["index"] for r in line["results"]) == [0, 1, 2] for line in written)
    assert "6 queries, 18 documents in" in done.stderr and not done.stdout
    again = command(path, "--out", "out.jsonl", "--thinking", "none", cwd=tmp_path)
    assert again.returncode == 1 and "there already" in again.stderr
    trec = command(path, "--out", "out.trec", "--thinking", "none", "--top-k", "1", cwd=tmp_path)
    assert trec.returncode == 0 and len((tmp_path / "out.trec").read_text().splitlines()) == 6


def test_shards_together_are_the_whole(tmp_path: Path) -> None:
    path = queries(tmp_path, 7)
    shared = ("--strict", "--thinking", "none")
    command(path, "--out", "whole.jsonl", *shared, cwd=tmp_path)
    parts = []
    for number in range(3):
        done = command(
            path, "--out", f"{number}.jsonl", "--shard", f"{number}/3", *shared, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        parts += lines(tmp_path / f"{number}.jsonl")
    whole = lines(tmp_path / "whole.jsonl")
    assert sorted(parts, key=lambda line: line["id"]) == whole


def test_a_job_that_is_killed_goes_on(tmp_path: Path) -> None:
    path = queries(tmp_path, 60)
    shared = ("--strict", "--thinking", "none")
    command(path, "--out", "whole.jsonl", *shared, cwd=tmp_path)
    journal = tmp_path / "out.jsonl.unfinished"
    for size in (3, 20):
        process = subprocess.Popen(
            [*COMMAND, "batch", str(path), "--out", "out.jsonl", *shared], cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None:
            if journal.is_file() and journal.read_bytes().count(b"\n") > size:
                process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
                break
            time.sleep(0.01)
        process.wait()
    done = command(path, "--out", "out.jsonl", *shared, cwd=tmp_path)
    assert done.returncode == 0 and "were finished before" in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.exists()


def test_another_jobs_output_is_refused(tmp_path: Path) -> None:
    path = queries(tmp_path, 3)
    (tmp_path / "out.jsonl.unfinished").write_text('{"job": {"input": "another"}}\n')
    done = command(path, "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1 and "left by another job" in done.stderr
    done = command(path, "--out", "out.jsonl", "--force", "--thinking", "none", cwd=tmp_path)
    assert done.returncode == 0 and len(lines(tmp_path / "out.jsonl")) == 3


def test_bad_lines_stop_the_job_or_are_skipped(tmp_path: Path) -> None:
    path = queries(tmp_path, 3)
    path.write_text(path.read_text() + '{"id": "bad"}\n{"id": "cut')
    done = command(path, "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "out.jsonl").exists()
    assert f"`{path}`, line 4: it has no query" in done.stderr and "and 1 other" in done.stderr
    done = command(
        path, "--out", "out.jsonl", "--on-error", "skip", "--thinking", "none", cwd=tmp_path
    )
    assert done.returncode == 0 and "2 queries skipped" in done.stderr
    assert f"skipped: `{path}`, line 5: it is not JSON" in done.stderr
    assert len(lines(tmp_path / "out.jsonl")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.jsonl", "--out", "out.jsonl"], "nowhere.jsonl"),
        ([".", "--out", "out.jsonl"], "is a folder"),
        (["in.jsonl", "--out", "in.jsonl", "--force"], "is the input itself"),
        (["in.jsonl", "--out", "out"], "no ending"),
        (["in.jsonl", "--out", "no/out.jsonl"], "no folder"),
        (["in.jsonl", "--out", "out.jsonl", "--shard", "3/3"], "--shard 3/3 does not exist"),
        (["in.jsonl", "--out", "out.jsonl", "--shard", "a"], "--shard is I/N, not 'a'"),
        (["in.jsonl", "--out", "out.jsonl", "--on-error", "cry"], "--on-error"),
        (["in.jsonl", "--out", "out.jsonl", "--workers", "2"], "--ray"),
        (["in.jsonl", "--out", "out.jsonl", "--model", "nosuch.gguf"], "nosuch.gguf"),
        (["in.jsonl", "--out", "out.jsonl", "--thinking", "deeply"], "thinking"),
        (["empty.jsonl", "--out", "out.jsonl"], "no queries"),
        (["in.jsonl", "--out", "out.jsonl", "--collection", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    queries(tmp_path, 1)
    (tmp_path / "empty.jsonl").write_text("\n")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    with locked(tmp_path / "out.jsonl"):
        done = command(queries(tmp_path, 1), "--out", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1 and "another process" in done.stderr


def test_a_run_over_a_collection_is_read_whole_with_the_instruction_given(tmp_path: Path) -> None:
    pytest.importorskip("ir_datasets")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "bread"}\n')
    corpus = [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(DOCS)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    run = tmp_path / "first.trec"
    run.write_text("".join(f"q Q0 d{n} {n + 1} {9 - n} x\n" for n in range(3)))
    rankings = {}
    for name, instruction in (("own", []), ("given", ["--instruction", "Find rivers, no food."])):
        done = command(
            run, "--out", f"{name}.jsonl", "--collection", ".", "--thinking", "none",
            "--depth", "1", *instruction, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (rankings[name],) = lines(tmp_path / f"{name}.jsonl")
    own, given = (rankings[name]["results"] for name in ("own", "given"))
    assert [r["id"] for r in own] == ["d0", "d1", "d2"]
    assert own[0]["probability"] != given[0]["probability"]
