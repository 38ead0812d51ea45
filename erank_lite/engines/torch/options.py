"""The options of the engines that run on torch: transformers and gptq."""

from __future__ import annotations

from dataclasses import dataclass

from erank_lite.engines.options import LocalOptions
from erank_lite.util.options import option


@dataclass(frozen=True, kw_only=True)
class TorchOptions(LocalOptions):
    """What can be asked of gptq, and of transformers too."""

    sequences: int | None = option(None, "documents decoded together", min=1, max=1024)
    device: str | None = option(
        None, "cpu, cuda, cuda:1 or mps; by default the first GPU that torch can use"
    )


@dataclass(frozen=True, kw_only=True)
class TransformersOptions(TorchOptions):
    """What can be asked of transformers."""

    dtype: str = option(
        "bfloat16",
        "of weights, keys, values and activations: bfloat16, as published, or float32",
        choices=("bfloat16", "float32"),
    )
