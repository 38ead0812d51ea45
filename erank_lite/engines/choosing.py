"""Which engine runs a model, and as what: a pure function of what is on offer and of the machine.

What is preferred, and why:

1. A file is run by the engine that reads it: GGUF by llama.cpp, GPTQ by GPTQModel's kernels.
2. A checkpoint goes to llama.cpp, converted: of all engines here it decodes fastest on processors
   (README, Benchmarks), and it alone shares a model between a GPU and a processor.
3. Its type is the first of `GPU_TYPES` that leaves a GPU room for `_TOGETHER` documents: Q8_0
   scores nearly as BF16 does, and those after it lose more the smaller they are. A processor's pace
   is that of its memory, so there it is Q4_K_M. What decides is all the memory that the GPUs have
   and not what is free of it, so that a model is not converted anew because a browser is open.
4. Where llama.cpp was built without the GPU that torch can use, Transformers computes BF16 on it:
   slower by the weight than a small type, faster by far than a processor.

An engine asked for by name is taken, or fails with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from erank_lite.errors import InputError
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.planning import (
    CACHE_SHARE,
    MAX_SEQUENCES_CPU,
    MAX_SEQUENCES_GPU,
    USUAL_PROMPT,
    WRITTEN,
    ModelShape,
    Overrides,
    Plan,
    gib,
    plan,
)

GPU_TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
PROCESSOR_TYPE = "Q4_K_M"
_TRANSFORMERS = {"torch", "transformers", "accelerate"}
_TOGETHER = 8
_USABLE = 0.95  # of a GPU's memory; the rest is the system's

Facts = Callable[[str], ModelShape]
"""By the type of a GGUF; "BF16" stands for what the model is itself."""
Form = Literal["gguf", "package", "checkpoint", "gptq", "server"]
_PLAIN = "a checkpoint that is not quantized"
_READS: dict[str, dict[Form, str]] = {
    "llama.cpp": {
        "gguf": "a GGUF file",
        "checkpoint": _PLAIN,
        "package": "erank-tiny",
    },
    "transformers": {"checkpoint": _PLAIN, "package": "erank-tiny"},
    "gptq": {"gptq": "a checkpoint in GPTQ"},
    "remote": {"server": "the address of a server, http://HOST:PORT"},
}


@dataclass(frozen=True)
class Offer:
    """A model as it is to be had.

    Attributes:
        form: a GGUF file, the model in the package (a checkpoint that has a type), a checkpoint
            that is not quantized, one in GPTQ, or a server.
        facts: what it asks of a machine; None where that is not known.
    """

    form: Form
    facts: Facts | None = None


@dataclass(frozen=True)
class Choice:
    """What runs a model.

    Attributes:
        engine: its name.
        type: of the GGUF that a checkpoint is to be converted to, or None.
        plan: how it runs there, where the facts are known.
        reasons: why, a line each.
        refused: what else there was, with the reason against it, a line each.
    """

    engine: str
    type: str | None = None
    plan: Plan | None = None
    reasons: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def choose(offer: Offer, machine: Hardware, engine: str = "auto") -> Choice:
    """Decide what runs `offer` on `machine`.

    Args:
        offer: the model.
        machine: its GPUs are all that the machine has, whatever can use them.
        engine: "auto", or the name of the engine to take.

    Raises:
        InputError: that engine does not read it.
    """
    if engine != "auto":
        if offer.form not in _READS[engine]:
            wanted = " or ".join(_READS[engine].values())
            given = next(forms[offer.form] for forms in _READS.values() if offer.form in forms)
            raise InputError(
                f"the {engine} engine runs {wanted}, and the model is {given}: leave the engine "
                "out, or give another model"
            )
        return _as_asked(offer, machine, engine)
    if offer.form == "server":
        return Choice("remote", reasons=("a server computes",))
    if offer.form == "gptq":
        return _gptq(offer, machine)
    if offer.form in ("gguf", "package"):
        return _llama(offer, machine, None, ("a GGUF file is run by llama.cpp",))
    if offer.facts is None:
        return _llama(offer, machine, PROCESSOR_TYPE, ())
    return _checkpoint(offer.facts, offer, machine)


def usable_by_llama(machine: Hardware) -> Hardware:
    """Return the machine without the GPUs that the installed llama.cpp was not built for."""
    built = machine.llama.backends if machine.llama else ()
    gpus = tuple(g for g in machine.gpus if g.kind in (*built, "llama.cpp"))
    return replace(machine, gpus=gpus)


def usable_by_torch(machine: Hardware) -> Hardware:
    """Return the machine with the GPUs that the installed torch was built for."""
    kinds = ("cuda",) * machine.torch_has_cuda + ("metal",) * ("torch" in machine.extras)
    return replace(machine, gpus=tuple(g for g in machine.gpus if g.kind in kinds))


def best_type(facts: Facts, machine: Hardware) -> tuple[str, str]:
    """Return the GGUF type for a machine whose GPUs llama.cpp can use, and why."""
    total = sum(int(g.total * _USABLE) for g in machine.gpus)
    empty = replace(
        machine,
        memory_free=machine.memory_total,
        gpus=tuple(replace(g, free=int(g.total * _USABLE)) for g in machine.gpus),
    )
    for kind in GPU_TYPES if total else ():
        model = facts(kind)
        found = plan(model, empty, Overrides())
        if found.gpu_layers > model.layers and found.documents >= _TOGETHER:
            names = ", ".join(g.name for g in machine.gpus)
            return kind, f"{kind}: the best that leaves {names} room for {_TOGETHER} documents"
    if not total:
        return PROCESSOR_TYPE, f"{PROCESSOR_TYPE}: a processor's pace is that of its memory"
    return GPU_TYPES[-1], f"{GPU_TYPES[-1]}: a larger one leaves the GPU too little room"


def _checkpoint(facts: Facts, offer: Offer, machine: Hardware) -> Choice:
    kind, why = best_type(facts, usable_by_llama(machine))
    torch = usable_by_torch(machine)
    if usable_by_llama(machine).gpus or not torch.gpus:
        return _llama(offer, machine, kind, (why,))
    name = torch.gpus[0].name
    by_torch = torch_plan(facts("BF16"), torch)
    against = None
    if _TRANSFORMERS - machine.extras.keys():
        against = "pip install 'erank-lite[reference]' would open it"
    elif not by_torch.fits:
        against = by_torch.reasons[-1]
    if against is not None:
        refused = f"Transformers on {name}, which torch can use and llama.cpp cannot: {against}"
        return _llama(offer, machine, kind, (why,), (refused,))
    reason = f"BF16 by Transformers: torch can use {name}, and this build of llama.cpp cannot"
    return Choice(
        "transformers", None, by_torch, (reason, *by_torch.reasons),
        (f"llama.cpp: built without that GPU; {kind} on the processor would be slower",),
    )  # fmt: skip


def _llama(
    offer: Offer,
    machine: Hardware,
    kind: str | None,
    reasons: tuple[str, ...],
    refused: tuple[str, ...] = (),
) -> Choice:
    found = None
    if offer.facts is not None:
        found = plan(offer.facts(kind or "BF16"), usable_by_llama(machine), Overrides())
    return Choice("llama.cpp", kind, found, (*reasons, *(found.reasons if found else ())), refused)


def _gptq(offer: Offer, machine: Hardware) -> Choice:
    gpus = usable_by_torch(machine).gpus
    where = gpus[0].name if gpus else "the processor"
    reasons = (f"a GPTQ checkpoint is run by GPTQModel's kernels, on {where}",)
    found = torch_plan(offer.facts("BF16"), usable_by_torch(machine)) if offer.facts else None
    return Choice("gptq", None, found, (*reasons, *(found.reasons if found else ())))


def _as_asked(offer: Offer, machine: Hardware, engine: str) -> Choice:
    asked = f"{engine}, as asked for"
    if engine == "llama.cpp":
        if offer.form != "checkpoint":
            return _llama(offer, machine, None, (asked,))
        if offer.facts is None:
            return _llama(offer, machine, PROCESSOR_TYPE, (asked,))
        kind, why = best_type(offer.facts, usable_by_llama(machine))
        return _llama(offer, machine, kind, (asked, why))
    found = None
    if engine in ("transformers", "gptq") and offer.facts is not None:
        found = torch_plan(offer.facts("BF16"), usable_by_torch(machine))
    return Choice(engine, None, found, (asked, *(found.reasons if found else ())))


def torch_plan(model: ModelShape, machine: Hardware) -> Plan:
    """Return how Transformers runs a model: all of it on the first GPU, or all on the processor."""
    gpus = machine.gpus[:1]
    free = gpus[0].free if gpus else machine.memory_free
    cells = min(model.context_length, USUAL_PROMPT + WRITTEN)
    document = cells * model.cache_size
    most = MAX_SEQUENCES_GPU if gpus else MAX_SEQUENCES_CPU
    room = int((free - model.size) * CACHE_SHARE)
    documents = max(1, min(most, room // document))
    taken = model.size + documents * document
    fits = taken <= free
    reason = f"{documents} documents of some {cells:,} tokens together: {gib(document)} each"
    if not fits:
        reason = f"it does not fit: it takes {gib(taken)}, {gib(free)} is free"
    return Plan(
        gpu_layers=model.layers + 1 if gpus else 0,
        sequences=most,
        documents=documents,
        cache=max(1, room),
        flash_attention=None,
        threads=machine.cores,
        gpu_memory=taken if gpus else 0,
        memory=0 if gpus else taken,
        fits=fits,
        reasons=(reason,),
    )
