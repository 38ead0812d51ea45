"""Which file to take: a rule over the fidelity records, and its verdict on each file.

A file keeps the *ranking* where no run of it shows a loss: the 95 % interval of its change in
nDCG@10 reaches `LOSS` below the reference or better, the change itself is at most `DROP` below,
and at most `FAILED` of the documents failed. It keeps the *scores* where, besides, as many
documents get the reference's integer as when the reference itself runs in another batch shape,
less `SAME`. Of the files that keep either, the smallest is taken. With fewer than `MIN_QUERIES`
nothing is judged: a bootstrap over so few says nothing, and over one it has no width at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report.format import short_names
from erank_lite.benchmarks.report.records import Fidelity, Record, Reference, Run

LOSS, DROP, SAME, FAILED = 0.01, 0.02, 0.10, 0.01
MIN_QUERIES = 10  # below it nothing is judged
FEW_QUERIES = 200  # below it an interval of nDCG@10 is wider than the losses looked for
_ALIKE = 1.01  # files are of one size where the larger is at most so many times the smaller

Verdict = Literal["scores", "ranking", "neither", "few"]
VERDICTS: tuple[Verdict, ...] = ("scores", "ranking", "neither")  # the best first
WORDS: dict[Verdict, str] = {
    "scores": "keeps the scores", "ranking": "keeps the ranking", "neither": "loses too much",
    "few": "too few queries to judge",
}  # fmt: skip
MARKS: dict[Verdict | None, str] = {
    "scores": "●", "ranking": "◐", "neither": "○", "few": "", None: "",
}  # fmt: skip

RULE: dict[Verdict, str] = {
    "scores": "It keeps the ranking, and as many documents get the reference's integer as when the "
    f"reference runs again in another batch shape, less {100 * SAME:.0f} in 100.",
    "ranking": f"Its nDCG@10 is at most {DROP:g} below the reference's, the 95 % interval of that "
    f"change does not lie wholly more than {LOSS:g} below, and at most {100 * FAILED:.0f} % of the "
    "documents failed.",
    "neither": "All others. A file that was measured more than once is judged by its worst run.",
    "few": f"Measured on fewer than {MIN_QUERIES} queries: no verdict, no advice and no interval.",
}


def is_judged(record: Fidelity) -> bool:
    """Return whether a record has queries enough for a verdict, or an interval."""
    return record.queries >= MIN_QUERIES


def verdict(record: Fidelity, run: Run) -> Verdict:
    """Return what a run of a record keeps."""
    if not is_judged(record):
        return "few"
    shows_no_loss = run.interval[1] >= -LOSS and run.change >= -DROP
    if not shows_no_loss or (run.failed or 0) > FAILED:
        return "neither"
    return "scores" if run.same >= floor_same(record) - SAME else "ranking"


def floor_same(record: Fidelity) -> float:
    """Return the least share of equal integers of the reference against itself; 1 if unknown."""
    return min((run.same for run in record.floors), default=1.0)


@dataclass(frozen=True)
class File:
    """A file that was compared with its reference.

    Attributes:
        short: its name without the model's.
        size: bytes, or None for a server.
        keeps: the verdict over all runs of it.
        run: the run that decided it.
        record: that the run is of.
    """

    short: str
    size: float | None
    keeps: Verdict
    run: Run
    record: Fidelity


@dataclass(frozen=True)
class Comparison:
    """What the fidelity records of one reference say of its files, the largest first."""

    reference: Reference
    reference_size: float | None
    records: tuple[Fidelity, ...]
    files: tuple[File, ...]

    @property
    def model(self) -> str:
        """The name of the model that was measured."""
        return self.reference.variant.model

    @property
    def reference_word(self) -> str:
        """What sentences call the reference: BF16, if it is that."""
        described = f"{self.reference.name} {self.reference.ran}"
        found = re.search("bf16|bfloat16", described, re.IGNORECASE)
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
    def judged(self) -> list[Fidelity]:
        """The records that have queries enough for a verdict."""
        return [record for record in self.records if is_judged(record)]

    @property
    def queries(self) -> int:
        """The fewest queries of a record that was judged, or of all where none was."""
        return min(record.queries for record in self.judged or self.records)

    @property
    def collections(self) -> dict[str, tuple[int, int]]:
        """The collections, with the most documents and queries of each that a record has."""
        found: dict[str, tuple[int, int]] = {}
        for record in self.records:
            name = one_line(record.collection)
            found[name] = max((record.documents, record.queries), found.get(name, (0, 0)))
        return found

    def _smallest(self, *kept: Verdict) -> File | None:
        """Return the smallest file; of several of that size, the one nearest to the reference."""
        limit = self.reference_size or float("inf")
        sized = [
            (file.size, file)
            for file in self.files
            if file.size is not None and file.keeps in kept and file.size < limit
        ]
        smallest = min((size for size, _ in sized), default=0.0)
        alike = [file for size, file in sized if size <= _ALIKE * smallest]
        return max(alike, key=lambda f: (f.keeps == "scores", f.run.same), default=None)


def comparisons(records: Iterable[Record]) -> list[Comparison]:
    """Return what the fidelity records say, one comparison for each reference."""
    by_reference: dict[str, list[Fidelity]] = {}
    for record in records:
        if isinstance(record, Fidelity):
            by_reference.setdefault(record.reference.name, []).append(record)
    return [_compare(found) for found in by_reference.values()]


def _compare(records: Sequence[Fidelity]) -> Comparison:
    reference = records[0].reference
    measured: dict[str, list[tuple[Fidelity, Run]]] = {}
    for record in records:
        for run in record.files:
            if run.name != reference.name:
                measured.setdefault(run.name, []).append((record, run))
    variants = {name: each[0][1].variant for name, each in measured.items()}
    named = {reference.name: reference.variant} | variants
    short = short_names(named, reference.variant.model)
    files = []
    for name, each in measured.items():
        record, run = min([e for e in each if is_judged(e[0])] or each, key=lambda e: _rank(*e))
        size = next((r.size for _, r in each if r.size is not None), None)
        files.append(File(short[name], size, verdict(record, run), run, record))
    files.sort(key=lambda file: -(file.size if file.size is not None else -1))
    size = next((r.reference.size for r in records if r.reference.size is not None), None)
    return Comparison(reference, size, tuple(records), tuple(files))


def _rank(record: Fidelity, run: Run) -> tuple[float, ...]:
    """Return what the worse of two runs is less by."""
    keeps = verdict(record, run)
    return -VERDICTS.index(keeps) if keeps in VERDICTS else 1, run.change, run.same
