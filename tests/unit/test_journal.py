"""The results of a long job, as they are read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erank_lite.benchmarks.journal import Fields, of, opened
from erank_lite.errors import InputError

FIELDS: Fields = {"score": of(int, None), "probability": of(int, float, None)}


def written(folder: Path) -> Path:
    """Keep two rows, and return their file."""
    with opened(folder, "a job", {"a": 1}, FIELDS) as journal:
        journal.begin()
        journal.add({"key": "1", "query": "q", "id": "d1", "score": 7, "probability": 0.5})
        journal.add({"key": "2", "query": "q", "id": "d2", "score": None, "probability": None})
    (file,) = folder.glob("*/documents.jsonl")
    return file


def read(folder: Path) -> dict[str, dict[str, Any]]:
    with opened(folder, "another name", {"a": 1}, FIELDS) as journal:
        return journal.rows


def test_rows_are_found_again_by_what_matters_to_them(tmp_path: Path) -> None:
    written(tmp_path)
    assert read(tmp_path)["1"]["score"] == 7 and len(read(tmp_path)) == 2
    with opened(tmp_path, "a job", {"a": 2}, FIELDS) as journal:
        assert not journal.rows and journal.rate is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session", "0"), ("session", None), ("session", True), ("at", "soon"), ("query", ["q"]),
        ("key", None), ("id", 1), ("score", "7"), ("score", 7.5), ("score", 10**400),
        ("probability", [0.5]),
    ],
)  # fmt: skip
def test_a_value_typed_by_hand_is_named(tmp_path: Path, name: str, value: Any) -> None:
    file = written(tmp_path)
    first, second = map(json.loads, file.read_text().splitlines())
    rows = [first, second | {name: value}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(InputError, match=rf"documents.jsonl`, line 2: {name} cannot be") as error:
        read(tmp_path)
    assert error.value.hint is not None and len(error.value.message) < 300
    assert len(file.read_text().splitlines()) == 2  # nothing was thrown away


@pytest.mark.parametrize("line", ["[]", "3", '"text"', "null", "{}"])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    file = written(tmp_path)
    with file.open("a") as rows:
        rows.write(f"{line}\n")
    with pytest.raises(InputError, match="line 3"):
        read(tmp_path)


@pytest.mark.parametrize("tail", ['{"query": "q", "id"', '{"query": "q", "id": "d3"}', "\0\0\0\n"])
def test_a_line_that_was_torn_is_dropped(tmp_path: Path, tail: str) -> None:
    file = written(tmp_path)
    with file.open("a") as rows:
        rows.write(tail)
    assert len(read(tmp_path)) == 2
    with opened(tmp_path, "a job", {"a": 1}, FIELDS) as journal:
        journal.begin()
        journal.add({"key": "3", "query": "q", "id": "d3", "score": 1, "probability": 1})
    assert len(read(tmp_path)) == 3
