"""The page: the template filled. Every text is escaped by the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2

from erank_lite.benchmarks.report import machines, wording
from erank_lite.benchmarks.report.advice import advice, subjects
from erank_lite.benchmarks.report.choice import FEW, RULE, VERDICTS, WORDS, Choice
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.sections import Section
from erank_lite.benchmarks.report.verdicts import MARKS, choice_table
from erank_lite.machine.planning import PUBLISHED
from erank_lite.version import __version__

GENERATOR = "erank-lite report"
"""What the page names as its maker: by it a later report knows an earlier one."""


def page(
    records: Sequence[Record],
    choices: Sequence[Choice],
    parts: Sequence[Section],
    links: Mapping[int, str],
) -> str:
    """Return the page as HTML.

    Args:
        links: where each record lies beside the page, by its identity.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "one_line": wording.one_line, "size": wording.size, "machine": wording.machine,
    }  # fmt: skip
    folder = files(__package__)
    lines = machines.lines(choices)
    template = environment.from_string((folder / "page.html").read_text("utf-8"))
    return template.render(
        style=(folder / "page.css").read_text("utf-8"),
        generator=GENERATOR,
        version=__version__,
        records=records,
        link=lambda record: links[id(record)],
        advice=[
            (advice(choice, subject), choice_table(choice))
            for choice, subject in zip(choices, subjects(choices), strict=True)
        ],
        sections=parts,
        models=[*PUBLISHED],
        machines=[(True, [x for x in lines if x.gpu]), (False, [x for x in lines if not x.gpu])],
        place=place,
        shared=shared,
        kept={text: keeps for keeps, text in WORDS.items()},
        example=next((f.type for x in lines for f in x.fits if f), "Q8_0"),
        marks=MARKS,
        words=WORDS,
        verdicts=VERDICTS if any(choice.judged for choice in choices) else (),
        evidence=wording.listed(machines.measured_models(choices)),
        carried=any(fit and fit.carried for line in lines for fit in line.fits),
        rule=RULE,
        how_memory=machines.HOW,
        measured=measured_on(choices),
        notes=notes(records),
    )


def place(records: Sequence[Record]) -> str:
    """Return where and when records were made, as far as that is the same for all."""
    found = [
        {wording.machine(record.data["machine"]) for record in records},
        {f"commit {wording.one_line(record.data['commit'])}" for record in records},
        {wording.one_line(record.data["date"])[:10] for record in records},
    ]
    several = ("several machines", "several commits", "several days")
    return ", ".join(
        next(iter(each)) if len(each) == 1 else many
        for each, many in zip(found, several, strict=True)
    )


def measured_on(choices: Sequence[Choice]) -> str:
    """Return what the marks in the table of machines rest on, said plainly."""
    if not choices:
        return "Fidelity was not measured here: the table goes by memory alone."
    judged = [choice for choice in choices if choice.judged]
    if not judged:
        return "Too little was measured here to judge by: the table goes by memory alone."
    by_model: dict[str, list[str]] = {}
    for name in PUBLISHED:
        found = machines.evidence_for(name, choices)
        if found is not None:
            carried = [] if machines.is_of(found, name) else [name]
            by_model.setdefault(found.model, []).extend(carried)
    said = []
    for model, foreign in by_model.items():
        if foreign:
            said.append(
                f"What a type keeps was measured on {model}, not on "
                f"{wording.listed(foreign, 'or')}: for these it is a guess."
            )
        else:
            said.append(f"What a type keeps was measured on {model} itself.")
    few: dict[str, int] = {}
    for choice in judged:
        if choice.queries < FEW:
            few[choice.model] = min(choice.queries, few.get(choice.model, FEW))
    if few:
        by = wording.listed([f"{model} was judged by {n} queries" for model, n in few.items()])
        said.append(
            f"{by}, which are few: a small loss cannot be told from chance, in either direction."
        )
    return " ".join(said)


def shared(records: Sequence[Record]) -> bool:
    """Return whether one command, on one machine and of one commit, made all of the records."""
    made = {(r.data["command"], r.data["commit"], str(r.data["machine"])) for r in records}
    return len(made) == 1


def notes(records: Sequence[Record]) -> list[str]:
    """Return what a reader must know to judge the figures."""
    said = []
    if any(record.data["commit"].endswith("+") for record in records):
        said.append("A + after a commit: the source had changes that were not committed.")
    for kind in dict.fromkeys(record.kind for record in records):
        versions = {r.data["metrics_version"] for r in records if r.kind == kind}
        if len(versions) > 1:
            told = wording.listed(sorted(map(str, versions)))
            said.append(
                f"The {kind} records are of different metrics versions ({told}): do not compare "
                "their figures with each other."
            )
    machines_named = {wording.machine(r.data["machine"]) for r in records}
    if len(machines_named) > 1:
        said.append("The records are from different machines: compare speeds within one only.")
    return said
