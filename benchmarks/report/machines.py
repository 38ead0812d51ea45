"""Which type of each ERank model a machine has the memory for, by `erank_lite.machine.planning`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erank_lite.benchmarks.report.choice import Choice, File, Keeps
from erank_lite.machine.hardware import Gpu, Hardware
from erank_lite.machine.planning import PUBLISHED, ModelShape, Overrides, plan

MEMORIES = (4, 8, 16, 24, 48)
"""Of usual machines, in GiB."""

# Of what there is: a GPU's driver and screen take little, a system with a browser more.
_USABLE_OF_GPU, _USABLE = 0.95, 0.75
_GIB = 2**30

HOW = (
    "Room is what erank_lite.machine.planning computes for documents of usual length with their full "
    f"reasoning: on a GPU, the whole model and two documents in {100 * _USABLE_OF_GPU:.0f} % of "
    f"its memory; without one, the model and one document in {100 * _USABLE:.0f} % of the "
    "computer's memory, the rest being the system's and other programs'."
)


@dataclass(frozen=True)
class Fit:
    """A type of a model that a machine has room for.

    Attributes:
        type: of the GGUF file.
        size: of it, in bytes.
        documents: how many fit at once.
        keeps: the verdict on that type where it was measured, on whatever model.
        measured: that model.
        carried: it is another model than this.
        larger: the largest type that would fit too, or None.
    """

    type: str
    size: int
    documents: int
    keeps: Keeps | None
    measured: str | None
    carried: bool
    larger: str | None


@dataclass(frozen=True)
class Line:
    """What a machine has room for.

    Attributes:
        memory: GiB.
        gpu: it is a GPU's.
        fits: of each of `PUBLISHED`, in that order.
    """

    memory: int
    gpu: bool
    fits: tuple[Fit | None, ...]


def lines(choices: Sequence[Choice]) -> list[Line]:
    """Return what each machine has room for: the largest type, none larger than need be."""
    evidence = [evidence_for(name, choices) for name in PUBLISHED]
    return [
        Line(memory, gpu, tuple(map(lambda n, e: fit(n, memory, gpu, e), PUBLISHED, evidence)))
        for gpu in (True, False)
        for memory in MEMORIES
    ]


def evidence_for(name: str, choices: Sequence[Choice]) -> Choice | None:
    """Return the choice that was judged on the model `name`, or on the largest other one."""
    judged = [choice for choice in choices if choice.judged]
    own = [choice for choice in judged if is_of(choice, name)]
    return max(own or judged, key=lambda c: c.reference_size or 0, default=None)


def is_of(choice: Choice, name: str) -> bool:
    """Return whether a choice was measured on the published model `name`."""
    return name.lower() in choice.model.lower()


def measured_models(choices: Sequence[Choice]) -> list[str]:
    """Return the models that the verdicts in the tables of machines were measured on."""
    found = (evidence_for(name, choices) for name in PUBLISHED)
    return [*dict.fromkeys(choice.model for choice in found if choice is not None)]


def fit(name: str, memory: int, gpu: bool, evidence: Choice | None) -> Fit | None:
    """Return the type of a published model to take with so many GiB of memory.

    It is the largest that fits, but none larger than the smallest that keeps the scores.
    """
    sizes = PUBLISHED[name].sizes
    fitting = {kind: n for kind in sizes if (n := _documents(name, kind, memory, gpu))}
    if not fitting:
        return None
    judged = _judged(evidence.files) if evidence else {}
    enough = min(
        (sizes[kind] for kind, keeps in judged.items() if keeps == "scores" and kind in sizes),
        default=max(sizes.values()),
    )
    largest = max(fitting, key=sizes.__getitem__)
    kind = max(
        (kind for kind in fitting if sizes[kind] <= enough), key=sizes.__getitem__, default=None
    )
    if kind is None:
        return None
    keeps = judged.get(kind)
    measured = evidence.model if evidence and keeps else None
    carried = measured is not None and evidence is not None and not is_of(evidence, name)
    larger = largest if largest != kind else None
    return Fit(kind, sizes[kind], fitting[kind], keeps, measured, carried, larger)


def _judged(files: Sequence[File]) -> dict[str, Keeps]:
    """Return the verdict on each type; a plain file goes before one with further options."""
    plain_last = sorted(files, key=lambda file: (-len(file.name), file.name))
    return {file.type: file.keeps for file in plain_last if file.type and file.keeps != "few"}


def _documents(name: str, kind: str, memory: int, gpu: bool) -> int:
    """Return how many documents fit at once, 0 where the model does not."""
    total = memory * _GIB
    gpus = (Gpu("GPU", "cuda", total, int(_USABLE_OF_GPU * total)),) if gpu else ()
    # Beside a GPU, the computer's own memory is taken to be no hindrance.
    free = int(_USABLE * (max(MEMORIES) * _GIB if gpu else total))
    machine = Hardware("", "", 8, (), free, free, gpus, None, {})
    model = ModelShape.published(name, kind)
    found = plan(model, machine, Overrides())
    whole = not gpu or found.gpu_layers > model.layers
    return found.documents if found.fits and whole else 0
