"""Tables as data, to be written as HTML and as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.choice import enough
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.wording import count, decimals, memory, percent, rate, size

MAIN = ("nDCG@10", "p-MRR")
"""The measures that models are compared by, the first that a record has."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        caption: what it shows.
        head: the names of the columns.
        rows: as many cells each.
        records: what it was computed from.
        note: what to know beside it.
        text_columns: columns, beside the first, that hold words and not numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Record, ...]
    note: str = ""
    text_columns: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        caption: str,
        head: Sequence[str],
        rows: Iterable[Sequence[str]],
        records: Iterable[Record],
        note: str = "",
        text: Sequence[str] = (),
    ) -> Table:
        """Return a table without the columns in which no row has anything.

        Args:
            text: names of the columns, beside the first, that hold words and not numbers.
        """
        filled = [tuple(map(wording.one_line, row)) for row in rows]
        kept = [
            i
            for i in range(len(head))
            if not i or any(r[i] not in ("", wording.NONE) for r in filled)
        ]
        return cls(
            wording.one_line(caption),
            tuple(wording.one_line(head[i]) for i in kept),
            tuple(tuple(row[i] for i in kept) for row in filled),
            tuple(records),
            note,
            tuple(n for n, i in enumerate(kept) if head[i] in text),
        )


def names_in(record: Record) -> dict[str, str]:
    """Return the names in a fidelity record without the reference's model."""
    reference = record.data["reference"]["name"]
    names = [reference, *(run["name"] for run in record.data["runs"])]
    return wording.short_names(names, wording.model_of(reference))


def fidelity_table(record: Record) -> Table:
    """Return all that one fidelity record holds, but for the scatter."""
    data = record.data
    reference = data["reference"]
    runs = sorted(data["runs"], key=lambda r: (not r.get("floor"), -(r.get("size") or 0)))
    short = names_in(record)
    head = (
        "run", "size", "same integer", "mean difference", "95th percentile", "Kendall's tau",
        "RBO", "top 10 shared", "nDCG@10", "change", "95 % interval", "mean KL, nats",
        "KL, 95th percentile", "same next token", "forced", "failed", "tokens", "documents/s",
        "ran",
    )  # fmt: skip
    rows = [
        [short[reference["name"]], size(reference.get("size")), *[""] * 6,
         decimals(reference["nDCG@10"]), *[""] * 8, rate(reference.get("documents_per_second")),
         reference["ran"]]
    ]  # fmt: skip
    for run in runs:
        rows.append([
            short[run["name"]] + " (noise floor)" * bool(run.get("floor")), size(run.get("size")),
            percent(run["same"]), decimals(run["difference"]), decimals(run.get("difference_95")),
            decimals(run.get("tau")), decimals(run.get("rbo")), percent(run.get("top_10")),
            decimals(run["nDCG@10"]), wording.signed(run["change"]),
            wording.interval(*run["interval"]) if enough(record) else wording.NONE,
            decimals(run.get("kl"), 4),
            decimals(run.get("kl_95"), 4), percent(run.get("same_answer")),
            percent(run.get("forced")), percent(run.get("failed")), count(run.get("tokens")),
            rate(run.get("documents_per_second")), run["ran"],
        ])  # fmt: skip
    caption = (
        f"Fidelity to {reference['name']}: {wording.compared(data['documents'], data['queries'])} "
        f"of {data['collection']}, {wording.thinking(data.get('thinking'))}"
    )
    note = (
        "Differences are of rank scores, from 0 to 10. The noise floor is the reference against "
        "itself in another batch shape"
    )
    note += "; intervals are paired bootstraps over the queries." if enough(record) else "."
    return Table.of(caption, head, rows, [record], note, ("ran",))


def speed_table(record: Record) -> Table:
    """Return one speed record."""
    ours = ours_of(record)
    head = (
        "way", "documents/s", "× erank-lite", "tokens/s", "first result, s", "last result, s",
        "peak memory", "what",
    )  # fmt: skip
    rows = []
    for way in record.data["ways"]:
        pace = way.get("documents_per_second")
        rows.append([
            way["name"], rate(pace), ratio(pace, ours), rate(way.get("tokens_per_second")),
            rate(way.get("first_result")), rate(way.get("last_result")),
            memory(way.get("peak_memory")), way.get("what") or "",
        ])  # fmt: skip
    for name, pace, what in ceilings(record):
        rows.append([name, rate(pace), ratio(pace, ours), *[""] * 4, what])
    notes = [
        f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in record.data.get("notes") or ()
    ]
    note = " ".join(filter(None, (rates(record), *notes)))
    return Table.of(speed_caption(record), head, rows, [record], note, ("what",))


def ceilings(record: Record) -> list[tuple[str, float, str]]:
    """Return the name, documents per second and explanation of each ceiling of a speed record."""
    found = (("ceiling", "ceiling"), ("practical ceiling", "practical_ceiling"))
    return [
        (name, float(ceiling["documents_per_second"]), ceiling.get("what") or "")
        for name, key in found
        if (ceiling := record.data.get(key))
    ]


def speed_caption(record: Record) -> str:
    """Return what was run, in a line."""
    work = record.data["work"]
    together = f", {work['sequences']} at a time" if work.get("sequences") else ""
    return (
        f"Speed of {record.data['model']}: {work['documents']:,} documents of {work['shared']:,} "
        f"shared + {work['own']:,} own tokens, {work['tokens']:,} written each{together}"
    )


def rates(record: Record) -> str:
    """Return what the machine itself can do."""
    found = record.data.get("machine_rates") or {}
    parts = []
    if found.get("gflops") is not None:
        parts.append(f"computes {found['gflops']:,.0f} GFLOP/s")
    if found.get("gigabytes_per_second") is not None:
        parts.append(f"reads {found['gigabytes_per_second']:,.0f} GB/s of memory")
    return f"The machine {wording.listed(parts)}, measured." if parts else ""


def ours_of(record: Record) -> float | None:
    """Return erank-lite's own documents per second in a speed record."""
    found = (w for w in record.data["ways"] if w["name"] == "erank-lite")
    return next((pace for w in found if (pace := w.get("documents_per_second"))), None)


def ratio(pace: float | None, ours: float | None) -> str:
    """Return a speed as a multiple of erank-lite's."""
    return wording.NONE if pace is None or not ours else f"{rate(pace / ours)} ×"


def growth_table(records: Sequence[Record]) -> Table:
    """Return growth records of one axis, one model after the other."""
    axis = records[0].data["axis"]
    rows = [
        (r.data["model"], count(p["x"]), rate(p["documents_per_second"]),
         memory(p.get("peak_memory")))
        for r in records
        for p in sorted(r.data["points"], key=lambda p: p["x"])
    ]  # fmt: skip
    head = ("model", axis, "documents/s", "peak memory")
    return Table.of(f"Speed and memory as {axis} grow", head, rows, records)
