"""The GPTQ engine: checkpoints in AutoGPTQ's format (v1), computed by GPTQModel's kernels.

GPTQModel chooses the kernel by the device (Marlin on NVIDIA GPUs from sm_75 on, an int4 kernel of
PyTorch's on processors); which one it was stands in `ran`.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from erank_lite.convert.architectures import Architecture
from erank_lite.engines.torch.engine import TorchEngine
from erank_lite.errors import ModelError
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.models.safetensors import DTYPES, read_header, stored_tensors


class GPTQEngine(TorchEngine):
    """Runs a GPTQ checkpoint's folder; its options are those of `TorchEngine`."""

    def _load(self, folder: CheckpointFolder, device: torch.device) -> Any:
        folder.check_gptq()
        _check_tensors(folder)
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # fewer cores than that are an error
        try:
            from gptqmodel import BACKEND, GPTQModel
        except ImportError as error:
            raise ModelError(
                f"the gptq engine needs GPTQModel ({error}): pip install 'erank-lite[gptq]'"
            ) from None
        aten = device.type == "cpu" and folder.quantization["bits"] == 4
        backend = BACKEND.GPTQ_TORCH_ATEN if aten else BACKEND.AUTO
        try:
            loaded = GPTQModel.load(str(folder.path), device=str(device), backend=backend)
        # Whatever a damaged checkpoint makes of it; its message is the reason.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(f"{folder.path} cannot be loaded as GPTQ: {reason}") from None
        return loaded.model

    def _computes(self, model: Any) -> str:
        kernels = sorted({type(m).__name__ for m in model.modules() if hasattr(m, "QUANT_TYPE")})
        if not kernels:
            raise ModelError("the checkpoint calls itself GPTQ, but no layer of it is quantized")
        return f"gptq by {', '.join(kernels)}"


def _check_tensors(folder: CheckpointFolder) -> None:
    """Check that all weights are there: GPTQModel would go on with random ones.

    Raises:
        ModelError: a file is missing or cut short, or lacks a tensor.
    """
    # AutoGPTQ itself named the file after bits and group size.
    old = sorted(folder.path.glob("gptq_model-*.safetensors"))
    dtypes = DTYPES | {"I32": 4}
    stored = read_header(old[0], dtypes) if old else stored_tensors(folder.path, dtypes)
    architecture = Architecture.of(folder.config, "lm_head.weight" in stored)
    for plan in architecture.tensors:
        names = [plan.source]
        if plan.source not in stored and plan.source.startswith("model.layers."):
            module = plan.source.removesuffix(".weight")
            if len(plan.shape) > 1:
                names = [f"{module}.{part}" for part in ("qweight", "qzeros", "scales")]
        for name in names:
            if name not in stored:
                raise ModelError(
                    f"{folder.path} lacks the tensor {name}, which config.json calls for: download "
                    "it again, or quantize it anew"
                )
        if plan.source in stored and stored[plan.source].shape != plan.shape:
            raise ModelError(
                f"{folder.path}: tensor {plan.source} has shape "
                f"{list(stored[plan.source].shape)}, config.json calls for {list(plan.shape)}"
            )
    layers = folder.config["num_hidden_layers"]
    more = [n for n in stored if n.startswith("model.layers.") and int(n.split(".")[2]) >= layers]
    if more:
        raise ModelError(
            f"{folder.path} holds {more[0]}, but config.json says {layers} layers: they are not of "
            "one checkpoint"
        )
