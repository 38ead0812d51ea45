"""The report, from records to a folder that a reader opens."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from erank_lite.benchmarks.report import Record, read_records, write_report
from erank_lite.benchmarks.report.advice import advice, subjects
from erank_lite.benchmarks.report.choice import FEWEST, RULE, Choice, choices
from erank_lite.benchmarks.report.machines import MEMORIES, lines
from erank_lite.benchmarks.report.wording import parts, short_names, type_of
from erank_lite.cli.report import run as report_command
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.planning import PUBLISHED

EVIL = "<script>alert('x')</script> a|b $\\frac{1$ `c` [d](e)\n&amp; é ✓"
MEASURED = {"nDCG@10": 0.39, "RR": 0.6}
VOID = {"meta", "img", "br", "link", "hr"}


def record(kind: str, **payload: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metrics_version": 1,
        "command": f"erank-lite {kind} erank-tiny",
        "commit": "a51ed40c0d+",
        "date": "2026-10-04T09:12:33+00:00",
        "machine": {
            "system": "Linux x86_64", "processor": "A CPU", "cores": 2, "memory": 8 << 30,
            "gpus": [],
        },
        "versions": {"llama-cpp-python": "0.3.36"},
        **payload,
    }  # fmt: skip


def fidelity_run(name: str, size: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "ran": "llama.cpp", "size": size, "floor": False, "same": 0.95,
        "difference": 0.06, "difference_95": 0.2, "tau": 0.9, "rbo": 0.9, "top_10": 0.9,
        "nDCG@10": 0.39, "change": 0.0, "interval": [-0.01, 0.01], "forced": 0.0, "failed": 0.0,
        "tokens": 30.0, "kl": None, "kl_95": None, "same_answer": None,
        "documents_per_second": 2.0, "scatter": [[0, 0], [5.1, 5.0], [9.5, 8]],
    } | changes  # fmt: skip


def fidelity(
    *runs: dict[str, Any], name: str = "tiny, engine=transformers", **changes: Any
) -> dict[str, Any]:
    reference = {
        "name": name, "ran": "transformers in bfloat16", "size": 1000_000_000, "nDCG@10": 0.39,
        "documents_per_second": 1.7,
    }  # fmt: skip
    payload = {
        "collection": "c-50", "queries": 50, "documents": 800, "thinking": "full",
        "reference": reference, "runs": list(runs),
    } | changes  # fmt: skip
    return record("fidelity", **payload)


def quality(model: str = "tiny:Q8_0", **changes: Any) -> dict[str, Any]:
    measures = {
        "first stage": MEASURED, "reranked": MEASURED,
        "hybrid": {"0.0": MEASURED, "0.5": MEASURED, "1.0": MEASURED},
    }  # fmt: skip
    payload = {
        "model": model, "ran": "llama.cpp", "size": 52_000_000, "collection": "c-50",
        "queries": 50, "documents": 1000, "depth": 20, "first_stage": "BM25", "instruction": "x",
        "thinking": "full", "truncate_length": 2048, "strict": False, "measures": measures,
        "published": None, "failed": 0, "forced": 2, "tokens": 31.2, "documents_per_second": 16.9,
    } | changes  # fmt: skip
    return record("quality", **payload)


def speed() -> dict[str, Any]:
    def way(name: str, rate: float | None) -> dict[str, Any]:
        return {
            "name": name, "what": "a way", "documents_per_second": rate, "tokens_per_second": None,
            "first_result": 1.0, "last_result": 9.0, "peak_memory": 400 << 20,
        }  # fmt: skip

    work = {"documents": 32, "shared": 61, "own": 164, "tokens": 60, "sequences": 16}
    ways = [way("erank-lite", 2.0), way("loop", 0.5), way("bi-encoder", 500.0), way("gone", None)]
    return record(
        "speed", model="tiny:Q8_0", work=work, ways=ways,
        ceiling={"what": "roofline", "documents_per_second": 4.0},
        machine_rates={"gflops": 300.0, "gigabytes_per_second": 20.0},
    )  # fmt: skip


def growth(
    model: str = "tiny:Q8_0",
    axis: str = "documents",
    paces: tuple[float, ...] = (9.0, 9.0, 9.0),
    memory: tuple[int, ...] = (350, 350, 350),
) -> dict[str, Any]:
    points = [
        {"x": x, "documents_per_second": pace, "peak_memory": peak << 20}
        for x, pace, peak in zip((32, 250, 1000), paces, memory, strict=True)
    ]
    return record("growth", model=model, axis=axis, points=points)


def everything() -> list[dict[str, Any]]:
    floor = fidelity_run("tiny, engine=transformers, 5 documents together", 10**9, floor=True)
    runs = (
        floor | {"same": 0.99},
        fidelity_run("tiny:Q8_0", 500_000_000),
        fidelity_run("tiny:Q4_K_M", 300_000_000, same=0.7),
        fidelity_run(EVIL, None),
    )
    follow = {"reranked": {"p-MRR": 0.1}, "first stage": {"p-MRR": 0.0}}
    return [
        fidelity(*runs),
        quality(), quality("tiny:BF16", size=98_000_000, published={"nDCG@10": 0.448}),
        quality(EVIL, thinking="none", size=None),
        quality(collection=EVIL, measures=follow),
        speed(), growth(), growth(EVIL, "document tokens"),
    ]  # fmt: skip


def records(*data: dict[str, Any]) -> list[Record]:
    return [Record.of(found, f"{n}-{found['kind']}.json") for n, found in enumerate(data)]


def one_choice(*runs: dict[str, Any], **more: Any) -> Choice:
    (found,) = choices(records(fidelity(*runs, **more)))
    return found


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


def test_the_smallest_file_that_keeps_the_scores_is_taken() -> None:
    floor = fidelity_run("tiny, 5", 10**9, floor=True, same=0.98)
    found = one_choice(
        floor,
        fidelity_run("tiny:BF16", 10**9, same=0.99),
        fidelity_run("tiny:Q8_0", 500, same=0.95),
        fidelity_run("tiny:Q6_K", 400, same=0.89),
        fidelity_run("tiny:Q4_K_M", 300, same=0.7),
        fidelity_run("tiny:Q2_K", 200, same=0.4, change=-0.1, interval=[-0.2, -0.05]),
    )
    assert found.best is not None and found.best.short == "Q6_K"
    assert found.smallest is not None and found.smallest.short == "Q4_K_M"
    assert [(part.lead, part.file) for part in advice(found)] == [
        ("Take ", "Q6_K"),
        ("Short of memory? ", "Q4_K_M"),
    ]


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, "scores"),
        ({"same": 0.85}, "ranking"),
        ({"change": -0.019, "interval": [-0.03, -0.009]}, "scores"),
        ({"change": -0.015, "interval": [-0.02, -0.011]}, "neither"),
        ({"change": -0.021, "interval": [-0.08, 0.04]}, "neither"),
        ({"failed": 0.02}, "neither"),
    ],
)
def test_the_rule(changes: dict[str, Any], keeps: str) -> None:
    (file,) = one_choice(fidelity_run("tiny:Q8_0", 500, **changes)).files
    assert file.keeps == keeps


def test_a_file_is_judged_by_its_worst_run() -> None:
    good, bad = fidelity_run("tiny:Q8_0", 5), fidelity_run("tiny:Q8_0", 5, same=0.5)
    (found,) = choices(records(fidelity(good), fidelity(bad)))
    assert [file.keeps for file in found.files] == ["ranking"]
    assert found.best is None and found.smallest is not None


def test_without_a_file_that_keeps_anything_the_reference_stays() -> None:
    found = one_choice(fidelity_run("tiny:Q2_K", 5, change=-0.2, interval=[-0.3, -0.1]))
    assert [(part.lead, part.file) for part in advice(found)] == [("Stay with ", "BF16")]


def test_a_server_and_a_larger_file_are_not_taken() -> None:
    found = one_choice(fidelity_run("http://x:1", None), fidelity_run("tiny:F32", 2 * 10**9))
    assert found.best is None and found.smallest is None


def test_machines_get_the_largest_type_that_fits_and_is_needed() -> None:
    free = lines([])
    assert [line.memory for line in free] == 2 * [*MEMORIES]
    for line in free:
        for fit in filter(None, line.fits):
            assert fit.size < line.memory * 2**30 and fit.documents > 0 and fit.keeps is None
    assert free[4].fits[0] is not None and free[4].fits[0].type == "BF16"
    measured = lines([one_choice(fidelity_run("tiny:Q6_K", 5), fidelity_run("tiny:Q8_0", 6))])
    for line, before in zip(measured, free, strict=True):
        for fit, other, model in zip(line.fits, before.fits, PUBLISHED.values(), strict=True):
            assert (fit is None) == (other is None)
            if fit is not None and other is not None:
                assert fit.size == min(other.size, model.sizes["Q6_K"])
    last = measured[4].fits[0]
    assert last is not None and (last.type, last.keeps) == ("Q6_K", "scores")


def test_a_model_of_erank_is_judged_by_its_own_measurement() -> None:
    tiny = fidelity(fidelity_run("tiny:Q8_0", 5))
    large = fidelity(fidelity_run("x/ERank-4B:Q4_K_M", 5), name="x/ERank-4B")
    small, other, _ = lines(choices(records(tiny, large)))[4].fits
    assert small is not None and (small.type, small.keeps) == ("Q4_K_M", "scores")
    assert other is not None and other.type == "Q8_0"


def test_below_the_least_number_of_queries_nothing_is_judged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fidelity_run("tiny:Q8_0", 5, interval=[0.0, 0.0])
    found = one_choice(run, queries=FEWEST - 1, documents=18)
    assert [file.keeps for file in found.files] == ["few"]
    ((lead, said, text),) = advice(found)
    assert (lead + said, found.best) == ("Too few queries to judge", None)
    assert f"18 documents of {FEWEST - 1} queries" in text and f"at least {FEWEST}" in text
    assert f"fewer than {FEWEST} queries" in RULE["few"]
    assert lines([found]) == lines([])
    floor = fidelity_run("tiny, 5 documents together", 10**9, floor=True, same=1.0)
    one = fidelity(floor, run, queries=1, documents=3)
    page = Page(write_report(records(one, quality(queries=1)), tmp_path).read_text("utf-8"))
    assert "3 documents of 1 query" in page.text and "1 queries" not in page.text
    assert "Take " not in page.text and "95 % interval" not in page.text.partition("the rule")[0]
    assert not {"scores", "ranking", "neither"} & {cell.get("class") for cell in page.all("td")}
    told = " ".join(image["alt"] or "" for image in page.all("img"))
    assert "too few queries to judge" in told and "keeps" not in told and "intervals" not in told
    assert one_choice(run, queries=FEWEST).files[0].keeps == "scores"


def test_a_file_is_judged_where_it_was_measured_on_enough() -> None:
    few = fidelity(fidelity_run("tiny:Q8_0", 5, same=0.2), queries=2, collection="small")
    (found,) = choices(records(few, fidelity(fidelity_run("tiny:Q8_0", 5))))
    assert [file.keeps for file in found.files] == ["scores"]
    assert found.queries == 50


def test_the_headline_tells_how_much_was_compared() -> None:
    (take, _, text), short = advice(
        one_choice(fidelity_run("tiny:Q8_0", 9), fidelity_run("tiny:Q4_K_M", 5, same=0.5))
    )
    assert take == "Take "
    assert "95.0 % of 800 documents" in text and text.endswith("over 50 queries.")
    assert "50.0 % of 800 documents" in short.text
    (stay,) = advice(one_choice(fidelity_run("tiny:Q8_0", 5, change=-0.5, interval=[-1, -0.3])))
    assert "800 documents of 50 queries" in stay.text
    a, b = fidelity(fidelity_run("tiny:Q8_0", 5)), fidelity(collection="d", queries=60)
    (both,) = choices(records(a, b))
    assert advice(both)[0].text.endswith("over 50 queries of c-50.")


def test_several_headlines_say_what_they_are_about(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fidelity_run("tiny:Q8_0", 5)
    data = (
        fidelity(run), fidelity(run, name="x/ERank-4B:BF16"), fidelity(run, collection="d",
        name="tiny:BF16"), fidelity(run, name="tiny, strict=True"),
    )  # fmt: skip
    found = choices(records(*data))
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
    small, other, _ = lines(choices(records(own)))[4].fits
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


@pytest.mark.parametrize(
    ("name", "model", "rest", "kind"),
    [
        ("x/ERank-4B:Q4_K_M", "ERank-4B", "Q4_K_M", "Q4_K_M"),
        ("tiny, BF16 as published", "tiny", "BF16 as published", "BF16"),
        ("tiny:Q8_0, sequences=5", "tiny", "Q8_0, sequences=5", "Q8_0"),
        ("erank-tiny-Q4_K_M+own.gguf", "erank-tiny", "Q4_K_M+own", "Q4_K_M+own"),
        ("matrices/erank-tiny-IQ4_XS+own.gguf", "erank-tiny", "IQ4_XS+own", "IQ4_XS+own"),
        ("tiny:Q2_K+imatrix", "tiny", "Q2_K+imatrix", "Q2_K+imatrix"),
        ("erank-tiny-GPTQ-4bit", "erank-tiny", "GPTQ-4bit", None),
        ("x/gptq/erank-tiny-GPTQ-4bit/, strict=True", "erank-tiny", "GPTQ-4bit, strict=True", None),
        ("Qwen3-Q8", "Qwen3", "Q8", "Q8"),
        ("SmolLM2-135M", "SmolLM2-135M", "", None),
        ("http://x:1/a,b", "http://x:1/a,b", "", None),
    ],
)
def test_names_come_apart(name: str, model: str, rest: str, kind: str | None) -> None:
    assert (*parts(name), type_of(name)) == (model, rest, kind)


def test_only_names_that_would_be_the_same_stay_long() -> None:
    names = ("tiny:Q8_0", "tiny-Q8_0.gguf", "tiny-Q2_K.gguf", "other:Q8_0")
    assert [*short_names(names, "tiny").values()] == [*names[:2], "Q2_K", "other:Q8_0"]


def test_of_files_of_one_size_the_nearer_is_taken_and_machines_get_plain_types() -> None:
    found = one_choice(
        fidelity_run("tiny:Q4_K_M", 100_000, same=0.91),
        fidelity_run("tiny-Q4_K_M+own.gguf", 100_900, same=0.93),
        fidelity_run("tiny-Q2_K+own.gguf", 50_000, same=0.92),
        name="tiny:BF16",
    )
    assert found.best is not None and found.best.short == "Q2_K+own"
    fits = [fit for line in lines([found]) for fit in line.fits if fit is not None]
    assert {fit.type: fit.keeps for fit in fits}["Q4_K_M"] == "scores"
    assert all(fit.keeps is None for fit in fits if fit.type == "Q2_K")
    found = one_choice(*(file.run for file in found.files if file.size and file.size > 60_000))
    assert found.best is not None and found.best.short == "Q4_K_M+own"


TYPES = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
FILES = [
    *((f"tiny:{kind}", 10**8 // n) for n, kind in enumerate(TYPES, 1)),
    *((f"tiny-{kind}{matrix}.gguf", 10**8 // n + 900) for n, kind in enumerate(TYPES, 1)
      for matrix in ("+own", "+generic") if n > 4),
    ("tiny-GPTQ-8bit", 55_000_000), ("gptq/tiny-GPTQ-4bit", 23_000_000),
]  # fmt: skip


def qualities(files: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return a quality record of each file; their figures lie near each other."""
    made = []
    for n, (name, size) in enumerate(files):
        value = 0.4 - 0.02 * (10**7 / size) + 0.003 * (n % 3)
        hybrid = {f"{a / 10:g}": {"nDCG@10": value + a * (5 - a) / 900} for a in range(11)}
        measures = {"first stage": {"nDCG@10": 0.36}, "reranked": {"nDCG@10": value}}
        made.append(quality(name, size=size, measures=measures | {"hybrid": hybrid}))
    return made


