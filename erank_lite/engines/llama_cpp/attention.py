"""Whether flash attention reads prompts faster on this CPU: tried once for a shape of heads, kept.

llama.cpp either multiplies matrices of all scores, or goes through keys and values in tiles. On
CPUs neither is always faster: tiles are where heads are small. So one layer of these heads, with
next to nothing around it, reads both ways, and the plan takes what came out.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.errors import ErankLiteError
from erank_lite.machine.hardware import Hardware, cpu_name
from erank_lite.machine.kept import keep, kept
from erank_lite.machine.shapes import ModelShape

_log = logging.getLogger(__name__)
_FILE = "attention.json"
_READ = 256  # tokens that are read, after as many others
_REPEATS = 3  # the fastest counts
_SMALL = 64  # of everything that is not attention
_HEAD_SIZES = (32, 64, 80, 96, 128, 256)
_MOST_SCORES = 1 << 29  # bytes that the trial may take for scores; beyond, nothing is tried


@dataclass(frozen=True)
class Attention:
    """Seconds in which one layer reads 256 tokens after 256 others.

    Attributes:
        scores: by matrices of all scores.
        tiles: by flash attention.
    """

    scores: float
    tiles: float

    @property
    def speedup(self) -> float:
        """How many times as fast tiles are."""
        return self.scores / self.tiles


def measured(shape: ModelShape, machine: Hardware, threads: int) -> Attention | None:
    """Return what attention takes for a model's heads, tried now where it was not before.

    Args:
        shape: of the model.
        machine: it is tried on this one only.
        threads: that compute.

    Returns:
        What was measured; None of another machine, or where the trial does not run.
    """
    if machine.llama is None or machine.cpu != cpu_name() or not shape.heads:
        return None
    kv_heads = max(1, shape.kv_width // max(1, shape.head_size))
    key = {
        "cpu": machine.cpu,
        "llama": machine.llama.version,
        "threads": threads,
        "heads": shape.heads,
        "kv_heads": kv_heads,
        "head_size": shape.head_size,
    }
    for entry in kept(_FILE):
        if entry["key"] == key and {"scores", "tiles"} <= entry.keys():
            return Attention(entry["scores"], entry["tiles"])
    # A file that is damaged, or no language model, may name any numbers, of which llama.cpp aborts.
    usual = shape.head_size in _HEAD_SIZES and not shape.heads % kv_heads
    if not usual or shape.heads * _READ * 2 * _READ * 4 > _MOST_SCORES:
        return None
    try:
        found = _tried(shape.heads, kv_heads, shape.head_size, threads)
    except (ErankLiteError, OSError) as error:
        _log.debug("attention was not tried: %s", error)
        return None
    keep(_FILE, key, lambda _: {"scores": found.scores, "tiles": found.tiles})
    return found


def _tried(heads: int, kv_heads: int, head_size: int, threads: int) -> Attention:
    # Loaded here: a plan that finds what is kept needs no library.
    from erank_lite.engines.llama_cpp.bindings import Model
    from erank_lite.testing.tiny_models import Shape, write_gguf

    layer = Shape(1, _SMALL, _SMALL, heads, kv_heads, head_size, 2 * _READ)
    with tempfile.TemporaryDirectory(prefix="erank-lite-") as folder:
        path = write_gguf(Path(folder) / "layer.gguf", _SMALL, shape=layer)
        model = Model(path, 0, None, None, repack=False)
        try:
            return Attention(*(_time(model, threads, flash) for flash in (False, True)))
        finally:
            model.close()


def _time(model: Any, threads: int, flash: bool) -> float:
    """Return seconds to read, one way."""
    from erank_lite.engines.llama_cpp.bindings import Batch, Context

    context = Context(model, 1, 2 * _READ, _READ, _READ, threads, "f16", flash_attention=flash)

    def read(start: int) -> float:
        context.remove(0, start)
        positions = list(range(start, start + _READ))
        begun = time.perf_counter()
        context.decode(Batch([0] * _READ, positions, [0] * _READ, [0] * _READ))
        return time.perf_counter() - begun

    try:
        read(0)
        return min(read(_READ) for _ in range(_REPEATS))
    finally:
        context.close()
