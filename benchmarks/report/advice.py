"""The sentences to begin with: which file to take, from how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.choice import FEWEST, WORDS, Choice, File


class Advice(NamedTuple):
    """A sentence that names a file."""

    lead: str
    file: str
    text: str


def subjects(choices: Sequence[Choice]) -> list[str]:
    """Return what each choice is about, where there is more than one; else nothing."""
    if len(choices) < 2:
        return [""] * len(choices)
    about = [f"{choice.model} on {wording.listed([*choice.collections])}" for choice in choices]
    return [
        f"{said} against {wording.parts(choice.reference)[1] or wording.one_line(choice.reference)}"
        if about.count(said) > 1
        else said
        for said, choice in zip(about, choices, strict=True)
    ]


def advice(choice: Choice, subject: str = "") -> list[Advice]:
    """Return the sentences to begin with; `subject` is named where there are several choices."""
    best, smallest = choice.best, choice.smallest
    lead = f"For {subject}, " if subject else ""
    if not choice.judged:
        text = f": {_counted(choice)} were compared, and a verdict takes at least {FEWEST} queries."
        found = WORDS["few"]
        return [Advice(lead, found if lead else found[:1].upper() + found[1:], text)]
    said = []
    if best is not None:
        text = (
            f": {_share(best, choice)}, it gives {_same(best)} the same score; {_change(best)}"
            f"{_over(best, choice)}."
        )
        said.append(Advice(f"{lead}take " if lead else "Take ", best.short, text))
    if smallest is not None:
        text = (
            f": {_share(smallest, choice)}, it keeps the ranking, but gives only "
            f"{_same(smallest)} the same score; {_change(smallest)}{_over(smallest, choice)}."
        )
        said.append(Advice("Short of memory? " if said else lead, smallest.short, text))
    if not said:
        text = f": no smaller file that was measured keeps the ranking, over {_counted(choice)}."
        said.append(Advice(f"{lead}stay with " if lead else "Stay with ", choice.reference_word,
                           text))  # fmt: skip
    return said


def _counted(choice: Choice) -> str:
    """Return how many documents and queries were compared, the collection where not one only."""
    several = len(choice.collections) > 1
    found = [
        wording.compared(*counted) + (f" of {name}" if several else "")
        for name, counted in choice.collections.items()
    ]
    return wording.listed(found)


def _share(file: File, choice: Choice) -> str:
    if not file.size or not choice.reference_size:
        return wording.size(file.size)
    share = 100 * file.size / choice.reference_size
    return f"at {share:.0f}\N{NO-BREAK SPACE}% of the size of {choice.reference_word}"


def _same(file: File) -> str:
    documents = wording.counted(file.record.data["documents"], "document")
    return f"{wording.percent(file.run['same'])} of {documents}"


def _change(file: File) -> str:
    low, high = file.run["interval"]
    change = f"{wording.signed(file.run['change'])} ({wording.interval(low, high)})"
    return f"nDCG@10 changes by {change}"


def _over(file: File, choice: Choice) -> str:
    """Return the queries of the run that is told, with the collection where there are several."""
    data = file.record.data
    where = f" of {wording.one_line(data['collection'])}" if len(choice.collections) > 1 else ""
    return f" over {wording.counted(data['queries'], 'query', 'queries')}{where}"
