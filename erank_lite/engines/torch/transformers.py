"""The reference engine: the published checkpoint in BF16 (or float32), computed by Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from erank_lite.convert.source import open_source
from erank_lite.engines.torch.engine import TorchEngine
from erank_lite.errors import InputError, ModelError
from erank_lite.models.checkpoint import CheckpointFolder

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class TransformersEngine(TorchEngine):
    """Runs a checkpoint folder with Transformers: what all other engines are compared with."""

    def __init__(self, path: Path, *, dtype: str = "bfloat16", **options: Any) -> None:
        """Load a model.

        Args:
            path: of the checkpoint's folder.
            dtype: of weights, keys, values and activations: "bfloat16", as published, or
                "float32".
            options: see `TorchEngine`.

        Raises:
            ModelError: the checkpoint cannot be used.
            InputError: an option is out of its range.
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        self._dtype = DTYPES[dtype]
        super().__init__(path, **options)

    def _load(self, folder: CheckpointFolder, device: torch.device) -> Any:
        from transformers import AutoModelForCausalLM

        if folder.quantization:
            method = folder.quantization.get("quant_method")
            raise ModelError(
                f"{folder.path} is quantized ({method}): the transformers engine is the reference "
                "for checkpoints that are not" + "; take --engine gptq" * (method == "gptq")
            )
        open_source(folder.path)  # tells what is missing, cut short or of another shape
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder.path, dtype=self._dtype, device_map=device, use_safetensors=True,
                local_files_only=True,
            )  # fmt: skip
        # Whatever a damaged checkpoint makes of it; its message is the reason.
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{folder.path} cannot be loaded: {reason}") from None

    def _computes(self, model: Any) -> str:
        from transformers import __version__

        return f"transformers {__version__} in {str(self._dtype).removeprefix('torch.')}"
