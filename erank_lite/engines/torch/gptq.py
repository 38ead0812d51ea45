"""The GPTQ engine: checkpoints in AutoGPTQ's format (v1), computed by GPTQModel's kernels.

GPTQModel chooses the kernel by the device (Marlin on NVIDIA GPUs from sm_75 on, an int4 kernel of
PyTorch's on CPUs); the engine's `description` says which one.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from erank_lite.engines.torch.engine import TorchEngine
from erank_lite.errors import ModelError, missing_extra
from erank_lite.models.architecture import match
from erank_lite.models.checkpoint import Checkpoint


class GPTQEngine(TorchEngine):
    """Runs a GPTQ checkpoint's folder; its options are those of `TorchEngine`."""

    def _load(self, folder: Checkpoint, device: torch.device) -> Any:
        folder.check_gptq()
        match(folder)  # GPTQModel would go on with random weights for those that are missing
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # fewer cores than that are an error
        try:
            from gptqmodel import BACKEND, GPTQModel
        except ImportError as error:
            raise missing_extra("the gptq engine", f"GPTQModel ({error})", "gptq") from None
        aten = device.type == "cpu" and folder.quantization["bits"] == 4
        backend = BACKEND.GPTQ_TORCH_ATEN if aten else BACKEND.AUTO
        try:
            loaded = GPTQModel.load(str(folder.path), device=str(device), backend=backend)
        # Whatever a damaged checkpoint makes of it; its message is the reason.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(f"`{folder.path}` cannot be loaded as GPTQ: {reason}") from None
        return loaded.model

    def _computes(self, model: Any) -> str:
        kernels = sorted({type(m).__name__ for m in model.modules() if hasattr(m, "QUANT_TYPE")})
        if not kernels:
            raise ModelError("the checkpoint calls itself GPTQ, but no layer of it is quantized")
        return f"gptq by {', '.join(kernels)}"
