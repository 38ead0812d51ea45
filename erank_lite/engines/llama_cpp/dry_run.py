"""A plan that may be too large for a GPU is tried first in a child process, which may die.

CUDA's failures inside llama.cpp abort the process, so that nothing could be told any more.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from erank_lite.errors import ModelError
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.planning import ModelShape, Overrides, Plan, plan

_log = logging.getLogger(__name__)
_LESS = 0.75  # of a GPU's free memory, for the plan after one that failed
_TIMEOUT = 600


def tried_plan(
    path: Path, facts: ModelShape, machine: Hardware, wishes: Overrides, main_gpu: int | None
) -> Plan:
    """Return the plan for a GGUF file, stepped down once where a tight one fails in a trial.

    Args:
        path: of the file.
        facts: of the model.
        machine: with the GPUs that take part.
        wishes: the user's; layers that were asked for are not taken away.
        main_gpu: the GPU to use alone, or None.

    Raises:
        InputError: a wish cannot be kept.
        ModelError: the layers that were asked for do not run.
    """
    found = plan(facts, machine, wishes)
    if not found.tight:
        return found
    reason = failure(path, found, facts.document_cells, wishes, main_gpu)
    if reason is None:
        return found
    if wishes.gpu_layers is not None:
        raise ModelError(
            f"llama.cpp fails with {found.gpu_layers} layers on the GPU, as were asked for "
            f"({reason}): ask for fewer, or leave the number to the plan"
        )
    _log.warning(
        "llama.cpp failed with %d layers on the GPU in a trial (%s): it gets less to do",
        found.gpu_layers,
        reason,
    )
    smaller = tuple(replace(g, free=int(g.free * _LESS)) for g in machine.gpus)
    return plan(facts, replace(machine, gpus=smaller), wishes)


def failure(
    path: Path, found: Plan, cells: int, wishes: Overrides, main_gpu: int | None
) -> str | None:
    """Load the model as planned in a child process and decode; return how that failed, or None."""
    arguments = {
        "path": str(path),
        "layers": found.gpu_layers,
        "main_gpu": main_gpu,
        "tensor_split": wishes.tensor_split,
        "sequences": found.documents,
        "cells": cells,
        "micro_batch": wishes.micro_batch,
        "threads": found.threads,
        "kv_type": wishes.kv_type,
        "flash_attention": found.flash_attention,
    }
    command = [sys.executable, "-m", __name__, json.dumps(arguments)]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"it did nothing for {_TIMEOUT} seconds"
    if child.returncode == 0:
        return None
    said = child.stderr.strip().splitlines()
    return said[-1] if said else f"exit code {child.returncode}"


def _work(
    path: str,
    layers: int,
    main_gpu: int | None,
    tensor_split: list[float] | None,
    sequences: int,
    cells: int,
    micro_batch: int,
    threads: int,
    kv_type: str,
    flash_attention: bool | None,
) -> None:
    from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model

    model = Model(Path(path), layers, main_gpu, tensor_split, repack=False)
    context = Context(
        model, sequences, cells, micro_batch + 8 * sequences, micro_batch, threads, kv_type,
        flash_attention,
    )  # fmt: skip
    rows = min(micro_batch, cells)
    if code := context.decode(Batch([0] * rows, list(range(rows)), [0] * rows, [0] * rows)):
        raise ModelError(f"llama_decode returned {code}")


if __name__ == "__main__":
    _work(**json.loads(sys.argv[1]))
