"""Quality records: which belong together, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.tables import MAIN, Table
from erank_lite.benchmarks.report.wording import count, counted, decimals, percent, rate, size


@dataclass(frozen=True)
class Group:
    """Records that compare: of one collection, reranked from the same first stage.

    Attributes:
        title: the collection, how deep and from what.
        measure: by which the models are compared.
        labels: of each record: the model, with its setting where that differs.
        settings: of each record, "" where all have the same.
    """

    title: str
    measure: str
    records: tuple[Record, ...]
    labels: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def collection(self) -> str:
        """The collection's name and the depth, for a plot."""
        data = self.records[0].data
        depth = f", the first {data['depth']:,}" if data.get("depth") else ""
        return wording.one_line(data["collection"]) + depth

    def reranked(self, record: Record) -> float | None:
        """Return the record's main measure after reranking."""
        return _value(record.data["measures"]["reranked"], self.measure)

    def first_stage(self) -> float | None:
        """Return the main measure of the first stage's own order."""
        found = (r.data["measures"].get("first stage") or {} for r in self.records)
        return next((v for m in found if (v := _value(m, self.measure)) is not None), None)

    def published(self, record: Record) -> float | None:
        """Return the paper's figure for a record's setting."""
        return _value(record.data.get("published") or {}, self.measure)

    def sweep(self, record: Record) -> list[tuple[float, float]]:
        """Return (alpha, main measure) of a record's hybrids, by alpha."""
        hybrid = record.data["measures"].get("hybrid") or {}
        points = ((float(a), _value(m, self.measure)) for a, m in hybrid.items())
        return sorted((a, v) for a, v in points if v is not None)


def _value(measures: Mapping[str, Any], name: str) -> float | None:
    found = measures.get(name)
    return None if found is None else float(found)


def groups(records: Iterable[Record]) -> list[Group]:
    """Return the quality records by what they compare with, larger models first."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record.kind == "quality":
            data = record.data
            measures = data["measures"]["reranked"]
            main = next((m for m in MAIN if m in measures), next(iter(measures), MAIN[0]))
            key = (data["collection"], data.get("first_stage"), data.get("depth"), main)
            found.setdefault(key, []).append(record)
    made = []
    for (collection, stage, depth, main), alike in found.items():
        alike.sort(key=lambda r: -(r.data.get("size") or 0))
        title = wording.one_line(collection)
        if depth:
            title += f", the first {depth:,} of {wording.one_line(stage or 'the first stage')}"
        settings = _settings(alike)
        labels = tuple(
            ", ".join(filter(None, (wording.one_line(record.data["model"]), setting)))
            for record, setting in zip(alike, settings, strict=True)
        )
        made.append(Group(title, main, tuple(alike), labels, settings))
    return made


def _settings(records: Sequence[Record]) -> tuple[str, ...]:
    """Return each record's setting, as far as settings differ between them."""
    settings = [
        (wording.thinking(r.data.get("thinking")), f"cut at {r.data['truncate_length']}"
         if r.data.get("truncate_length") else "", "strict" if r.data.get("strict") else "")
        for r in records
    ]  # fmt: skip
    differ = [len(set(column)) > 1 for column in zip(*settings, strict=True)]
    return tuple(
        ", ".join(part for part, shown in zip(setting, differ, strict=True) if shown and part)
        for setting in settings
    )


def quality_table(group: Group) -> Table:
    """Return the measures of a group."""
    measures = {name: None for r in group.records for name in r.data["measures"]["reranked"]}
    for record in group.records:
        measures |= dict.fromkeys(record.data["measures"].get("first stage") or {})
    main = group.measure
    names = [main, *(name for name in measures if name != main)]
    head = (
        "model", "size", *names, f"published {main}", f"best hybrid {main}", "at alpha", "failed",
        "forced", "tokens", "documents/s", "ran",
    )  # fmt: skip
    rows = []
    for record, label in zip(group.records, group.labels, strict=True):
        data = record.data
        alpha, best = max(group.sweep(record), key=lambda p: p[1], default=(None, None))
        rows.append([
            label, size(data.get("size")),
            *(decimals(_value(data["measures"]["reranked"], n)) for n in names),
            decimals(group.published(record)), decimals(best), decimals(alpha, 1),
            _share(data.get("failed"), data["documents"]),
            _share(data.get("forced"), data["documents"]), count(data.get("tokens")),
            rate(data.get("documents_per_second")), data["ran"],
        ])  # fmt: skip
    stage = next((m for r in group.records if (m := r.data["measures"].get("first stage"))), None)
    if stage:
        first = ["first stage", "", *(decimals(_value(stage, n)) for n in names)]
        rows.insert(0, first + [""] * (len(head) - len(first)))
    data = group.records[0].data
    caption = f"Quality on {group.title}: {counted(data['queries'], 'query', 'queries')}"
    note = "The best alpha was chosen on these same queries: its figure flatters the hybrid."
    best_shown = any(group.sweep(record) for record in group.records)
    return Table.of(caption, head, rows, group.records, note if best_shown else "", ("ran",))


def _share(some: float | None, documents: int) -> str:
    return wording.NONE if some is None or not documents else percent(some / documents)


def sweep_table(group: Group) -> Table | None:
    """Return the main measure by alpha, or None where there is no hybrid."""
    sweeps = [dict(group.sweep(record)) for record in group.records]
    alphas = sorted({alpha for sweep in sweeps for alpha in sweep})
    if not alphas:
        return None
    rows = [
        [label, *(decimals(sweep.get(alpha)) for alpha in alphas)]
        for label, sweep in zip(group.labels, sweeps, strict=True)
        if sweep
    ]
    caption = f"{group.measure} of the hybrid by alpha, the first stage's weight: {group.title}"
    return Table.of(caption, ["model", *(f"{a:g}" for a in alphas)], rows, group.records)
