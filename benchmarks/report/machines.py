"""Which type of each ERank model a usual machine should take: what fits, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erank_lite.benchmarks.report.rule import Comparison, Verdict
from erank_lite.machine.shapes import PUBLISHED

LARGEST_TYPE: dict[tuple[str, int], tuple[str | None, str | None, str | None]] = {
    ("GPU", 4): (None, None, None),
    ("GPU", 8): ("Q8_0", None, None),
    ("GPU", 16): ("BF16", "Q6_K", None),
    ("GPU", 24): ("BF16", "Q8_0", "Q4_K_M"),
    ("GPU", 48): ("BF16", "BF16", "Q8_0"),
    ("no GPU", 4): ("Q4_K_M", None, None),
    ("no GPU", 8): ("Q8_0", None, None),
    ("no GPU", 16): ("BF16", "Q6_K", None),
    ("no GPU", 24): ("BF16", "Q8_0", None),
    ("no GPU", 48): ("BF16", "BF16", "Q8_0"),
}
"""The largest type of each of `PUBLISHED` that has room in so many GiB, of a GPU or without one.

Room is for the whole model and, on a GPU, six documents in `USABLE_GPU` of its memory; without one,
for one document in `USABLE` of the computer's. A test computes the table from the planner.
"""

# Of what there is: a GPU's driver and screen take little, a system with a browser more.
USABLE_GPU, USABLE = 0.95, 0.75

ROOM = (
    "Room is what erank-lite plan computes for documents and answers of usual "
    f"length: on a GPU, the whole model and six documents in {100 * USABLE_GPU:.0f} % of "
    f"its memory; without one, the model and one document in {100 * USABLE:.0f} % of the "
    "computer's memory, the rest being the system's and other programs'."
)


@dataclass(frozen=True)
class Fit:
    """The type of a model to take on a machine.

    Attributes:
        type: of the GGUF file.
        size: of it, in bytes.
        keeps: the verdict on that type where it was measured, on whatever model.
        measured: that model.
        carried: it is another model than this.
    """

    type: str
    size: int
    keeps: Verdict | None = None
    measured: str | None = None
    carried: bool = False


@dataclass(frozen=True)
class Row:
    """A machine by its memory in GiB, and what each of `PUBLISHED` should be taken as there."""

    gpu: bool
    memory: int
    fits: tuple[Fit | None, ...]


def machine_rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Return what each machine should take: the largest type, none larger than need be."""
    evidence = [evidence_for(model, comparisons) for model in PUBLISHED]
    return [
        Row(where == "GPU", memory, tuple(map(_fit, PUBLISHED, largest, evidence)))
        for (where, memory), largest in LARGEST_TYPE.items()
    ]


def evidence_for(model: str, comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison that was judged on a published model, or on the largest other one."""
    judged = [comparison for comparison in comparisons if comparison.judged]
    own = [comparison for comparison in judged if is_of(comparison, model)]
    return max(own or judged, key=lambda c: c.reference_size or 0, default=None)


def is_of(comparison: Comparison, model: str) -> bool:
    """Return whether a comparison was measured on the published model."""
    return model.lower() in comparison.model.lower()


def measured_models(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the models that the verdicts on types rest on."""
    found = (evidence_for(model, comparisons) for model in PUBLISHED)
    return [*dict.fromkeys(comparison.model for comparison in found if comparison is not None)]


def _fit(model: str, largest: str | None, evidence: Comparison | None) -> Fit | None:
    """Return the largest type that fits, none larger than the smallest that keeps the scores."""
    if largest is None:
        return None
    sizes = PUBLISHED[model].sizes
    keeps = _verdicts(evidence) if evidence else {}
    limit = min((sizes[t] for t in sizes if keeps.get(t) == "scores"), default=sizes[largest])
    kind = max((t for t in sizes if sizes[t] <= min(limit, sizes[largest])), key=sizes.__getitem__)
    if evidence is None or kind not in keeps:
        return Fit(kind, sizes[kind])
    carried = not is_of(evidence, model)
    return Fit(kind, sizes[kind], keeps[kind], evidence.model, carried)


def _verdicts(comparison: Comparison) -> dict[str, Verdict]:
    """Return the verdict on each type; a plain file goes before one with further options."""
    plain_last = sorted(comparison.files, key=lambda f: (-len(f.run.name), f.run.name))
    return {
        file.run.variant.type: file.keeps
        for file in plain_last
        if file.run.variant.type and not file.run.variant.imatrix and file.keeps != "few"
    }
