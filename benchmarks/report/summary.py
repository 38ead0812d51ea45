"""What the rule comes to, in sentences and tables: which file to take, and on which machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report import format as fmt
from erank_lite.benchmarks.report.content import Table
from erank_lite.benchmarks.report.machines import Fit, machine_rows, measured_models
from erank_lite.benchmarks.report.rule import (
    MARKS,
    MIN_QUERIES,
    VERDICTS,
    WORDS,
    Comparison,
    File,
    is_judged,
)
from erank_lite.machine.shapes import PUBLISHED
from erank_lite.util.units import counted


class Advice(NamedTuple):
    """A sentence that names a file."""

    lead: str
    file: str
    text: str


def subjects(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what each comparison is about, where there is more than one; else nothing."""
    if len(comparisons) < 2:
        return [""] * len(comparisons)
    about = [f"{found.model} on {fmt.listed([*found.collections])}" for found in comparisons]
    return [
        f"{each} against {found.reference.variant.name or one_line(found.reference.name)}"
        if about.count(each) > 1
        else each
        for each, found in zip(about, comparisons, strict=True)
    ]


def advice(comparison: Comparison, subject: str = "") -> list[Advice]:
    """Return the sentences to begin with; `subject` is named where there are several."""
    lead = f"For {subject}, " if subject else ""
    if not comparison.judged:
        text = f": {_extent(comparison)} were compared, and a verdict takes at least {MIN_QUERIES}"
        text += " queries."
        return [Advice(lead, WORDS["few"] if lead else WORDS["few"].capitalize(), text)]
    best, smallest = comparison.best, comparison.smallest
    found = []
    if best is not None:
        text = f"it gives {fmt.percent(best.run.same)} of {_documents(best)} the same score"
        found.append(Advice(_start(lead, "take "), best.short, _sentence(best, comparison, text)))
    if smallest is not None:
        same = f"{fmt.percent(smallest.run.same)} of {_documents(smallest)}"
        text = f"it keeps the ranking, but gives only {same} the same score"
        start = "Short of memory? " if found else lead
        found.append(Advice(start, smallest.short, _sentence(smallest, comparison, text)))
    if not found:
        text = f": no smaller file that was measured keeps the ranking, over {_extent(comparison)}."
        found.append(Advice(_start(lead, "stay with "), comparison.reference_word, text))
    return found


def _start(lead: str, verb: str) -> str:
    return lead + verb if lead else verb.capitalize()


def _sentence(file: File, comparison: Comparison, keeps: str) -> str:
    share = fmt.size(file.size)
    if file.size and comparison.reference_size:
        percentage = f"{100 * file.size / comparison.reference_size:.0f}\N{NO-BREAK SPACE}%"
        share = f"at {percentage} of the size of {comparison.reference_word}"
    change = f"{fmt.signed(file.run.change)} ({fmt.interval(file.run.interval)})"
    several = len(comparison.collections) > 1
    queries = counted(file.record.queries, "query")
    queries += f" of {one_line(file.record.collection)}" if several else ""
    return f": {share}, {keeps}; nDCG@10 changes by {change} over {queries}."


def _documents(file: File) -> str:
    return counted(file.record.documents, "document")


def _extent(comparison: Comparison) -> str:
    """Return how many documents and queries were compared, the collection where not one only."""
    several = len(comparison.collections) > 1
    return fmt.listed([
        fmt.compared(*counts) + (f" of {name}" if several else "")
        for name, counts in comparison.collections.items()
    ])  # fmt: skip


def file_table(comparison: Comparison) -> Table:
    """Return the verdict on each file."""
    rows = [{
        "file": comparison.reference.name, "size": fmt.size(comparison.reference_size),
        "verdict": "the reference",
    }] + [{
        "file": file.short, "size": fmt.size(file.size), "verdict": WORDS[file.keeps],
        "same integer": fmt.percent(file.run.same),
        "nDCG@10 changes by": fmt.signed(file.run.change),
        "95 % interval": fmt.interval(file.run.interval) if is_judged(file.record) else fmt.NONE,
    } for file in comparison.files]  # fmt: skip
    extents = [f"{fmt.compared(*n)} of {name}" for name, n in comparison.collections.items()]
    caption = (
        f"Files of {comparison.model} against {comparison.reference_word}, the smallest last: "
        f"{fmt.listed(extents)}"
    )
    return Table.from_rows(caption, rows, comparison.records, text=("verdict",))


def machine_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the type of each ERank model to take, by the machine's memory."""
    rows = [
        {"memory": f"{row.memory} GB, {'GPU' if row.gpu else 'no GPU'}"}
        | dict(zip(PUBLISHED, map(_cell, row.fits), strict=True))
        for row in machine_rows(comparisons)
    ]
    models = measured_models(comparisons)
    marks = "; ".join(f"{MARKS[keeps]} {WORDS[keeps]}" for keeps in VERDICTS)
    note = f"{marks}: as measured on {fmt.listed(models)}, where that type was measured."
    records = [record for comparison in comparisons for record in comparison.records]
    caption = "Which type to take, by the memory of the GPU, or of a computer without one"
    return Table.from_rows(caption, rows, records, note if models else "", (*PUBLISHED,))


def _cell(fit: Fit | None) -> str:
    if fit is None:
        return "does not fit"
    return f"{fit.type} {MARKS[fit.keeps]} {fmt.size(fit.size)}"