@cache
def drawn_qualities(count: int) -> dict[str, Any]:
    return drawn(qualities(FILES[:count]))


def drawn(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a report by their files' names, laid out as they are saved."""
    pytest.importorskip("matplotlib")
    from erank_lite.benchmarks.report.sections import sections

    plots = [p for s in sections(records(*data)) for group in s.groups for p in group.plots]
    for plot in plots:
        plot.figure.draw_without_rendering()
    return {plot.file: plot.figure for plot in plots}


def test_every_point_lies_inside_the_axes() -> None:
    falling = growth("a", paces=(5.8, 2.3, 0.1), memory=(900, 300, 10))
    both = [falling, growth("b", paces=(0.1, 7.0, 2.0), memory=(1, 2, 3))]
    data = [*both, growth(axis="one", paces=(9, 5, 1)), *qualities(FILES[:3]), speed()]
    figures = drawn([*data, fidelity(*(fidelity_run(*file) for file in FILES))])
    assert len(figures) == 8
    for name, figure in figures.items():
        for ax in filter(lambda ax: ax.get_visible(), figure.axes):
            (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
            for line in ax.lines:
                if line.get_transform() == ax.transData:
                    points = [*zip(line.get_xdata(), line.get_ydata(), strict=True)]
                    assert all(left <= x <= right and low <= y <= high for x, y in points), name


def texts(figure: Any) -> list[tuple[str, Any]]:
    """Return the names in the only axes of a figure, and the place of each without its line."""
    from matplotlib.text import Text

    (ax,) = figure.axes
    return [(text.get_text(), Text.get_window_extent(text).padded(-1)) for text in ax.texts]


@pytest.mark.parametrize("count", [3, 8, len(FILES)])
def test_no_name_of_a_point_is_struck_through_or_lies_on_another(count: int) -> None:
    figure = drawn_qualities(count)["quality-size.png"]
    names = texts(figure)
    (ax,) = figure.axes
    for n, (name, box) in enumerate(names):
        assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)
        for line in ax.lines:
            path = line.get_transform().transform_path(line.get_path())
            assert not path.intersects_bbox(box, filled=False), name
        for other, place in names[:n]:
            assert not box.overlaps(place), (name, other)


def test_two_points_of_one_height_have_their_names_beside_the_line() -> None:
    level = {"reranked": {"nDCG@10": 0.4}, "first stage": {"nDCG@10": 0.3}}
    data = [quality(name, size=size, measures=level) for name, size in FILES[:2]]
    figure = drawn(data)["quality-size.png"]
    (line, *_) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    path = line.get_transform().transform_path(line.get_path())
    assert not any(path.intersects_bbox(box, filled=False) for _, box in texts(figure))


def test_types_are_named_once_and_each_matrix_once() -> None:
    names = [name for name, _ in texts(drawn_qualities(len(FILES))["quality-size.png"])]
    assert sorted(n for n in names if not n.startswith("first stage")) == sorted(
        [*TYPES, "+own", "+generic", "GPTQ-8bit", "GPTQ-4bit"]
    )


def test_the_hybrids_lines_have_the_whole_width_and_many_a_plot_each() -> None:
    few = drawn_qualities(3)["alpha.png"]
    (ax,) = few.axes
    assert ax.get_xlim()[0] > -0.1 and ax.bbox.width > 0.8 * few.bbox.width
    assert [text.get_text() for text in few.legends[0].get_texts()] == [*TYPES[:3]]
    many = drawn_qualities(len(FILES))["alpha.png"]
    titles = [ax.get_title("left") for ax in many.axes if ax.get_visible()]
    assert sorted(titles) == sorted(parts(name)[1] for name, _ in FILES)


def test_twenty_runs_stay_legible() -> None:
    runs = [fidelity_run(*file) for file in FILES]
    figures = drawn([fidelity(*runs)])
    shown = [ax for ax in figures["agreement.png"].axes if ax.get_visible()]
    assert len(shown) == len(FILES)
    titles = [ax.title if ax.title.get_text() else ax._left_title for ax in shown]
    assert not any("…" in title.get_text() for title in titles)
    boxes = [title.get_window_extent() for title in titles]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    for name in ("fidelity.png", "ranking.png"):
        rows = [text for text in figures[name].axes[0].get_yticklabels() if text.get_text()]
        assert any(row.get_text().startswith("Q4_K_M+generic · ") for row in rows)
        places = sorted(row.get_window_extent().y0 for row in rows)
        height = rows[0].get_window_extent().height
        assert all(b - a > height for a, b in pairwise(places))


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


def written(folder: Path, name: str, data: Any) -> Path:
    file = folder / name
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


def test_records_are_read_from_files_and_folders(tmp_path: Path) -> None:
    file = written(tmp_path, "a.json", growth())
    written(tmp_path, "old.json", {"machine": "x"})
    written(tmp_path, "list.json", [1])
    written(tmp_path, "half.json", '{"kind": "spe')
    written(tmp_path, "notes.txt", "no JSON")
    found = read_records([tmp_path, file])
    assert [(one.name, one.kind) for one in found] == [("a.json", "growth")]


def test_the_records_in_a_benchmarks_folder_are_found(tmp_path: Path) -> None:
    inner = tmp_path / "records"
    inner.mkdir()
    written(tmp_path, "notes.json", {"no": "record"})
    written(inner, "b.json", growth())
    assert [one.name for one in read_records([tmp_path])] == ["b.json"]
    assert [one.name for one in read_records([tmp_path, inner])] == ["b.json"]
    written(tmp_path, "a.json", speed())
    assert [one.name for one in read_records([tmp_path])] == ["a.json"]


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
        ('{"kind": "spe', "no JSON: line 1"),
        ("[" * 100_000, "no JSON"),
        ([1], "no kind"),
        ({"kind": "beauty"}, "no kind 'beauty', only quality, fidelity"),
        (without(growth(), "axis"), "a.json (growth): the key axis is missing"),
        (without(speed(), "ways", 1, "name"), "the key ways[1].name is missing"),
        (without(quality(), "machine", "gpus"), "the key machine.gpus is missing"),
        (quality(queries="many"), "queries must be a whole number, not 'many'"),
        (quality(size=float("nan")), "size must be a number, not nan"),
        (fidelity(fidelity_run("a", 1, interval=[0])), "runs[0].interval must hold 2 numbers"),
        (
            quality(measures={"reranked": {}, "hybrid": {"nan": {}}}),
            "measures.hybrid: 'nan' is no alpha",
        ),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, data: Any, said: str) -> None:
    file = written(tmp_path, "a.json", data)
    with pytest.raises(InputError) as error:
        read_records([file])
    assert said in str(error.value) and str(file) in str(error.value)
    assert "\n" not in str(error.value)


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
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            write_report(records(speed()), tmp_path)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_new_report_replaces_the_old_and_leaves_other_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    own = written(tmp_path, "own.png", "mine")
    write_report(records(growth()), tmp_path)
    write_report(records(speed()), tmp_path)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"own.png", "report.html", "tables.md", "speed.png", "records/0-speed.json"}
    assert own.read_text() == "mine"


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        write_report(records(speed(), speed()), tmp_path / name)
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
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
    for name in [name for name in sys.modules if name.startswith("erank_lite.benchmarks.report.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"pip install 'erank-lite\[eval\]'"):
        write_report(records(growth()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
