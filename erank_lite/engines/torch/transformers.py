"""The reference engine: the published checkpoint in BF16 (or float32), computed by Transformers."""

from __future__ import annotations

from typing import Any

import torch

from erank_lite.engines.torch.engine import TorchEngine
from erank_lite.engines.torch.options import TransformersOptions
from erank_lite.errors import ModelError
from erank_lite.models.architecture import match
from erank_lite.models.checkpoint import Checkpoint

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class TransformersEngine(TorchEngine):
    """Runs a checkpoint folder with Transformers: what all other engines are compared with."""

    def _load(self, folder: Checkpoint, device: torch.device) -> Any:
        from transformers import AutoModelForCausalLM

        if folder.quantization:
            method = folder.quantization.get("quant_method")
            raise ModelError(
                f"`{folder.path}` is quantized ({method}), and the transformers engine is the "
                "reference for checkpoints that are not",
                "take --engine gptq" if method == "gptq" else None,
            )
        assert isinstance(self.plan.options, TransformersOptions)
        self._dtype = _DTYPES[self.plan.options.dtype]
        match(folder)  # tells what is missing, cut short or of another shape
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder.path, dtype=self._dtype, device_map=device, use_safetensors=True,
                local_files_only=True,
            )  # fmt: skip
        # Whatever a damaged checkpoint makes of it; its message is the reason.
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"`{folder.path}` cannot be loaded: {reason}") from None

    def _computes(self, model: Any) -> str:
        from transformers import __version__

        return f"transformers {__version__} in {str(self._dtype).removeprefix('torch.')}"
