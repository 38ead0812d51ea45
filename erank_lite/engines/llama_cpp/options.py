"""The llama.cpp engine's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erank_lite.engines.options import LocalOptions
from erank_lite.machine.shapes import KV_BYTES
from erank_lite.util.options import option


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions(LocalOptions):
    """What can be asked of llama.cpp, beside what every engine takes."""

    sequences: int | None = option(
        None, "documents decoded together", min=1, max=256
    )  # LLAMA_MAX_SEQ
    micro_batch: int | None = option(None, "prompt tokens computed at once", min=1, max=1 << 16)
    gpu_layers: int | None = option(
        None, "layers on the GPU, -1 for all; by default as many as fit", min=-1, max=1 << 16
    )
    main_gpu: int | None = option(
        None, "the GPU to use alone; by default layers are shared between all", min=0, max=1024
    )
    tensor_split: tuple[float, ...] | None = option(
        None, "share of each GPU, such as 3,1; by default by their memory", min=0, max=1e6
    )
    adapter: Path | None = option(
        None, "a LoRA adapter to add to the model, a GGUF file that `convert adapter` made"
    )
    kv_type: str = option("f16", "type of keys and values", choices=KV_BYTES)
    flash_attention: bool | None = option(
        None,
        "by default only to read prompts on a CPU, and llama.cpp's own choice on a GPU",
    )
