"""The GPTQ engine: checkpoints in AutoGPTQ's format (v1), computed by GPTQModel's kernels.

GPTQModel chooses the kernel by the device (Marlin on NVIDIA GPUs from sm_75 on, an int4 kernel of
PyTorch's on processors); which one it was stands in `ran`.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from erank_lite.checkpoint import CheckpointFolder
from erank_lite.convert.checkpoint import DTYPES, stored_tensors
from erank_lite.engines._torch import TorchEngine
from erank_lite.errors import ModelError

_BITS = (4, 8)
_FORMATS = ("gptq", "", None)  # AutoGPTQ itself names none


class GPTQEngine(TorchEngine):
    """Runs a GPTQ checkpoint's folder; its options are those of `TorchEngine`."""

    def _load(self, folder: CheckpointFolder, device: torch.device) -> Any:
        check_quantization(folder)
        # AutoGPTQ itself named the file after bits and group size.
        if not list(folder.path.glob("gptq_model-*.safetensors")):
            stored_tensors(folder.path, DTYPES | {"I32": 4})
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
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"{folder.path} cannot be loaded as GPTQ: {reason}") from None
        return loaded.model

    def _computes(self, model: Any) -> str:
        kernels = sorted({type(m).__name__ for m in model.modules() if hasattr(m, "QUANT_TYPE")})
        if not kernels:
            raise ModelError("the checkpoint calls itself GPTQ, but no layer of it is quantized")
        return f"gptq by {', '.join(kernels)}"


def check_quantization(folder: CheckpointFolder) -> None:
    """Check that a checkpoint is GPTQ as AutoGPTQ wrote it.

    Raises:
        ModelError: it is something else.
    """
    how = folder.quantization
    method = how.get("quant_method")
    format_ = how.get("checkpoint_format", how.get("format"))
    if not how:
        raise ModelError(
            f"{folder.path} is not quantized: erank-lite convert gptq makes a GPTQ checkpoint of it"
        )
    if method != "gptq" or format_ in ("gemm", "gemv"):
        raise ModelError(
            f"{folder.path} is quantized with {method} ({format_}), not with GPTQ: serve it with a "
            "program that reads it (vLLM) and take the remote engine, or get a GPTQ checkpoint"
        )
    if format_ not in _FORMATS:
        raise ModelError(
            f"{folder.path} has the GPTQ format {format_!r}; the kernels here read 'gptq' "
            "(version 1): quantize the BF16 checkpoint by erank-lite convert gptq"
        )
    if how.get("bits") not in _BITS:
        raise ModelError(
            f"{folder.path} is GPTQ of {how.get('bits')!r} bits; the kernels here read 4 and 8"
        )
