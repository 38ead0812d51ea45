"""Which file to take: a rule over the fidelity records, and its verdict on each file.

A file keeps the *ranking* where no run of it shows a loss: the 95 % interval of its change in
nDCG@10 reaches `LOSS` below the reference or better, the change itself is at most `DROP` below,
and at most `FAILED` of the documents failed. It keeps the *scores* where, beside that, as many
documents get the reference's integer as when the reference itself runs in another batch shape,
less `SAME`. Of the files that keep either, the smallest is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.records import Record

LOSS, DROP, SAME, FAILED = 0.01, 0.02, 0.10, 0.01
FEW = 200  # queries, below which an interval of nDCG@10 is wider than the losses looked for

Keeps = Literal["scores", "ranking", "neither"]
_ORDER: tuple[Keeps, ...] = ("neither", "ranking", "scores")
WORDS: dict[Keeps, str] = {
    "scores": "keeps the scores", "ranking": "keeps the ranking", "neither": "loses too much",
}  # fmt: skip


RULE: dict[Keeps, str] = {
    "scores": "It keeps the ranking, and as many documents get the reference's integer as when the "
    f"reference runs again in another batch shape, less {100 * SAME:.0f} in 100.",
    "ranking": f"Its nDCG@10 is at most {DROP:g} below the reference's, the 95 % interval of that "
    f"change does not lie wholly more than {LOSS:g} below, and at most {100 * FAILED:.0f} % of the "
    "documents failed.",
    "neither": "All others. A file that was measured more than once is judged by its worst run.",
}


@dataclass(frozen=True)
class File:
    """One file that was compared with its reference.

    Attributes:
        name: as the records call it.
        short: the same without the model's name.
        size: bytes, or None for a server.
        keeps: the verdict over all runs of it.
        run: the run that decided it.
    """

    name: str
    short: str
    size: float | None
    keeps: Keeps
    run: Mapping[str, Any]

    @property
    def type(self) -> str | None:
        """The type of its weights, where its name tells it."""
        return wording.type_of(self.name)


@dataclass(frozen=True)
class Choice:
    """What the fidelity records of one reference say.

    Attributes:
        reference: its name.
        reference_size: bytes, or None.
        records: what it was computed from.
        files: the largest first.
    """

    reference: str
    reference_size: float | None
    records: tuple[Record, ...]
    files: tuple[File, ...]

    @property
    def model(self) -> str:
        """The name of the model that was measured."""
        return wording.model_of(self.reference)

    @property
    def reference_word(self) -> str:
        """What sentences call the reference: BF16, if it is that."""
        ran = self.records[0].data["reference"]["ran"]
        found = re.search("bf16|bfloat16", f"{self.reference} {ran}", re.IGNORECASE)
        return "BF16" if found else "the reference"

    @cached_property
    def best(self) -> File | None:
        """The smallest file that keeps the scores and is smaller than the reference."""
        return self._smallest("scores")

    @cached_property
    def smallest(self) -> File | None:
        """The smallest file that keeps at least the ranking, where it is smaller than `best`."""
        found = self._smallest("scores", "ranking")
        return None if found == self.best else found

    @property
    def queries(self) -> int:
        """The fewest queries of a record."""
        return min(int(record.data["queries"]) for record in self.records)

    def _smallest(self, *kept: Keeps) -> File | None:
        limit = self.reference_size or float("inf")
        sized = [f for f in self.files if f.size is not None and f.keeps in kept and f.size < limit]
        return min(sized, key=lambda f: f.size or 0, default=None)


def choices(records: Iterable[Record]) -> list[Choice]:
    """Return what the fidelity records say, one choice for each reference."""
    by_reference: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "fidelity":
            by_reference.setdefault(record.data["reference"]["name"], []).append(record)
    return [_choice(name, found) for name, found in by_reference.items()]


def _choice(reference: str, records: Sequence[Record]) -> Choice:
    runs: dict[str, list[tuple[Keeps, Mapping[str, Any]]]] = {}
    for record in records:
        floor = same_floor(record)
        for run in record.data["runs"]:
            if not run.get("floor") and run["name"] != reference:
                runs.setdefault(run["name"], []).append((verdict(run, floor), run))
    short = wording.short_names([reference, *runs], wording.model_of(reference))
    files = []
    for name, judged in runs.items():
        keeps, run = min(judged, key=lambda j: (_ORDER.index(j[0]), j[1]["change"], j[1]["same"]))
        size = next((r.get("size") for _, r in judged if r.get("size") is not None), None)
        files.append(File(name, short[name], size, keeps, run))
    files.sort(key=lambda f: -(f.size if f.size is not None else -1))
    size = next((s for r in records if (s := r.data["reference"].get("size")) is not None), None)
    return Choice(reference, size, tuple(records), tuple(files))


def same_floor(record: Record) -> float:
    """Return the least share of equal integers of the reference against itself; 1 if unknown."""
    return min((run["same"] for run in record.data["runs"] if run.get("floor")), default=1.0)


def verdict(run: Mapping[str, Any], floor: float) -> Keeps:
    """Return what a run keeps, where the reference keeps `floor` of its own integers."""
    shown = run["interval"][1] >= -LOSS and run["change"] >= -DROP
    if not shown or (run.get("failed") or 0) > FAILED:
        return "neither"
    return "scores" if run["same"] >= floor - SAME else "ranking"


class Advice(NamedTuple):
    """A sentence that names a file."""

    lead: str
    file: str
    text: str


def advice(choice: Choice) -> list[Advice]:
    """Return the sentences to begin with."""
    best, smallest = choice.best, choice.smallest
    said = []
    if best is not None:
        text = (
            f": {_share(best, choice)}, it gives {wording.percent(best.run['same'])} of the "
            f"documents the same score; nDCG@10 {_change(best)}."
        )
        said.append(Advice("Take ", best.short, text))
    if smallest is not None:
        text = (
            f": {_share(smallest, choice)}, it keeps the ranking, but only "
            f"{wording.percent(smallest.run['same'])} of the scores; nDCG@10 {_change(smallest)}."
        )
        said.append(Advice("Short of memory? " if said else "", smallest.short, text))
    if not said:
        text = ": no smaller file that was measured keeps the ranking."
        said.append(Advice("Stay with ", choice.reference_word, text))
    return said


def _share(file: File, choice: Choice) -> str:
    if not file.size or not choice.reference_size:
        return wording.size(file.size)
    share = 100 * file.size / choice.reference_size
    return f"at {share:.0f}\N{NO-BREAK SPACE}% of the size of {choice.reference_word}"


def _change(file: File) -> str:
    low, high = file.run["interval"]
    return f"{wording.signed(file.run['change'])} ({wording.interval(low, high)})"
