"""Which file to take: a rule over the fidelity records, and its verdict on each file.

A file keeps the *ranking* where no run of it shows a loss: the 95 % interval of its change in
nDCG@10 reaches `LOSS` below the reference or better, the change itself is at most `DROP` below,
and at most `FAILED` of the documents failed. It keeps the *scores* where, beside that, as many
documents get the reference's integer as when the reference itself runs in another batch shape,
less `SAME`. Of the files that keep either, the smallest is taken. With fewer than `FEWEST` queries
nothing is judged: a bootstrap over so few says nothing, and over one it has no width at all.
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
FEWEST = 10  # queries, below which nothing is judged
ALIKE = 1.01  # files are of one size where the larger is at most so many times the smaller

Keeps = Literal["scores", "ranking", "neither", "few"]
VERDICTS: tuple[Keeps, ...] = ("scores", "ranking", "neither")  # the best first
WORDS: dict[Keeps, str] = {
    "scores": "keeps the scores", "ranking": "keeps the ranking", "neither": "loses too much",
    "few": "too few queries to judge",
}  # fmt: skip

RULE: dict[Keeps, str] = {
    "scores": "It keeps the ranking, and as many documents get the reference's integer as when the "
    f"reference runs again in another batch shape, less {100 * SAME:.0f} in 100.",
    "ranking": f"Its nDCG@10 is at most {DROP:g} below the reference's, the 95 % interval of that "
    f"change does not lie wholly more than {LOSS:g} below, and at most {100 * FAILED:.0f} % of the "
    "documents failed.",
    "neither": "All others. A file that was measured more than once is judged by its worst run.",
    "few": f"Measured on fewer than {FEWEST} queries: no verdict, no advice and no interval.",
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
        record: that the run is of.
    """

    name: str
    short: str
    size: float | None
    keeps: Keeps
    run: Mapping[str, Any]
    record: Record

    @property
    def type(self) -> str | None:
        """The type of its weights, where its name tells it, with its importance matrix."""
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
    def judged(self) -> tuple[Record, ...]:
        """The records that have queries enough for a verdict."""
        return tuple(record for record in self.records if enough(record))

    @property
    def queries(self) -> int:
        """The fewest queries of a record that was judged, or of all where none was."""
        return min(int(record.data["queries"]) for record in self.judged or self.records)

    @property
    def collections(self) -> dict[str, tuple[int, int]]:
        """The collections, with the most documents and queries of each that a record has."""
        found: dict[str, tuple[int, int]] = {}
        for record in self.records:
            data = record.data
            counted = int(data["documents"]), int(data["queries"])
            name = wording.one_line(data["collection"])
            found[name] = max(counted, found.get(name, (0, 0)))
        return found

    def _smallest(self, *kept: Keeps) -> File | None:
        """Return the smallest file; of several of that size, the one nearest to the reference."""
        limit = self.reference_size or float("inf")
        sized = [
            (file.size, file)
            for file in self.files
            if file.size is not None and file.keeps in kept and file.size < limit
        ]
        least = min((size for size, _ in sized), default=0.0)
        alike = [file for size, file in sized if size <= ALIKE * least]
        return max(alike, key=lambda f: (f.keeps == "scores", f.run["same"]), default=None)


def choices(records: Iterable[Record]) -> list[Choice]:
    """Return what the fidelity records say, one choice for each reference."""
    by_reference: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "fidelity":
            by_reference.setdefault(record.data["reference"]["name"], []).append(record)
    return [_choice(name, found) for name, found in by_reference.items()]


def _choice(reference: str, records: Sequence[Record]) -> Choice:
    runs: dict[str, list[_Judged]] = {}
    for record in records:
        for run in record.data["runs"]:
            if not run.get("floor") and run["name"] != reference:
                found = _Judged(verdict(record, run), run, record)
                runs.setdefault(run["name"], []).append(found)
    short = wording.short_names([reference, *runs], wording.model_of(reference))
    files = []
    for name, each in runs.items():
        worst = min([j for j in each if j.keeps != "few"] or each, key=_Judged.rank)
        size = next((s for j in each if (s := j.run.get("size")) is not None), None)
        files.append(File(name, short[name], size, *worst))
    files.sort(key=lambda f: -(f.size if f.size is not None else -1))
    size = next((s for r in records if (s := r.data["reference"].get("size")) is not None), None)
    return Choice(reference, size, tuple(records), tuple(files))


class _Judged(NamedTuple):
    keeps: Keeps
    run: Mapping[str, Any]
    record: Record

    def rank(self) -> tuple[float, ...]:
        """Return what the worse of two is less by."""
        order = -VERDICTS.index(self.keeps) if self.keeps in VERDICTS else 1
        return order, self.run["change"], self.run["same"]


def enough(record: Record) -> bool:
    """Return whether a record has queries enough for a verdict, or an interval."""
    return int(record.data["queries"]) >= FEWEST


def same_floor(record: Record) -> float:
    """Return the least share of equal integers of the reference against itself; 1 if unknown."""
    return min((run["same"] for run in record.data["runs"] if run.get("floor")), default=1.0)


def verdict(record: Record, run: Mapping[str, Any]) -> Keeps:
    """Return what a run of a record keeps."""
    if not enough(record):
        return "few"
    shown = run["interval"][1] >= -LOSS and run["change"] >= -DROP
    if not shown or (run.get("failed") or 0) > FAILED:
        return "neither"
    return "scores" if run["same"] >= same_floor(record) - SAME else "ranking"
