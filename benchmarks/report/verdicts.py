"""The tables of the first screen: a verdict on each file, and what each machine should take."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.choice import WORDS, Choice, Keeps
from erank_lite.benchmarks.report.machines import Fit, lines
from erank_lite.benchmarks.report.tables import Table
from erank_lite.benchmarks.report.wording import percent, size
from erank_lite.planning import PUBLISHED

MARKS: dict[Keeps | None, str] = {"scores": "●", "ranking": "◐", "neither": "○", None: ""}


def choice_table(choice: Choice) -> Table:
    """Return the verdict on each file."""
    head = ("file", "size", "verdict", "same integer", "nDCG@10 changes by", "95 % interval")
    rows = [
        (
            file.short, size(file.size), WORDS[file.keeps], percent(file.run["same"]),
            wording.signed(file.run["change"]), wording.interval(*file.run["interval"]),
        )
        for file in choice.files
    ]  # fmt: skip
    reference = (choice.reference, size(choice.reference_size), "the reference", "", "", "")
    queries = f"{choice.queries:,} queries"
    collections = dict.fromkeys(str(r.data["collection"]) for r in choice.records)
    caption = (
        f"Files of {choice.model} against {choice.reference_word}, the smallest last: {queries} of "
        f"{wording.listed([*collections])}"
    )
    return Table.of(caption, head, [reference, *rows], choice.records, text=("verdict",))


def machine_table(choices: Sequence[Choice]) -> Table:
    """Return the type of each ERank model to take, by the machine's memory."""
    rows = [
        [f"{line.memory} GB, {'GPU' if line.gpu else 'no GPU'}", *map(_cell, line.fits)]
        for line in lines(choices)
    ]
    note = "; ".join(f"{MARKS[keeps]} {words}" for keeps, words in WORDS.items())
    return Table.of(
        "Which type to take, by the memory of the GPU, or of a computer without one",
        ("memory", *PUBLISHED), rows, [r for c in choices for r in c.records],
        f"{note}, where that type was measured." if choices else "", (*PUBLISHED,),
    )  # fmt: skip


def _cell(fit: Fit | None) -> str:
    if fit is None:
        return "does not fit"
    return f"{fit.type} {MARKS[fit.keeps]} {size(fit.size)}"
