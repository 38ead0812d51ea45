"""Which engine runs a model, as what, and how: a pure function of the model and the machine.

What is preferred, and why:

1. A file is run by the engine that reads it: GGUF by llama.cpp, GPTQ by GPTQModel's kernels.
2. A checkpoint goes to llama.cpp, converted: of all engines here it decodes fastest on CPUs
   (docs/benchmarks.md), and it alone shares a model between a GPU and a CPU.
3. Its type is the first of `GPU_TYPES` that leaves a GPU room for `_GPU_DOCUMENTS` documents: Q8_0
   scores nearly as BF16 does, and those after it lose more the smaller they are. A CPU's pace is
   that of its memory, so there it is Q4_K_M. What decides is all the memory that the GPUs have and
   not what is free of it, so that a model is not converted anew because a browser is open.
4. Where llama.cpp was built without the GPU that torch can use, Transformers computes BF16 on it:
   slower by the weight than a small type, faster by far than a CPU.

An engine asked for by name is taken, or fails with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from erank_lite.engines import ENGINES, engine_spec
from erank_lite.engines.llama_cpp import plan as llama_cpp
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.errors import InputError
from erank_lite.machine.hardware import Hardware, usable_by_llama, usable_by_torch
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelInfo

GPU_TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
CPU_TYPE = "Q4_K_M"
_GPU_DOCUMENTS = 24
_USABLE = 0.95  # of a GPU's memory; the rest is the system's
_FORMATS = {
    "gguf": "a GGUF file",
    "bundled": "erank-tiny",
    "checkpoint": "a checkpoint that is not quantized",
    "gptq": "a checkpoint in GPTQ",
    "server": "the address of a server, http://HOST:PORT",
}


def plan(
    info: ModelInfo,
    machine: Hardware,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide what runs a model on a machine, and how.

    Args:
        info: what the model is (`erank_lite.models.inspect.inspect`).
        machine: its facts (`erank_lite.machine.hardware.probe`).
        engine: "auto", or the name of the engine to take.
        options: the engine's own, by name; see the `options.py` of each engine.

    Returns:
        The plan, which the engine runs as it is. Where the model's shape is not known before its
        file is here, it is not `complete`.

    Raises:
        InputError: that engine does not read it, or an option is wrong.
        ModelError: an option asks for what the engine cannot do here.

    Example:
        >>> from erank_lite.machine.hardware import Hardware, LlamaBuild
        >>> from erank_lite.models.inspect import inspect
        >>> from erank_lite.models.ref import ModelRef
        >>> laptop = Hardware(
        ...     system="Linux x86_64", cpu="a laptop's", cores=8, instructions=(),
        ...     memory_total=16 << 30, memory_free=12 << 30, gpus=(),
        ...     llama=LlamaBuild("0.3.36", ("cpu",)), extras={},
        ... )
        >>> found = plan(inspect(ModelRef.parse("Alibaba-NLP/ERank-14B")), laptop)
        >>> found.engine, found.type, found.gpu_layers, found.documents, found.fits
        ('llama.cpp', 'Q4_K_M', 0, 8, True)
        >>> print(found.reasons[0])
        Q4_K_M: a CPU's pace is that of its memory
    """
    options = options or {}
    if engine != "auto":
        return _asked_for(info, machine, engine, options)
    if info.format == "server":
        return _planned("remote", info, machine, None, options, ("a server computes",))
    if info.format == "gptq":
        gpus = usable_by_torch(machine).gpus
        on = gpus[0].name if gpus else "the CPU"
        reason = f"a GPTQ checkpoint is run by GPTQModel's kernels, on {on}"
        return _planned("gptq", info, machine, None, options, (reason,))
    if info.format in ("gguf", "bundled"):
        made = "; it is made here once" if info.format == "bundled" else ""
        reasons = (f"a GGUF file is run by llama.cpp{made}",)
        return _planned("llama.cpp", info, machine, info.type, options, reasons)
    if info.shape is None:
        return _planned("llama.cpp", info, machine, CPU_TYPE, options)
    return _checkpoint(info, machine, options)


