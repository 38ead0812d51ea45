"""The options that every engine has; each engine's own are in an `options.py` beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erank_lite.util.options import Options, option


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """What can be asked of any engine. None leaves a choice to the plan."""

    strict: bool = option(
        False,
        "one document at a time, so that no document's result depends on the others, to the "
        "last bit",
    )
    tokenizer: Path | None = option(
        None,
        "a tokenizer.json to use instead of the model's; for a server, the checkpoint's folder or "
        "the GGUF file that it serves",
    )
    sequences: int | None = option(None, "documents decoded together", min=1, max=4096)
    context_length: int | None = option(
        None, "tokens that one document's prompt and completion may have", min=256, max=1 << 24
    )


@dataclass(frozen=True, kw_only=True)
class LocalOptions(EngineOptions):
    """What can be asked of the engines that compute on this machine."""

    threads: int | None = option(
        None, "CPU threads; by default the physical cores that may be used", min=1, max=1024
    )
    memory: int | None = option(
        None, "bytes for keys and values; by default a share of what is free", min=1, max=1 << 50
    )
    micro_batch: int | None = option(None, "prompt tokens computed at once", min=1, max=1 << 20)
