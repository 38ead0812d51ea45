"""What a run shows, in sentences: where this project is first, and where not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erank_lite.benchmarks.speed.ways import FLASH, OURS, OURS_BF16, PUBLISHED

_TIE = 1.03  # runs of one way differ by as much
_WHY = {
    "llama-server": "it uses flash attention, which on a processor sums values in 16 bits and is "
    "therefore off here unless it is asked for",
    PUBLISHED: "it computes the checkpoint in BF16 by torch's kernels, not the file by llama.cpp's",
}
_SCALE = (
    "for scale: {name} ranks {ratio:.1f} times as many documents a second; it embeds each with a "
    "small encoder, neither reasons nor generates, and is no peer in quality"
)


def verdict(
    ways: Sequence[Mapping[str, Any]],
    ceiling: Mapping[str, Any] | None,
    practical: Mapping[str, Any] | None,
) -> list[str]:
    """Return a sentence for each way that ran, and for each ceiling.

    Args:
        ways: the ways of a speed record, this project's first.
        ceiling: the record's roofline, or None.
        practical: the record's llama-batched-bench, or None.
    """
    rates = {way["name"]: float(way["documents_per_second"]) for way in ways}
    first, *others = rates
    told = [_compared(name, rates[name], first, rates) for name in others]
    if first == OURS and OURS_BF16 in rates and PUBLISHED in rates:
        ratio = rates[OURS_BF16] / rates[PUBLISHED]
        told.append(
            f"on the same checkpoint, {OURS_BF16} is {ratio:.2f} times as fast as the {PUBLISHED}"
        )
    for found, name in ((ceiling, "the roofline"), (practical, "llama-batched-bench's rates")):
        if found is not None:
            told.append(f"{first} reaches {found['reached']:.0%} of {name}")
    return told


def _compared(name: str, rate: float, first: str, rates: Mapping[str, float]) -> str:
    """Return the sentence on one way beside ours."""
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
    if name == "llama-server" and FLASH in rates:
        line += f". With flash attention too, {first} is {rates[FLASH] / rate:.2f} times as fast"
    return line