def best_type(info: ModelInfo, machine: Hardware) -> tuple[str, str]:
    """Return the quantization type for a machine whose GPUs llama.cpp can use, and why."""
    assert info.shape is not None
    total = sum(int(g.total * _USABLE) for g in machine.gpus)
    empty = replace(
        machine,
        memory_free=machine.memory_total,
        gpus=tuple(replace(g, free=int(g.total * _USABLE)) for g in machine.gpus),
    )
    for quant_type in GPU_TYPES if total else ():
        shape = info.shape(quant_type)
        found = llama_cpp.plan(shape, empty, LlamaCppOptions())
        assert found.gpu_layers is not None and found.documents is not None
        if found.gpu_layers > shape.layers and found.documents >= _GPU_DOCUMENTS:
            names = ", ".join(g.name for g in machine.gpus)
            reason = f"the best that leaves {names} room for {_GPU_DOCUMENTS} documents"
            return quant_type, f"{quant_type}: {reason}"
    if not total:
        return CPU_TYPE, f"{CPU_TYPE}: a CPU's pace is that of its memory"
    return GPU_TYPES[-1], f"{GPU_TYPES[-1]}: a larger one leaves the GPU too little room"


def _checkpoint(info: ModelInfo, machine: Hardware, options: Mapping[str, Any]) -> Plan:
    quant_type, why = best_type(info, usable_by_llama(machine))
    torch = usable_by_torch(machine)
    if usable_by_llama(machine).gpus or not torch.gpus:
        return _planned("llama.cpp", info, machine, quant_type, options, (why,))
    name = torch.gpus[0].name
    by_torch = _planned("transformers", info, machine, None, {})
    against = None
    missing = _missing("transformers", machine)
    if missing is not None:
        against = missing
    elif not by_torch.fits:
        against = by_torch.reasons[-1]
    if against is not None:
        refused = f"Transformers on {name}, which torch can use and llama.cpp cannot: {against}"
        return _planned("llama.cpp", info, machine, quant_type, options, (why,), (refused,))
    reason = f"BF16 by Transformers: torch can use {name}, and this build of llama.cpp cannot"
    refused = f"llama.cpp: built without that GPU; {quant_type} on the CPU would be slower"
    return _planned("transformers", info, machine, None, options, (reason,), (refused,))


def _asked_for(info: ModelInfo, machine: Hardware, engine: str, options: Mapping[str, Any]) -> Plan:
    spec = engine_spec(engine)
    if info.format not in spec.reads:
        wanted = " or ".join(_FORMATS[f] for f in spec.reads)
        raise InputError(
            f"the {engine} engine runs {wanted}, and the model is {_FORMATS[info.format]}",
            "leave the engine out, or give another model",
        )
    reasons: tuple[str, ...] = (f"{engine}, as asked for",)
    quant_type = info.type
    if engine != "llama.cpp":
        quant_type = None
    elif info.format == "checkpoint":
        quant_type = CPU_TYPE
        if info.shape is not None:
            quant_type, why = best_type(info, usable_by_llama(machine))
            reasons += (why,)
    return _planned(engine, info, machine, quant_type, options, reasons)


def _planned(
    engine: str,
    info: ModelInfo,
    machine: Hardware,
    quant_type: str | None,
    options: Mapping[str, Any],
    reasons: tuple[str, ...] = (),
    alternatives: tuple[str, ...] = (),
) -> Plan:
    """Return the engine's own plan, with the reasons that led to the engine before its own."""
    spec = engine_spec(engine)
    for name in options.keys() - _names(engine):
        others = [other for other in ENGINES if name in _names(other)]
        if others:
            raise InputError(
                f"{name} is an option of {' and '.join(others)}, not of {engine}",
                f"the options of {engine} are {', '.join(_names(engine))}",
            )
    checked = spec.load_options().from_values(options, f"the {engine} engine")
    shape = None if info.shape is None else info.shape(quant_type or "BF16")
    found = spec.load_planner()(shape, machine, checked)
    reasons = (*reasons, *found.reasons)
    if not found.complete:
        reasons += ("nothing is known here of it, or whether it exists, before it is downloaded",)
    missing = _missing(engine, machine)
    if missing is not None:
        reasons += (missing,)
    return replace(found, type=quant_type, reasons=reasons, alternatives=alternatives)


def _missing(engine: str, machine: Hardware) -> str | None:
    """Return what has to be installed for an engine, or None where all is there."""
    spec = engine_spec(engine)
    lacking = [name for name in spec.packages if name not in machine.extras]
    if not lacking:
        return None
    return f"not installed: {', '.join(lacking)}; pip install 'erank-lite[{spec.extra}]'"


def _names(engine: str) -> list[str]:
    return [field.name for field in fields(engine_spec(engine).load_options())]
