"""How llama.cpp is to run a model: a pure function of its shape, the machine and the options.

The same facts give the same plan on any machine. One of them is measured: `attention`.

What is preferred, and why:

1. All layers on the GPUs, with room for at least `_MIN_SEQUENCES` documents. ERank writes some 400
   tokens a document, one after the other, and each reads every weight: the pace is that of the
   memory, of which a GPU's is about ten times a CPU's.
2. As many layers as fit. The CPU computes the others at every token, so that the pace falls quickly
   with the first that are left out; below `_MIN_LAYER_SHARE` of them it is the CPU's own within a
   factor of two, and all stays there unless its memory alone is too small.
3. The CPU.

Sizes are those that llama.cpp reserves: each document decoded has cells of its own, for its prompt
and the answer that is expected. The size of the buffers that it computes in is fitted to what
llama.cpp 0.3.36 of llama-cpp-python reports for five Qwen3 shapes (tests/unit/test_planning.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from erank_lite.engines.llama_cpp.attention import Attention, measured
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import Gpu, Hardware, usable_by_llama
from erank_lite.machine.plan import (
    CACHE_SHARE,
    MAX_SEQUENCES_CPU,
    MAX_SEQUENCES_GPU,
    MICRO_BATCH,
    Plan,
)
from erank_lite.machine.shapes import ModelShape
from erank_lite.util.units import counted, gib

REBUILD = (
    'reinstall it with CMAKE_ARGS="-DGGML_CUDA=on" (NVIDIA), "-DGGML_METAL=on" (Apple) or '
    '"-DGGML_VULKAN=on": pip install --force-reinstall --no-cache-dir llama-cpp-python'
)
_MIN_SEQUENCES = 6
_MIN_LAYER_SHARE = 0.5
_PER_GPU = 400 << 20  # what the driver's own context takes of each
_EXTRA = 28 << 20  # llama.cpp's graphs, and what reads its results (tests/engine/test_memory.py)
_PER_TOKEN = 300  # bytes of the vocabulary's texts in Python, for each
_FASTER = 1.05  # times as fast, below which flash attention is not worth a second context
_TIGHT = 0.85  # of what is free on the GPUs
_LOWERED = 0.75  # of a GPU's free memory, for the plan after one whose dry run failed


def plan(
    shape: ModelShape | None,
    machine: Hardware,
    options: LlamaCppOptions,
    attention: Callable[[ModelShape, Hardware, int], Attention | None] | None = None,
) -> Plan:
    """Decide how llama.cpp runs a model.

    Args:
        shape: of the model; None where it is not known before its file is here.
        machine: its GPUs are those that llama.cpp can use.
        options: what was asked for.
        attention: from shape, machine and threads to what attention takes on its CPU; None where
            nothing is measured.

    Raises:
        InputError: an option cannot be met.
        ModelError: this build of llama.cpp cannot do what was asked for.
    """
    machine = _with_chosen_gpus(machine, options)
    if shape is None:
        return Plan(engine="llama.cpp", options=options)
    context_length = min(options.context_length or shape.context_length, shape.context_length)
    shape = replace(shape, context_length=context_length)
    micro_batch = options.micro_batch or MICRO_BATCH
    reasons: list[str] = []
    layers = _layers(shape, machine, options, micro_batch, reasons)
    share = shape.cache_share(layers)
    on_gpu = shape.on_gpu(layers)
    cells = shape.document_cells
    document = cells * shape.cell_size(options.kv_type)
    flash = options.flash_attention
    threads = options.threads or machine.cores
    flash_reading = None if layers else False
    if flash is None and not layers and options.kv_type in ("f32", "f16", "bf16"):
        # What is decoded together it would sum in 16 bits; what is read at once, in 32.
        flash = False
        exact = options.kv_type == "f16" and not options.strict
        found = attention(shape, machine, threads) if attention and exact else None
        flash_reading = found is not None and found.speedup > _FASTER
        if found is not None and flash_reading:
            reasons.append(
                "prompts are read with flash attention, whose part takes "
                f"{1 / found.speedup:.0%} of the time here"
            )
    sequences = options.sequences or (MAX_SEQUENCES_GPU if layers else MAX_SEQUENCES_CPU)
    if options.strict:
        sequences = 1
    buffers = shape.buffer_size(sequences, cells, micro_batch, flash is not False)
    reading = 0
    if flash_reading:
        reading = document + shape.buffer_size(1, cells, micro_batch, True)

    # What is left once the weights are there: keys and values lie where their layers are.
    gpus, gpu_free = _gpus(machine, options)
    shared = any(g.shared for g in gpus)
    # Weights mapped from the file count as free until they are read.
    ram_free = machine.memory_free - shape.on_cpu(layers) - (0 if layers else buffers) - reading
    rooms = []
    if share:
        room = gpu_free - on_gpu - len(gpus) * (_PER_GPU + buffers)
        room -= shape.on_cpu(layers) if shared else 0
        rooms.append(max(0, room) * CACHE_SHARE / share)
    if share < 1:
        rooms.append(max(0, ram_free) * CACHE_SHARE / (1 - share))
    cache = options.memory or max(1, int(min(rooms)))
    documents = max(1, min(sequences, cache // document))
    used = documents * document
    gpu_memory = 0
    if layers:
        gpu_memory = on_gpu + int(used * share) + len(gpus) * (_PER_GPU + buffers)
    memory = shape.on_cpu(layers) + int(used * (1 - share)) + (0 if layers else buffers)
    memory += reading + _EXTRA + _PER_TOKEN * shape.vocabulary
    total = memory + (gpu_memory if shared else 0)
    fits = total <= machine.memory_free and gpu_memory <= gpu_free
    reasons.append(
        f"{counted(documents, 'document')} of {cells:,} tokens together: {gib(document)} each for "
        f"keys and values ({options.kv_type})"
    )
    if not fits:
        reasons.append(
            f"it does not fit: it takes {gib(total)} of memory, {gib(machine.memory_free)} is "
            "free" + f"; {gib(gpu_memory)} of the GPU, {gib(gpu_free)} is free" * bool(layers)
        )
    return Plan(
        engine="llama.cpp",
        options=options,
        sequences=sequences,
        documents=documents,
        context_length=context_length,
        micro_batch=micro_batch,
        threads=threads,
        gpu_layers=layers,
        device=", ".join(g.name for g in gpus) if layers else "cpu",
        flash_attention=flash,
        flash_reading=flash_reading,
        cache=cache,
        gpu_memory=gpu_memory,
        memory=memory,
        fits=fits,
        tight=gpu_memory > _TIGHT * gpu_free,
        reasons=tuple(reasons),
    )


def plan_here(shape: ModelShape | None, machine: Hardware, options: LlamaCppOptions) -> Plan:
    """Return the plan on the GPUs that the installed llama.cpp can use; see `plan`."""
    return plan(shape, usable_by_llama(machine), options, measured)


def lowered(
    shape: ModelShape, machine: Hardware, options: LlamaCppOptions, failed: Plan, why: str
) -> Plan:
    """Return the plan to run after the dry run of `failed` failed: it takes less of each GPU.

    Args:
        shape: of the model.
        machine: its GPUs are those that llama.cpp can use.
        options: what was asked for; layers that were asked for are not taken away.
        failed: the plan that was tried.
        why: how it failed.

    Raises:
        ModelError: the layers that were asked for do not run.
    """
    if options.gpu_layers is not None:
        raise ModelError(
            f"llama.cpp fails with {failed.gpu_layers} layers on the GPU, as were asked for "
            f"({why})",
            "ask for fewer, or leave gpu_layers out",
        )
    smaller = tuple(replace(g, free=int(g.free * _LOWERED)) for g in machine.gpus)
    return plan(shape, replace(machine, gpus=smaller), options)


def _with_chosen_gpus(machine: Hardware, options: LlamaCppOptions) -> Hardware:
    """Return the machine with the GPUs that take part.

    Raises:
        InputError: `main_gpu` is not one of them.
        ModelError: layers were asked for on a GPU, and there is none.
    """
    if options.gpu_layers == 0:
        return replace(machine, gpus=())
    if options.gpu_layers and not machine.gpus:
        built = machine.llama.backends if machine.llama else ()
        has = "finds no GPU" if set(built) - {"cpu", "blas"} else "has no GPU support"
        raise ModelError(
            f"{options.gpu_layers} layers were asked for on the GPU, but this build of "
            f"llama-cpp-python {has}",
            f"{REBUILD}; or leave gpu_layers out",
        )
    if options.main_gpu is None or not machine.gpus:
        return machine
    if options.main_gpu >= len(machine.gpus):
        last = len(machine.gpus) - 1
        raise InputError(f"main_gpu must be between 0 and {last}, not {options.main_gpu}")
    return replace(machine, gpus=machine.gpus[options.main_gpu :][:1])


def _layers(
    shape: ModelShape,
    machine: Hardware,
    options: LlamaCppOptions,
    micro_batch: int,
    reasons: list[str],
) -> int:
    """Return how many layers go to the GPUs, the output counted as one."""
    all_layers = shape.layers + 1
    gpus, free = _gpus(machine, options)
    names = ", ".join(g.name for g in machine.gpus)
    if options.gpu_layers is not None:
        asked = all_layers if options.gpu_layers < 0 else min(options.gpu_layers, all_layers)
        reasons.append(f"{asked} of {all_layers} layers on the GPU, as asked for")
        return asked
    if not machine.gpus:
        reasons.append("on the CPU: there is no GPU that llama.cpp can use here")
        return 0
    document = shape.document_cells * shape.cell_size(options.kv_type)
    buffers = shape.buffer_size(
        _MIN_SEQUENCES, shape.document_cells, micro_batch, options.flash_attention is not False
    )
    room = free - len(gpus) * (_PER_GPU + buffers)

    def needed(layers: int) -> float:
        cache = _MIN_SEQUENCES * document * shape.cache_share(layers)
        return shape.on_gpu(layers) + cache / CACHE_SHARE

    fitting = next((n for n in range(all_layers, 0, -1) if needed(n) <= room), 0)
    if fitting == all_layers:
        reasons.append(f"all layers on {names}: {gib(shape.on_gpu(fitting))} of weights")
    elif fitting >= _MIN_LAYER_SHARE * shape.layers or (
        fitting > 1 and shape.on_cpu(0) + document + buffers > machine.memory_free
    ):
        reasons.append(
            f"{fitting} of {all_layers} layers on {names}: it has {gib(free)} free, all would "
            f"take {gib(int(needed(all_layers)) + free - room)}"
        )
    else:
        reasons.append(
            f"on the CPU: {names} has {gib(free)} free, room for {fitting} of {all_layers} "
            "layers, which is too few to be faster"
        )
        fitting = 0
    return fitting


def _gpus(machine: Hardware, options: LlamaCppOptions) -> tuple[tuple[Gpu, ...], int]:
    """Return the GPUs that take part, and the bytes that are free on them for what is split so."""
    # A driver that does not know its memory names none: then it is the CPU's.
    gpus = tuple(g if g.total else replace(g, shared=True) for g in machine.gpus)
    limit = machine.memory_free
    free = [min(g.free if g.total else limit, limit) if g.shared else g.free for g in gpus]
    shares = options.tensor_split
    if not shares or not any(shares[: len(gpus)]):
        return gpus, sum(free)
    taking = [(g, f, s) for g, f, s in zip(gpus, free, shares, strict=False) if s > 0]
    # All is full where the first of them is.
    whole = min(f / s for _, f, s in taking) * sum(s for _, _, s in taking)
    return tuple(g for g, _, _ in taking), int(whole)
