"""The page: the template filled. Every text is escaped by the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report import format as fmt
from erank_lite.benchmarks.report import machines, rule
from erank_lite.benchmarks.report.content import Section
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.rule import Comparison
from erank_lite.benchmarks.report.summary import advice, file_table, subjects
from erank_lite.machine.shapes import PUBLISHED
from erank_lite.version import __version__


def page(
    records: Sequence[Record],
    comparisons: Sequence[Comparison],
    sections: Sequence[Section],
    links: Mapping[Record, str],
) -> str:
    """Return the page as HTML.

    Args:
        links: the path of each record's copy from the page.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"one_line": one_line, "size": fmt.size, "machine": fmt.machine}
    folder = files(__package__)
    rows = machines.machine_rows(comparisons)
    fits = [fit for row in rows for fit in row.fits if fit]
    template = environment.from_string((folder / "page.html").read_text("utf-8"))
    return template.render(
        style=(folder / "page.css").read_text("utf-8"),
        version=__version__,
        records=records,
        links=links,
        advice=[
            (advice(comparison, subject), file_table(comparison))
            for comparison, subject in zip(comparisons, subjects(comparisons), strict=True)
        ],
        sections=sections,
        models=[*PUBLISHED],
        machines=[(gpu, [row for row in rows if row.gpu == gpu]) for gpu in (True, False)],
        example=fits[0].type,
        carried=any(fit.carried for fit in fits),
        where=where,
        is_shared=is_shared,
        marks=rule.MARKS,
        words=rule.WORDS,
        kept={text: keeps for keeps, text in rule.WORDS.items()},
        verdicts=rule.VERDICTS if any(comparison.judged for comparison in comparisons) else (),
        evidence=fmt.listed(machines.measured_models(comparisons)),
        rule=rule.RULE,
        room=machines.ROOM,
        basis=basis(comparisons),
        notes=notes(records),
    )


def where(records: Sequence[Record]) -> str:
    """Return where and when records were made, as far as that is the same for all."""
    found = {
        "several machines": {fmt.machine(record.machine) for record in records},
        "several commits": {f"commit {one_line(record.commit)}" for record in records},
        "several days": {one_line(record.date)[:10] for record in records},
    }
    return ", ".join(min(each) if len(each) == 1 else many for many, each in found.items())


def is_shared(records: Sequence[Record]) -> bool:
    """Return whether one command, on one machine and of one commit, made all of the records."""
    return len({(record.command, record.commit, record.machine) for record in records}) == 1


def basis(comparisons: Sequence[Comparison]) -> str:
    """Return what the marks in the table of machines rest on, in plain sentences."""
    if not comparisons:
        return "Fidelity was not measured here: the table goes by memory alone."
    judged = [comparison for comparison in comparisons if comparison.judged]
    if not judged:
        return "Too little was measured here to judge by: the table goes by memory alone."
    guessed: dict[str, list[str]] = {}
    for name in PUBLISHED:
        if evidence := machines.evidence_for(name, comparisons):
            others = [] if machines.is_of(evidence, name) else [name]
            guessed.setdefault(evidence.model, []).extend(others)
    sentences = [
        f"What a type keeps was measured on {model}, not on {fmt.listed(others, 'or')}: for these "
        "it is a guess." if others else f"What a type keeps was measured on {model} itself."
        for model, others in guessed.items()
    ]  # fmt: skip
    few: dict[str, int] = {}
    for comparison in judged:
        if comparison.queries < rule.FEW_QUERIES:
            few[comparison.model] = min(comparison.queries, few.get(comparison.model, 10**9))
    if few:
        by = fmt.listed([f"{model} was judged by {n} queries" for model, n in few.items()])
        sentences.append(
            f"{by}, which are few: a small loss cannot be told from chance, in either direction."
        )
    return " ".join(sentences)


def notes(records: Sequence[Record]) -> list[str]:
    """Return what one must know to judge the figures."""
    found = []
    if any(record.commit.endswith("+") for record in records):
        found.append("A + after a commit: the source had changes that were not committed.")
    for kind in dict.fromkeys(record.kind for record in records):
        versions = {r.metrics_version for r in records if r.kind == kind}
        if len(versions) > 1:
            found.append(
                f"The {kind} records are of different metrics versions "
                f"({fmt.listed(sorted(map(str, versions)))}): do not compare their figures with "
                "each other."
            )
    if len({fmt.machine(record.machine) for record in records}) > 1:
        found.append("The records are from different machines: compare speeds within one only.")
    return found
