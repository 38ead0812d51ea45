"""Which way of attention is faster on this CPU: tried once for a shape of heads, and kept.

llama.cpp either multiplies matrices of all scores, or goes through keys and values in tiles (flash
attention). On CPUs neither is always faster: tiles read small heads faster, and write large ones
slower where many documents are decoded together. So one layer of these heads, with next to nothing
around it, reads and writes both ways; the plan says what came out.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.errors import ErankLiteError
from erank_lite.machine.hardware import Hardware, cpu_name
from erank_lite.machine.kept import keep, kept
from erank_lite.machine.shapes import ModelShape

_log = logging.getLogger(__name__)
_FILE = "attention.json"
_READ, _ROWS, _CELLS = 256, 8, 768  # tokens that are read, documents, and cells of each
_REPEATS = 3  # the fastest counts
_SMALL = 64  # of everything that is not attention
_HEAD_SIZES = (32, 64, 80, 96, 128, 256)
_MOST_SCORES = 1 << 29  # bytes that the trial may take for scores; beyond, nothing is tried


@dataclass(frozen=True)
class Attention:
    """Seconds of one layer's attention, each way.

    Attributes:
        read: (all scores, tiles): to read 256 tokens after 256.
        write: (all scores, tiles): to write one token of each of 8 documents after 512.
    """

    read: tuple[float, float]
    write: tuple[float, float]

    def speedup(self, prompt: float, answer: float) -> float:
        """Return how many times as fast tiles are, for documents of so many tokens."""
        plain, tiles = (
            read * prompt / _READ + write * answer / _ROWS
            for read, write in zip(self.read, self.write, strict=True)
        )
        return plain / tiles


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
        if entry["key"] == key and {"read", "write"} <= entry.keys():
            return Attention(tuple(entry["read"]), tuple(entry["write"]))
    # A file that is damaged, or no language model, may name any numbers, of which llama.cpp aborts.
    usual = shape.head_size in _HEAD_SIZES and not shape.heads % kv_heads
    if not usual or shape.heads * _READ * _CELLS * 4 > _MOST_SCORES:
        return None
    try:
        found = _tried(shape.heads, kv_heads, shape.head_size, threads)
    except (ErankLiteError, OSError) as error:
        _log.debug("attention was not tried: %s", error)
        return None
    keep(_FILE, key, lambda _: {"read": found.read, "write": found.write})
    return found


def _tried(heads: int, kv_heads: int, head_size: int, threads: int) -> Attention:
    # Loaded here: a plan that finds what is kept needs no library.
    from erank_lite.engines.llama_cpp.bindings import Model
    from erank_lite.testing.tiny_models import Shape, write_gguf

    layer = Shape(1, _SMALL, _SMALL, heads, kv_heads, head_size, 2 * _CELLS)
    with tempfile.TemporaryDirectory(prefix="erank-lite-") as folder:
        path = write_gguf(Path(folder) / "layer.gguf", _SMALL, shape=layer)
        model = Model(path, 0, None, None, repack=False)
        try:
            plain, tiles = (_time(model, threads, flash) for flash in (False, True))
        finally:
            model.close()
    return Attention((plain[0], tiles[0]), (plain[1], tiles[1]))


def _time(model: Any, threads: int, flash: bool) -> tuple[float, float]:
    """Return seconds to read, and to write, one way."""
    from erank_lite.engines.llama_cpp.bindings import Batch, Context

    context = Context(
        model, _ROWS, _CELLS, _READ + _ROWS, _READ, threads, kv_type="f16", flash_attention=flash
    )

    def read(start: int) -> None:
        context.remove(0, start)
        positions = list(range(start, start + _READ))
        context.decode(Batch([0] * _READ, positions, [0] * _READ, [0] * (_READ - 1) + [1]))

    def write(at: int) -> None:
        rows = list(range(_ROWS))
        context.decode(Batch([0] * _ROWS, [at] * _ROWS, rows, [1] * _ROWS))

    try:
        read(0)
        reading = _fastest(lambda _: read(_READ))
        state = context.save(0)
        for row in range(1, _ROWS):
            context.restore(row, state)
        write(2 * _READ)
        return reading, _fastest(lambda i: write(2 * _READ + 1 + i))
    finally:
        context.close()


def _fastest(run: Callable[[int], None]) -> float:
    times = []
    for i in range(_REPEATS):
        begun = time.perf_counter()
        run(i)
        times.append(time.perf_counter() - begun)
    return min(times)
