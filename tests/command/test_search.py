"""`erank-lite search`: what is printed, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.command import COMMAND

pytest.importorskip("pathspec")
pytest.importorskip("semantic_text_splitter")

LOAF = "A loaf stays fresh for four days if it is kept in a bread box."


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bread.md").write_text(f"# Bread\n\n## Storage\n\n{LOAF}\n")
    (folder / "history.md").write_text("Bread was baked in Egypt. Fresh loaves were offered.\n")
    (folder / "rivers.txt").write_text("The Danube is long.\n")
    return folder


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd
    )


def test_passages_come_best_first(notes: Path) -> None:
    done = command("search", "how long does a loaf stay fresh", cwd=notes)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["path"] for line in lines} == {"bread.md", "history.md", "rivers.txt"}
    best = lines[0]
    assert best["path"] == "bread.md"
    assert (best["line"], best["heading"]) == (5, "Bread \u203a Storage")
    assert best["sentences"] == [LOAF] and 0 <= best["score"] <= 10
    assert "3 files, 3 passages (3 new or changed)" in done.stderr
    assert "3 of 3 passages read" in done.stderr


def test_without_a_model(notes: Path) -> None:
    done = command("search", "fresh loaf", str(notes), "--no-rerank", "--top-k", "1", cwd=notes)
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["score"] == line["first_stage_score"] > 0


def test_no_time_leaves_the_first_order(notes: Path) -> None:
    done = command("search", "fresh loaf", "--within", "0", cwd=notes)
    assert done.returncode == 0 and "0 of 2 passages read" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    scores = [line["first_stage_score"] for line in lines]
    assert scores == sorted(scores, reverse=True) and len(lines) == 2


def test_the_model_is_asked_with_the_instruction(notes: Path) -> None:
    def told(*arguments: str) -> dict[str, float]:
        done = command("search", "loaf", *arguments, cwd=notes)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {line["path"]: line["score"] for line in lines}

    asked = told("--instruction", "Only texts about rivers count.")
    assert asked.keys() == told().keys() and asked != told()
    assert told("--instruction", "beir") == told()


def test_nothing_found_is_no_error(notes: Path) -> None:
    done = command("search", "xylophone", cwd=notes)
    assert done.returncode == 0 and not done.stdout and "nothing was found" in done.stderr


def test_what_cannot_be_read_is_told(notes: Path) -> None:
    (notes / "damaged.ipynb").write_text("{")
    done = command("search", "loaf", "--no-rerank", cwd=notes)
    assert "1 could not be read, see --unread" in done.stderr
    done = command("search", "loaf", "--no-rerank", "--unread", cwd=notes)
    assert "damaged.ipynb: not a notebook" in done.stderr


def test_the_index_is_part_of_the_cache(notes: Path) -> None:
    command("search", "loaf", "--no-rerank", cwd=notes)
    assert "search  3 files" in command("cache", "list", cwd=notes).stdout
    assert command("cache", "clear", "search", cwd=notes).returncode == 0
    assert "search" not in command("cache", "list", cwd=notes).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["loaf", "nowhere"], "no folder or file `nowhere`"),
        ([" "], "the query is empty"),
        (["loaf", "--model", "nosuch.gguf"], "nosuch.gguf"),
        (["loaf", "--within", "2", "--no-rerank"], "--no-rerank"),
        (["loaf", "--thinking", "deeply"], "thinking"),
        (["loaf", "--family", "tfrank", "--instruction", "any text"], "instruction"),
    ],
)
def test_mistakes_are_one_line(notes: Path, arguments: list[str], says: str) -> None:
    done = command("search", *arguments, cwd=notes)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
