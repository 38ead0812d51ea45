"""Results that are kept: found by all that decides them, and by nothing else."""

from __future__ import annotations

import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.answering import answering

from erank_lite import Effort, Reranker
from erank_lite.engines.fake import FakeEngine
from erank_lite.results.store import KeptScore, ResultStore
from erank_lite.types import Score

ANSWERS = {"a": 2, "b": 4, "c": 6}
SCORE = Score(7, 0.5, 6.5, "A secret is quoted.", False, None, "<think>A secret</think>")
KEPT = KeptScore(SCORE, 12, "fake")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "results.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[ResultStore]:
    with ResultStore(path) as found:
        yield found


def engine(tmp_path: Path) -> FakeEngine:
    """Return an engine as `load` gives it: with what it runs."""
    weights = tmp_path / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "model.safetensors").write_bytes(b"weights")
    found = answering(ANSWERS)
    found.path = weights
    return found


def test_a_document_is_read_once(tmp_path: Path, store: ResultStore) -> None:
    first = Reranker(engine(tmp_path), results=store).rerank("q", ["a", "b"])
    again = engine(tmp_path)
    second = Reranker(again, results=store).rerank("q", ["b", "a", "c"])
    assert len(again.prompts) == 1 and len(store) == 3
    by_content = {r["content"]: r for r in second}
    for result in first:
        found = by_content[result["content"]]
        for name in ("score", "probability", "rank_score", "expected_score", "forced", "tokens"):
            assert found[name] == result[name]
        assert found["reasoning"] == "" and found["failure"] is None


@pytest.mark.parametrize("change", ["query", "instruction", "thinking", "weights"])
def test_what_decides_a_result_is_in_its_key(
    tmp_path: Path, store: ResultStore, change: str
) -> None:
    Reranker(engine(tmp_path), results=store).rerank("q", ["a"])
    other = engine(tmp_path)
    thinking = 9 if change == "thinking" else "full"
    if change == "weights":
        assert other.path is not None
        (Path(other.path) / "model.safetensors").write_bytes(b"others.")
    Reranker(other, results=store, thinking=thinking).rerank(
        "r" if change == "query" else "q",
        ["a"],
        "beir" if change != "instruction" else "Find what praises a river.",
    )
    assert len(other.prompts) == 1


def test_what_was_stopped_or_failed_is_not_kept(tmp_path: Path, store: ResultStore) -> None:
    slow = answering(ANSWERS, "a long reasoning that is stopped")
    slow.path = engine(tmp_path).path
    Reranker(slow, results=store).rerank("q", ["a", "b"], effort=Effort(tokens=5))
    failing = answering({"a": 99})
    failing.path = slow.path
    Reranker(failing, results=store).rerank("q", ["a"])
    assert len(store) == 0


def test_an_engine_of_unknown_weights_keeps_nothing(store: ResultStore) -> None:
    Reranker(answering(ANSWERS), results=store).rerank("q", ["a"])
    assert len(store) == 0


def test_no_text_is_in_the_file_and_nobody_else_reads_it(path: Path, store: ResultStore) -> None:
    store.put(store.key({}, [1]), KEPT)
    if sys.platform != "win32":
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
    store.close()
    assert not any(b"secret is" in file.read_bytes() for file in path.parent.iterdir())


def test_the_reasoning_is_kept_where_that_is_asked_for(path: Path) -> None:
    with ResultStore(path) as plain:
        key = plain.key({}, [1])
        plain.put(key, KEPT)
    with ResultStore(path, keep_reasoning=True) as store:
        assert store.get(key) is None
        store.put(key, KEPT)
        assert store.get(key) == KEPT
    with ResultStore(path) as plain:
        assert plain.get(key) == KEPT


def test_two_files_have_two_secrets(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "one") as one, ResultStore(tmp_path / "two") as two:
        assert one.key({}, [1]) != two.key({}, [1])
        with ResultStore(tmp_path / "one") as again:
            assert one.key({}, [1]) == again.key({}, [1])


def test_a_damaged_file_is_no_error_of_the_caller(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database " * 100)
    with ResultStore(path) as store:
        store.put(store.key({}, [1]), KEPT)
        assert store.get(store.key({}, [1])) is None and len(store) == 0
    assert "results are not kept" in caplog.text


def test_a_row_that_was_edited_is_not_taken(path: Path, store: ResultStore) -> None:
    key = store.key({}, [1])
    store.put(key, KEPT)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE results SET value = '{}'")
    assert store.get(key) is None


def test_what_was_not_used_for_the_longest_goes_first(path: Path) -> None:
    with ResultStore(path, max_bytes=20_000) as store:
        for number in range(2_000):
            store.put(store.key({}, [number]), KEPT)
        assert 10 < len(store) < 700
        assert store.get(store.key({}, [1_535])) is not None
        assert store.get(store.key({}, [0])) is None


def test_another_version_begins_anew(path: Path) -> None:
    with ResultStore(path) as store:
        store.put(store.key({}, [1]), KEPT)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE facts SET value = x'39' WHERE name = 'version'")
    with ResultStore(path) as store:
        assert len(store) == 0
