"""`erank-lite benchmark`: one command, everything, and a page at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import is_a_clear_line, run, run_in_process
from support.judged import beir

for name in ("ir_measures", "bm25s", "matplotlib", "scipy"):
    pytest.importorskip(name, reason="pip install 'erank-lite[eval]'")


def records(out: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for file in sorted((out / "records").glob("*.json")):
        record = json.loads(file.read_text())
        found.setdefault(record["kind"], []).append(record)
    return found


def test_fidelity_quality_and_the_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(
        "benchmark", beir(tmp_path / "animals"), "--types", "Q8_0", "--other", "erank-tiny:Q4_0",
        "--depth", "3", "--no-speed", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    page = Path(done.stdout.decode().strip())
    assert page == out / "report" / "report.html" and "Q8_0" in page.read_text("utf-8")
    assert "Q8_0" in (page.parent / "tables.md").read_text("utf-8")
    found = records(out)
    (fidelity,) = found["fidelity"]
    assert [r["name"] for r in fidelity["runs"] if not r["floor"]] == [
        "erank-tiny:Q8_0", "erank-tiny:Q4_0",
    ]  # fmt: skip
    assert fidelity["command"].startswith("erank-lite benchmark animals --types Q8_0")
    assert len(found["quality"]) == 3
    # Both come from the same documents, read once.
    of = {r["model"]: r for r in found["quality"]}
    for one in fidelity["runs"]:
        if not one["floor"]:
            same = of[one["name"]]["measures"]["reranked"]["nDCG@10"]
            assert same == pytest.approx(one["nDCG@10"])


@pytest.mark.slow
def test_with_speed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(
        "benchmark", beir(tmp_path / "animals"), "--types", "Q4_K_M", "--depth", "3", "--out", out,
        time_limit=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found = records(out)
    (speed,) = found["speed"]
    assert {"erank-lite", "loop"} <= {way["name"] for way in speed["ways"]}
    assert {r["axis"] for r in found["growth"]} == {
        "documents", "document tokens", "reasoning tokens", "sequences",
    }  # fmt: skip
    assert speed["command"].startswith("erank-lite benchmark animals")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--types", "Q9_9"], "there is no GGUF type 'Q9_9'"),
        (["--types", "Q8_0+magic"], "is not a type"),
        (["--types", "Q8_0", "--model", "nowhere"], "nowhere"),
        (["--types", "Q8_0", "--model", "erank-tiny:Q8_0"], "types go to --types"),
        (["--types", "Q8_0", "--model", "erank-tiny,sequences=2"], "more than a checkpoint"),
        (["--types", ""], "nothing to compare"),
        (["--types", "Q8_0", "--other", "nowhere.gguf"], "nowhere.gguf"),
    ],
)
def test_mistakes(tmp_path: Path, change: list[str], says: str) -> None:
    done = run_in_process("benchmark", beir(tmp_path / "c"), "--out", tmp_path / "out", *change)
    assert done.returncode == 1 and says in " ".join(done.stderr.decode().splitlines()[-2:])
    assert b"Traceback" not in done.stderr


def test_no_record_to_report(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    is_a_clear_line(run_in_process("report", tmp_path / "empty", "--out", tmp_path / "page"))
