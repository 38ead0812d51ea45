"""What a conversion takes in disk, memory and time, before it starts."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from erank_lite.convert.gguf.quantize import BUFFER
from erank_lite.convert.gguf.tensors import PIECE, converted, quantized
from erank_lite.models.safetensors import DTYPES, StoredTensor

_TRIAL = 64 << 20  # bytes that are read, converted and written to learn the machine's speed
_ROWS = (256, 2560)  # numbers that are quantized for the same purpose
# Memory, measured with benchmarks/convert: the tokenizer and Python, and a piece's copies on its
# way from the file to the type that is written.
_FIXED, _WORK = 500 << 20, 6


@dataclass(frozen=True)
class Estimate:
    """What a conversion takes.

    Attributes:
        size: bytes of the result.
        disk: bytes on the disk at the most, the result included.
        memory: bytes at the most, mapped file pages apart.
        seconds: by a trial on this machine.
    """

    size: int
    disk: int
    memory: int
    seconds: float


def estimate(
    largest: StoredTensor,
    weights: int,
    written: tuple[GGMLQuantizationType, int],
    quantized_to: tuple[GGMLQuantizationType, int] | None,
    trial: Path,
    threads: int,
) -> Estimate:
    """Convert a little, and return what the whole conversion takes.

    Args:
        largest: the checkpoint's largest tensor, a piece of which is converted.
        weights: how many the checkpoint has.
        written: main type and bytes of the file that is written from the checkpoint.
        quantized_to: the same of the file that llama.cpp makes of it, or None.
        trial: a file to write some bytes to, beside the result; it is removed.
        threads: CPU threads.

    Raises:
        ModelError: the piece holds numbers that cannot be converted.
        OSError: it cannot be read or written.
    """
    quant_type, size = written
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        taken, pieces = 0, []
        for length, piece in converted(largest, 0, quant_type, pool, ahead=threads + 1):
            taken += length
            pieces.append(piece)
            if taken >= _TRIAL:
                break
        each = (time.perf_counter() - start) / taken * DTYPES[largest.dtype]
    writing = _seconds_a_byte(trial, pieces)
    seconds = each * weights + writing * size
    disk, memory = size, _FIXED + (threads + 1) * _WORK * PIECE
    if quantized_to is not None:
        quant_type, size = quantized_to
        rows = np.random.default_rng(0).standard_normal(_ROWS, np.float32)
        start = time.perf_counter()
        quantized(rows, quant_type)
        seconds += (time.perf_counter() - start) / rows.size * weights / threads + writing * size
        disk, memory = disk + size, max(memory, _FIXED + BUFFER)
    seconds += writing * size  # the result is read once more when it is checked
    return Estimate(size, disk, memory, seconds)


def _seconds_a_byte(trial: Path, pieces: list[npt.NDArray[Any]]) -> float:
    start = time.perf_counter()
    try:
        with trial.open("wb") as file:
            for piece in pieces:
                file.write(piece.data.cast("B"))
            file.flush()
            os.fsync(file.fileno())
    finally:
        trial.unlink(missing_ok=True)
    return (time.perf_counter() - start) / sum(piece.nbytes for piece in pieces)
