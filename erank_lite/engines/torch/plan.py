"""How torch is to run a model: a pure function of its shape, the machine and the options."""

from __future__ import annotations

from erank_lite.engines.torch.options import TorchOptions
from erank_lite.machine.hardware import Gpu, Hardware, usable_by_torch
from erank_lite.machine.plan import CACHE_SHARE, MAX_SEQUENCES_CPU, MAX_SEQUENCES_GPU, Plan
from erank_lite.machine.shapes import USUAL_ANSWER, USUAL_PROMPT, ModelShape
from erank_lite.util.units import counted, gib

_MICRO_BATCH = 2048
_DEVICES = {"cuda": "cuda:0", "metal": "mps"}


def plan(shape: ModelShape | None, machine: Hardware, options: TorchOptions, engine: str) -> Plan:
    """Return how an engine on torch runs a model: all on one GPU, or all on the CPU.

    Args:
        shape: of the model; None where it is not known before its files are here.
        machine: its GPUs are those that torch can use.
        options: what was asked for.
        engine: its name, "transformers" or "gptq".
    """
    if shape is None:
        return Plan(engine=engine, options=options)
    device = options.device or (_DEVICES[machine.gpus[0].backend] if machine.gpus else "cpu")
    gpu = _gpu(machine, device)
    free = gpu.free if gpu else machine.memory_free
    sequences = options.sequences or (MAX_SEQUENCES_CPU if device == "cpu" else MAX_SEQUENCES_GPU)
    if options.strict:
        sequences = 1
    context_length = min(options.context_length or shape.context_length, shape.context_length)
    wide = 2 if getattr(options, "dtype", "") == "float32" else 1  # times 16 bits
    cells = min(context_length, USUAL_PROMPT + USUAL_ANSWER)
    document = cells * shape.cache_size * wide
    cache = options.memory or max(1, int((free - wide * shape.size) * CACHE_SHARE))
    documents = max(1, min(sequences, cache // document))
    taken = wide * shape.size + documents * document
    reasons = [
        f"{counted(documents, 'document')} of some {cells:,} tokens together: {gib(document)} each"
    ]
    if taken > free:
        reasons = [f"it does not fit: it takes {gib(taken)}, {gib(free)} is free"]
    return Plan(
        engine=engine,
        options=options,
        sequences=sequences,
        documents=documents,
        context_length=context_length,
        micro_batch=options.micro_batch or _MICRO_BATCH,
        threads=options.threads or machine.cores,
        gpu_layers=0 if device == "cpu" else shape.layers + 1,
        device=device,
        cache=cache,
        gpu_memory=0 if device == "cpu" else taken,
        memory=taken if device == "cpu" else 0,
        fits=taken <= free,
        reasons=tuple(reasons),
    )


def plan_transformers(shape: ModelShape | None, machine: Hardware, options: TorchOptions) -> Plan:
    """Return the transformers engine's plan, on the GPUs that torch can use; see `plan`."""
    return plan(shape, usable_by_torch(machine), options, "transformers")


def plan_gptq(shape: ModelShape | None, machine: Hardware, options: TorchOptions) -> Plan:
    """Return the gptq engine's plan, on the GPUs that torch can use; see `plan`."""
    return plan(shape, usable_by_torch(machine), options, "gptq")


def _gpu(machine: Hardware, device: str) -> Gpu | None:
    """Return the GPU that a device of torch is, where the machine's facts have it."""
    _, _, index = device.partition(":")
    number = int(index) if index.isdigit() else 0
    return machine.gpus[number] if device != "cpu" and number < len(machine.gpus) else None
