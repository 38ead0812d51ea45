"""What a run shows, in sentences: where this project is first, and where not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erank_lite.benchmarks.record import Record
from erank_lite.benchmarks.speed.systems import FLASH, OURS, OURS_BF16, PUBLISHED, SERVER

_TIE = 1.03  # runs of one system differ by as much
_WHY = {
    SERVER: "it writes with flash attention too, which on a CPU sums values in 16 bits and is "
    "therefore used only to read here unless it is asked for",
    PUBLISHED: "it computes the checkpoint in BF16 by torch's kernels, not the file by llama.cpp's",
}
_SCALE = (
    "for scale: {name} ranks {ratio:.1f} times as many documents a second; it embeds each with a "
    "small encoder, neither reasons nor generates, and is no peer in quality"
)


def summarize(
    ways: Sequence[Mapping[str, Any]],
    ceiling: Mapping[str, Any] | None,
    practical: Mapping[str, Any] | None,
) -> list[str]:
    """Return a sentence for each system that ran, and for each ceiling.

    Args:
        ways: the systems of a speed record, this project's first.
        ceiling: the record's roofline, or None.
        practical: the record's llama-batched-bench, or None.
    """
    rates = {way["name"]: float(way["documents_per_second"]) for way in ways}
    first, *others = rates
    notes = [_compared(name, rates[name], first, rates) for name in others]
    if first == OURS and OURS_BF16 in rates and PUBLISHED in rates:
        ratio = rates[OURS_BF16] / rates[PUBLISHED]
        notes.append(
            f"on the same checkpoint, {OURS_BF16} is {ratio:.2f} times as fast as the {PUBLISHED}"
        )
    for found, name in ((ceiling, "the roofline"), (practical, "llama-batched-bench's rates")):
        if found is not None:
            notes.append(f"{first} reaches {found['reached']:.0%} of {name}")
    return notes


def _compared(name: str, rate: float, first: str, rates: Mapping[str, float]) -> str:
    """Return the sentence on one system beside ours."""
    ours = rates[first]
    if name == "bi-encoder":
        return _SCALE.format(name=name, ratio=rate / ours)
    if name == FLASH:
        return f"with flash attention, {first} is {rate / ours:.2f} times as fast"
    if name == OURS_BF16:
        return f"{name} (this project's engine for BF16) is {rate / ours:.2f} times as fast"
    if rate <= ours / _TIE:
        return f"{first} is {ours / rate:.2f} times as fast as {name}"
    if rate < ours * _TIE:
        return f"{first} and {name} are equally fast, within {_TIE - 1:.0%}"
    line = f"{first} is not first: {name} is {rate / ours:.2f} times as fast"
    if name in _WHY:
        line += f"; {_WHY[name]}"
    if name == SERVER and FLASH in rates:
        line += f". With flash attention too, {first} is {rates[FLASH] / rate:.2f} times as fast"
    return line


def file_name(record: Record) -> str:
    """Return the usual name of a record's file: speed.json, or growth-AXIS.json."""
    axis = f"-{record['axis'].replace(' ', '-')}" if record["kind"] == "growth" else ""
    return f"{record['kind']}{axis}.json"


def lines(record: Record) -> list[str]:
    """Return a record of speed or growth as lines for the terminal; `report` makes its tables."""
    if record["kind"] == "growth":
        rows = [(f"{p['x']} {record['axis']}", p) for p in record["points"]]
        head = f"{record['model']}, {record['way']}"
    else:
        rows = [(way["name"], way) for way in record["ways"]]
        rows += [(k, record[k]) for k in ("ceiling", "practical_ceiling") if record[k]]
        head = f"{record['model']}, " + ", ".join(f"{v} {k}" for k, v in record["work"].items())
    width = max(len(name) for name, _ in rows)
    return [
        head,
        *(f"  {name:{width}} {row['documents_per_second']:9.2f} documents/s" for name, row in rows),
        *(f"- {note}" for note in record.get("notes", ())),
        *(f"- {name} is skipped: {why}" for name, why in record.get("skipped", {}).items()),
    ]
