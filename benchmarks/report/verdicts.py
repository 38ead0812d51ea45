"""The tables of the first screen: a verdict on each file, and what each machine should take."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.choice import VERDICTS, WORDS, Choice, Keeps, enough
from erank_lite.benchmarks.report.machines import Fit, lines, measured_models
from erank_lite.benchmarks.report.tables import Table
from erank_lite.benchmarks.report.wording import percent, size
from erank_lite.machine.planning import PUBLISHED

MARKS: dict[Keeps | None, str] = {
    "scores": "●", "ranking": "◐", "neither": "○", "few": "", None: "",
}  # fmt: skip


def choice_table(choice: Choice) -> Table:
    """Return the verdict on each file."""
    head = ("file", "size", "verdict", "same integer", "nDCG@10 changes by", "95 % interval")
    rows = [
        (
            file.short, size(file.size), WORDS[file.keeps], percent(file.run["same"]),
            wording.signed(file.run["change"]),
            wording.interval(*file.run["interval"]) if enough(file.record) else wording.NONE,
        )
        for file in choice.files
    ]  # fmt: skip
    reference = (choice.reference, size(choice.reference_size), "the reference", "", "", "")
    compared = [
        f"{wording.compared(*counted)} of {name}" for name, counted in choice.collections.items()
    ]
    caption = (
        f"Files of {choice.model} against {choice.reference_word}, the smallest last: "
        f"{wording.listed(compared)}"
    )
    return Table.of(caption, head, [reference, *rows], choice.records, text=("verdict",))


def machine_table(choices: Sequence[Choice]) -> Table:
    """Return the type of each ERank model to take, by the machine's memory."""
    rows = [
        [f"{line.memory} GB, {'GPU' if line.gpu else 'no GPU'}", *map(_cell, line.fits)]
        for line in lines(choices)
    ]
    models = measured_models(choices)
    marks = "; ".join(f"{MARKS[keeps]} {WORDS[keeps]}" for keeps in VERDICTS)
    note = f"{marks}: as measured on {wording.listed(models)}, where that type was measured."
    return Table.of(
        "Which type to take, by the memory of the GPU, or of a computer without one",
        ("memory", *PUBLISHED), rows, [r for c in choices for r in c.records],
        note if models else "", (*PUBLISHED,),
    )  # fmt: skip


def _cell(fit: Fit | None) -> str:
    if fit is None:
        return "does not fit"
    return f"{fit.type} {MARKS[fit.keeps]} {size(fit.size)}"
