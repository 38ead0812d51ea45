"""Records read from JSON files, and mistakes in them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from support.records import fidelity, fidelity_run, growth, quality, records, speed, written

from erank_lite.benchmarks.record import Variant
from erank_lite.benchmarks.report import read_records
from erank_lite.benchmarks.report.records import WITHOUT_SECTION, Quality
from erank_lite.errors import InputError


def test_records_are_read_from_files_and_folders(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", growth())
    written(tmp_path, "old.json", {"machine": "x"})
    written(tmp_path, "list.json", [1])
    written(tmp_path, "half.json", '{"kind": "spe')
    written(tmp_path, "notes.txt", "is not JSON")
    found = read_records([tmp_path, file])
    assert [(one.file, one.kind) for one in found] == [("a.json", "growth")]


def test_a_folder_may_hold_records_that_no_report_shows(tmp_path: Path) -> None:
    written(tmp_path, "speed.json", speed())
    for kind in WITHOUT_SECTION:
        written(tmp_path, f"{kind}.json", {"kind": kind})
    assert [found.kind for found in read_records([tmp_path])] == ["speed"]


def test_the_records_in_a_benchmarks_folder_are_found(tmp_path: Path) -> None:
    inner = tmp_path / "records"
    inner.mkdir()
    written(tmp_path, "notes.json", {"no": "record"})
    written(inner, "b.json", growth())
    assert [one.file for one in read_records([tmp_path])] == ["b.json"]
    assert [one.file for one in read_records([tmp_path, inner])] == ["b.json"]
    written(tmp_path, "a.json", speed())
    assert [one.file for one in read_records([tmp_path])] == ["a.json"]


def test_what_a_record_says_of_its_file_goes_before_its_label() -> None:
    said = {"model": "ERank-4B", "name": "Q6_K+web", "type": "Q6_K", "imatrix": "web"}
    new, old = records(quality("mine.gguf", variant=said), quality("ERank-4B-Q6_K+web.gguf"))
    assert isinstance(new, Quality) and isinstance(old, Quality)
    assert new.variant == old.variant == Variant(**said)
    with pytest.raises(InputError, match=r"the key variant\.model is missing"):
        records(quality(variant={"type": "Q6_K"}))


def without(data: dict[str, Any], *path: str | int) -> dict[str, Any]:
    data = copy.deepcopy(data)
    inner: Any = data
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"kind": "spe', "is not JSON: line 1"),
        ("[" * 100_000, "is not JSON"),
        ([1], "no kind"),
        ({"kind": "beauty"}, "no kind 'beauty', only quality, fidelity"),
        (without(growth(), "axis"), "a.json` (growth): the key axis is missing"),
        (without(speed(), "ways", 1, "name"), "the key ways[1].name is missing"),
        (without(quality(), "machine", "gpus"), "the key machine.gpus is missing"),
        (quality(queries="many"), "queries must be a whole number, not 'many'"),
        (quality(size=float("nan")), "size must be a number, not nan"),
        (fidelity(fidelity_run("a", 1, interval=[0])), "runs[0].interval must hold 2 numbers"),
        (
            quality(measures={"reranked": {}, "hybrid": {"nan": {}}}),
            "measures.hybrid: 'nan' is not an alpha",
        ),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, data: Any, said: str) -> None:
    file = written(tmp_path, "a.json", data)
    with pytest.raises(InputError) as error:
        read_records([file])
    assert said in str(error.value) and str(file) in str(error.value)
    assert "\n" not in str(error.value)
