"""A plan that may be too large for a GPU is tried first in a child process, which may die.

CUDA's failures inside llama.cpp abort the process, so that nothing could be told any more.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.plan import lowered
from erank_lite.errors import ModelError
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelShape
from erank_lite.util import worker

_log = logging.getLogger(__name__)
_TIMEOUT = 600


def tried(path: Path, shape: ModelShape, machine: Hardware, plan: Plan) -> Plan:
    """Return the plan for a GGUF file, lowered once where its dry run fails.

    Args:
        path: of the file.
        shape: of the model.
        machine: its GPUs are those that llama.cpp can use.
        plan: what is to run.

    Raises:
        ModelError: the layers that were asked for do not run.
    """
    assert isinstance(plan.options, LlamaCppOptions)
    context_length = plan.context_length or shape.context_length
    why = failure(path, plan, replace(shape, context_length=context_length).document_cells)
    if why is None:
        return plan
    found = lowered(shape, machine, plan.options, plan, why)
    _log.warning(
        "llama.cpp failed with %d layers on the GPU in a dry run (%s): it gets less to do",
        plan.gpu_layers,
        why,
    )
    return replace(found, type=plan.type, alternatives=plan.alternatives)


def failure(path: Path, plan: Plan, cells: int) -> str | None:
    """Load the model as planned in a child process and decode; return how that failed, or None."""
    assert isinstance(plan.options, LlamaCppOptions)
    arguments = {
        "path": str(path),
        "layers": plan.gpu_layers,
        "main_gpu": plan.options.main_gpu,
        "tensor_split": plan.options.tensor_split,
        "sequences": plan.documents,
        "cells": cells,
        "micro_batch": plan.micro_batch,
        "threads": plan.threads,
        "kv_type": plan.options.kv_type,
        "flash_attention": plan.flash_attention,
    }
    try:
        worker.call(__name__, arguments, timeout=_TIMEOUT)
    except worker.WorkerError as error:
        return error.reason
    except ModelError as error:
        return error.message
    return None


def _work(
    send: worker.Send,
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
    worker.serve(_work)
