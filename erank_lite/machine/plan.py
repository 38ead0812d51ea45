"""A plan: which engine runs a model on this machine, as what, and with how much memory.

`erank_lite.engines.choose.plan` makes it from facts alone; the engine that gets it runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from erank_lite.util.options import Options

# Documents decoded together: on a CPU, more rows stop paying about here; a GPU has room for more
# before its memory is what limits.
MAX_SEQUENCES_CPU, MAX_SEQUENCES_GPU = 16, 64
CACHE_SHARE = 0.6
"""Of what is free, for keys and values: other programs go on, and want memory at times."""
MICRO_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model runs. Sizes in bytes; None where a number is not known, or not the engine's.

    Attributes:
        engine: its name.
        type: quantization type of the GGUF file, where a checkpoint is converted to one.
        options: what was asked for, as the engine's own options.
        sequences: the most documents decoded together.
        documents: of usual length, how many of these fit at once.
        context_length: the most tokens of one document's prompt and completion.
        micro_batch: prompt tokens computed at once.
        threads: CPU threads.
        gpu_layers: layers on the GPUs, the output counted as one and the first to go there; all
            are layers + 1.
        device: what computes: "cpu", the names of the GPUs, or torch's name ("cuda:0", "mps").
        flash_attention: use it; None leaves it to llama.cpp.
        flash_reading: use it to read prompts, and not to write.
        cache: bytes for the keys and values of all documents.
        gpu_memory: expected on the GPUs, with usual documents.
        memory: expected in the CPU's memory, the weights mapped from the file included.
        fits: whether the memory is there.
        tight: it takes most of what is free on the GPUs, of which an estimate is no proof.
        reasons: why, a line each.
        alternatives: what else there was, with the reason against it, a line each.
    """

    engine: str
    type: str | None = None
    options: Options = field(default_factory=Options)
    sequences: int | None = None
    documents: int | None = None
    context_length: int | None = None
    micro_batch: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    device: str | None = None
    flash_attention: bool | None = None
    flash_reading: bool | None = None
    cache: int | None = None
    gpu_memory: int | None = None
    memory: int | None = None
    fits: bool | None = None
    tight: bool = False
    reasons: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it can be run as it is; not where the model's shape was not known."""
        return self.fits is not None or self.engine == "remote"
