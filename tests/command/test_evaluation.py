"""`erank-lite eval`, run as its users run it, and killed as they would not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.command import COMMAND, is_a_clear_line, run, run_in_process
from support.evaluation import (
    a_strict_run_survives_kills,
    command,
    everything_found,
    kept,
    nothing_is_lost_or_done_twice,
    the_record,
    the_run,
)
from support.judged import beir, followir

pytest.importorskip("ir_measures", reason="pip install 'erank-lite[eval]'")
pytest.importorskip("bm25s", reason="pip install 'erank-lite[eval]'")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A collection whose every document is found for every query."""
    return everything_found(tmp_path / "many")


def test_runs_and_measures(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(*command(tiny_gguf, many, out, "--depth", "20", "--queries", "2", "--alpha", "0.25"))
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for word in ("first stage", "reranked", "hybrid, alpha 0.25", "nDCG@10", "R@20"):
        assert word in text
    assert "published" not in text
    lines = the_run(out).decode().splitlines()
    assert len(lines) == 40 and {line.split()[0] for line in lines} == {"q1", "q2"}
    assert [int(line.split()[3]) for line in lines] == [*range(1, 21)] * 2
    assert len(the_run(out, ".hybrid.trec").splitlines()) == 40
    found = the_record(out)
    assert found["kind"] == "quality" and found["collection"] == "many"
    assert (found["queries"], found["documents"], found["depth"]) == (2, 40, 20)
    assert found["first_stage"].startswith("BM25") and found["published"] is None
    measures = found["measures"]
    assert set(measures["hybrid"]) == {*(str(a / 10) for a in range(11)), "0.25"}
    assert measures["hybrid"]["1.0"] == pytest.approx(measures["first stage"])
    assert found["size"] == tiny_gguf.stat().st_size
    assert found["command"].startswith("erank-lite eval many --model tiny.gguf")
    before = (out / "kept").stat().st_mtime, kept(out)
    again = run(*command(tiny_gguf, many, out, "--depth", "20", "--queries", "2"))
    assert again.returncode == 0 and kept(out) == before[1]  # nothing was computed twice


def test_the_first_stage_may_be_a_run(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    run_file = tmp_path / "other.trec"
    run_file.write_text("q1 Q0 d3 1 9.5 t\nq1 Q0 d1 2 9.0 t\nq2 Q0 d2 1 1.0 t\n")
    done = run(*command(tiny_gguf, many, tmp_path / "out", "--first-stage", str(run_file)))
    assert done.returncode == 0, done.stderr
    assert {line.split()[2] for line in the_run(tmp_path / "out").decode().splitlines()} == {
        "d1", "d2", "d3",
    }  # fmt: skip
    run_file.write_text("q1 Q0 nowhere 1 9.5 t\n")
    done = run(*command(tiny_gguf, many, tmp_path / "out2", "--first-stage", str(run_file)))
    assert done.returncode == 1
    assert b"has no document 'nowhere'" in b" ".join(done.stderr.splitlines()[-2:])


def test_followir_gets_p_mrr(tiny_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = followir(tmp_path / "news21-instructions-mteb")
    done = run(*command(tiny_gguf, folder, out, "--depth", "1000"))
    assert done.returncode == 0, done.stderr
    found = the_record(out)
    assert found["instruction"].startswith("Retrieval the relevant passage")
    assert -1 <= found["measures"]["reranked"]["p-MRR"] <= 1
    assert "hybrid" not in found["measures"]
    assert found["measures"]["first stage"]["p-MRR"] == 0


def test_another_setting_is_another_job(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for more in (["--depth", "3"], ["--depth", "3", "--instruction", "find cats"]):
        assert run(*command(tiny_gguf, many, out, *more)).returncode == 0
    assert len(list(out.glob("kept/*/documents.jsonl"))) == 2


def test_what_is_kept_belongs_to_the_document(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(*command(tiny_gguf, many, out, "--depth", "3", "--queries", "1")).returncode == 0
    done = run(*command(tiny_gguf, many, out, "--depth", "4", "--queries", "2"))
    assert done.returncode == 0 and b"3 of 8 documents were kept before" in done.stderr
    assert len(kept(out)) == 8
    assert len(list(out.glob("records/quality-*.json"))) == 2


def test_another_collection_of_the_same_name_replaces_nothing(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    one = beir(tmp_path / "a" / "same")
    two = beir(tmp_path / "b" / "same", {"d1": "One sleeping cat.", "d2": "The postman."})
    out = tmp_path / "out"
    arguments = command(tiny_gguf, one, out)
    done = run(arguments[0], two, *arguments[1:])
    assert done.returncode == 0 and done.stdout.decode().count("on same: 2 queries") == 2
    assert len(list(out.glob("records/quality-*.json"))) == 2
    assert len(list(out.glob("first-stage/*"))) == 2
    assert len(list(out.glob("runs/*/*.hybrid-0.2.trec"))) == 2


def test_queries_without_candidates_are_told(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.trec"
    file.write_text("q1 Q0 d3 1 9.5 t\n")
    done = run(*command(tiny_gguf, many, tmp_path / "out", "--first-stage", str(file)))
    assert b"no documents for 2 of 3 queries of many (q2, q3): they count as 0" in done.stderr


def test_a_query_without_words_is_told_by_its_id(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = beir(tmp_path / "some", queries={"q1": "cats", "q2": " "})
    file = tmp_path / "some.trec"
    file.write_text("q1 Q0 d3 1 9.5 t\nq2 Q0 d3 1 9.5 t\n")
    out = tmp_path / "out"
    done = run(*command(tiny_gguf, folder, out, "--first-stage", str(file)))
    assert done.returncode == 0
    assert b"1 of 2 queries of some are empty (q2): they count as 0" in done.stderr
    assert [(row["query"], row["id"]) for row in kept(out)] == [("q1", "d3")]


def test_interrupted_it_says_what_is_kept(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command(tiny_gguf, many, out, "--depth", "30", "--strict")
    arguments[arguments.index("none")] = "full"
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (list(out.glob("kept/*/*.jsonl")) and kept(out)):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{len(kept(out))} of 90 documents are kept".encode() in stderr


def test_a_torn_line_is_computed_again(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command(tiny_gguf, many, out, "--depth", "5", "--strict")
    assert run(*arguments).returncode == 0
    before = the_run(out)
    (file,) = out.glob("kept/*/documents.jsonl")
    file.write_bytes(file.read_bytes()[:-40])
    done = run(*arguments)
    assert done.returncode == 0 and b"14 of 15 documents were kept before" in done.stderr
    assert the_run(out) == before and len(kept(out)) == 15


def test_two_at_once_do_not_write_one_journal(tiny_gguf: Path, many: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    arguments = command(tiny_gguf, many, out, "--depth", "2")
    assert run(*arguments).returncode == 0
    (file,) = out.glob("kept/*/documents.jsonl")
    with FileLock(f"{file}.lock"):
        assert "another process is writing" in is_a_clear_line(run(*arguments))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--model", "nowhere.gguf"], "nowhere.gguf"),
        (["--model", ",strict=true"], "names no model"),
        (["--model", "erank-tiny,colour=red"], "no option colour"),
        (["--model", "erank-tiny,path=x"], "no option path"),
        (["--model", "erank-tiny,sequences=x"], "sequences must be a whole number, not 'x'"),
        (["--model", "erank-tiny,sequences=2.5"], "sequences must be a whole number"),
        (["--model", "erank-tiny,strict=maybe"], "strict must be true or false"),
        (["--model", "erank-tiny,tensor_split=a"], "tensor_split must be a list of numbers"),
        (["--model", "erank-tiny,threads=1,threads=2"], "names threads twice"),
        (["--thinking", "deep"], "thinking must be"),
        (["--instruction", "bier"], "no instruction named"),
        (["--first-stage", "nowhere.trec"], "cannot be read"),
        (["--out", "/dev/null/x"], "cannot be written"),
    ],
)
def test_mistakes(many: Path, tmp_path: Path, change: list[str], says: str) -> None:
    options = {"--out": str(tmp_path / "out"), "--model": "erank-tiny"}
    options |= dict(zip(change[::2], change[1::2], strict=True))
    done = run_in_process("eval", many, *(word for pair in options.items() for word in pair))
    assert says in is_a_clear_line(done)
    assert not (tmp_path / "out").exists()


def test_killed_at_random_moments_a_strict_run_is_the_same(tiny_gguf: Path, tmp_path: Path) -> None:
    a_strict_run_survives_kills(tiny_gguf, tmp_path, kills=3)


def test_killed_at_random_moments_nothing_is_lost_or_done_twice(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    nothing_is_lost_or_done_twice(tiny_gguf, tmp_path, kills=3)


def test_a_records_numbers_stand_in_one_line(tmp_path: Path) -> None:
    from erank_lite.benchmarks.files import write_json

    value = {"a": [[1.5, 2], [3, -4e-5]], "b": ["x, [ 1 ]", "[\n 1\n]", True], "c": [], "d": [1]}
    write_json(tmp_path / "made" / "r.json", value)
    text = (tmp_path / "made" / "r.json").read_text()
    assert json.loads(text) == value and "  [1.5, 2],\n  [3, -4e-05]\n" in text
