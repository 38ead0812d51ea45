"""The report, from records to a folder that people open."""

from __future__ import annotations

import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.records import (
    FILES,
    everything,
    fidelity,
    fidelity_run,
    growth,
    one_comparison,
    qualities,
    quality,
    records,
    speed,
    written,
)

from erank_lite.benchmarks.report import read_records, write_report
from erank_lite.benchmarks.report.machines import machine_rows
from erank_lite.benchmarks.report.rule import MIN_QUERIES, RULE, comparisons
from erank_lite.benchmarks.report.summary import advice, subjects
from erank_lite.cli.report import report as report_command
from erank_lite.errors import InputError, ModelError

VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Reads a page as a browser would, and fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of every kind of record, moved from where it was made."""
    pytest.importorskip("matplotlib")
    made = tmp_path_factory.mktemp("made") / "report"
    write_report(records(*everything()), made)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.move(made, moved)
    return moved


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def test_the_page_stands_by_itself_and_every_link_leads_somewhere(folder: Path, page: Page) -> None:
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for link in (*page.all("a"), *page.all("img")):
        target = link.get("href") or link.get("src") or ""
        assert target[1:] in ids if target.startswith("#") else (folder / target).is_file(), target
    assert not page.all("script") and not page.all("link")
    assert "url(" not in (folder / "report.html").read_text("utf-8")


def test_the_page_shows_every_plot_with_words_for_who_cannot_see_it(
    folder: Path, page: Page
) -> None:
    shown = {image["src"] for image in page.all("img")}
    assert shown == {file.name for file in folder.glob("*.png")}
    names = ("fidelity", "ranking", "agreement", "quality-size", "alpha", "speed", "growth-2")
    assert {f"{name}.png" for name in names} <= shown
    assert all(len(image["alt"] or "") > 40 for image in page.all("img"))
    assert all((folder / str(name)).read_bytes().startswith(b"\x89PNG") for name in shown)


def test_tables_have_captions_and_scopes(page: Page) -> None:
    assert len(page.all("table")) == len(page.all("caption")) > 8
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert all(place.get("aria-label") for place in page.all("div") if "tabindex" in place)


def test_labels_from_files_stay_text(folder: Path, page: Page) -> None:
    assert "<script>alert('x')</script> a|b" in page.text
    tables = (folder / "tables.md").read_text("utf-8")
    assert "<script>" not in tables and "\\`c\\` \\[d\\](e)" in tables


def test_the_page_says_how_each_figure_came(page: Page) -> None:
    for part in ("erank-lite fidelity erank-tiny", "a51ed40c0d+", "Linux x86_64, A CPU, 2 cores",
                 "2026-10-04", "0-fidelity.json", "llama-cpp-python 0.3.36"):  # fmt: skip
        assert part in page.text
    assert "was measured on tiny, not on ERank-4B, ERank-14B or ERank-32B" in page.text
    assert "50 queries, which are few" in page.text
    assert "not committed" in page.text


def test_all_records_of_a_kind_are_shown(page: Page) -> None:
    for part in ("tiny:BF16, full reasoning", "no reasoning", "p-MRR", "0.448", "document tokens"):
        assert part in page.text
    assert "250 ×" in page.text  # the bi-encoder beside ours


def test_markdown_tables_are_whole_and_have_their_commands(folder: Path) -> None:
    text = (folder / "tables.md").read_text("utf-8")
    blocks = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(blocks) > 8
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block}) == 1, block
    assert text.count("```console\n$ erank-lite ") == len(blocks)


def test_below_the_least_number_of_queries_nothing_is_judged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fidelity_run("tiny:Q8_0", 5, interval=[0.0, 0.0])
    found = one_comparison(run, queries=MIN_QUERIES - 1, documents=18)
    assert [file.keeps for file in found.files] == ["few"]
    ((lead, said, text),) = advice(found)
    assert (lead + said, found.best) == ("Too few queries to judge", None)
    assert (
        f"18 documents of {MIN_QUERIES - 1} queries" in text and f"at least {MIN_QUERIES}" in text
    )
    assert f"fewer than {MIN_QUERIES} queries" in RULE["few"]
    assert machine_rows([found]) == machine_rows([])
    floor = fidelity_run("tiny, 5 documents together", 10**9, floor=True, same=1.0)
    one = fidelity(floor, run, queries=1, documents=3)
    page = Page(write_report(records(one, quality(queries=1)), tmp_path).read_text("utf-8"))
    assert "3 documents of 1 query" in page.text and "1 queries" not in page.text
    assert "Take " not in page.text and "95 % interval" not in page.text.partition("the rule")[0]
    assert not {"scores", "ranking", "neither"} & {cell.get("class") for cell in page.all("td")}
    told = " ".join(image["alt"] or "" for image in page.all("img"))
    assert "too few queries to judge" in told and "keeps" not in told and "intervals" not in told
    assert one_comparison(run, queries=MIN_QUERIES).files[0].keeps == "scores"


def test_several_headlines_say_what_they_are_about(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fidelity_run("tiny:Q8_0", 5)
    data = (
        fidelity(run), fidelity(run, name="x/ERank-4B:BF16"), fidelity(run, collection="d",
        name="tiny:BF16"), fidelity(run, name="tiny, strict=True"),
    )  # fmt: skip
    found = comparisons(records(*data))
    assert subjects(found[:1]) == [""]
    assert subjects(found) == [
        "tiny on c-50 against engine=transformers", "ERank-4B on c-50", "tiny on d",
        "tiny on c-50 against strict=True",
    ]  # fmt: skip
    page = Page(write_report(records(*data), tmp_path).read_text("utf-8"))
    assert "For tiny on d, take Q8_0" in page.text
    assert "For ERank-4B on c-50, take " in page.text
    assert page.text.count("which are few") == page.text.count("tiny was judged by 50 queries") == 1


def test_verdicts_of_another_model_are_told_as_such(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    own = fidelity(fidelity_run("x/ERank-4B:Q8_0", 5), name="x/ERank-4B")
    small, other, _ = machine_rows(comparisons(records(own)))[4].fits
    assert small is not None and other is not None
    assert (small.measured, small.carried) == ("ERank-4B", False)
    assert (other.measured, other.carried) == ("ERank-4B", True)
    page = Page(write_report(records(fidelity(fidelity_run("tiny:Q8_0", 5))), tmp_path).read_text())
    assert "as measured on tiny" in page.text
    judged = [c for cell in page.all("td") if "carried" in (c := str(cell.get("class")))]
    assert judged and all(c == "scores carried" for c in judged)
    marks = [mark["aria-label"] for mark in page.all("span") if mark.get("class") == "mark"]
    assert set(marks) == {"keeps the scores on tiny"}
    assert "as measured on tiny" in (tmp_path / "tables.md").read_text("utf-8")
    style = (tmp_path / "report.html").read_text("utf-8").partition("</style>")[0]
    for rule in re.findall(r"[^{}]*\.measured[^{}]*{[^}]*}", style):
        assert "faint" not in rule and "font-size" not in rule


def times_told(data: list[dict[str, Any]], out: Path) -> list[int]:
    """Return how often a page tells each command, beside the list of all records."""
    text = Page(write_report(records(*data), out).read_text("utf-8")).text
    commands = [one["command"] for one in data]
    return [text.count(c) - commands.count(c) for c in dict.fromkeys(commands)]


def test_what_all_figures_of_a_section_share_is_said_once(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    judged = [fidelity(fidelity_run("tiny:Q8_0", 5)), fidelity(collection="d")]
    data = [*judged, *qualities(FILES[:3])]
    # Of fidelity twice: at the table of verdicts, and at the section.
    assert times_told(data, tmp_path / "sections") == [2, 1]
    apart = [growth(axis="a"), growth(axis="b") | {"command": "erank-lite other"}]
    assert times_told(apart, tmp_path / "groups") == [1, 1]
    together = [one | {"axis": "a"} for one in apart]
    assert times_told(together, tmp_path / "figures") == [2, 2]  # at the plot and at the table


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file or folder .*gone"):
        read_records([tmp_path / "gone"])
    with pytest.raises(InputError, match="no record in"):
        read_records([tmp_path])
    with pytest.raises(InputError, match="no record"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    write_report(records(growth()), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            write_report(records(speed()), tmp_path)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_new_report_replaces_the_old_and_leaves_other_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    own = written(tmp_path, "own.png", "mine")
    write_report(records(growth()), tmp_path)
    write_report(records(speed()), tmp_path)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {
        "own.png", "report.html", "tables.md", "speed.png", "records/0-speed.json", ".report-files",
    }  # fmt: skip
    assert own.read_text() == "mine"


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        write_report(records(speed(), speed()), tmp_path / name)
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_command_tells_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file = written(tmp_path, "a.json", growth())
    report_command([file], tmp_path / "new" / "out")
    said = capsys.readouterr()
    assert said.out == "" and str(tmp_path / "new" / "out" / "report.html") in said.err
    with pytest.raises(InputError, match="cannot be written to"):
        report_command([file], file)


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = records(growth())
    for name in [name for name in sys.modules if name.startswith("erank_lite.benchmarks.report.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"pip install 'erank-lite\[eval\]'"):
        write_report(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
