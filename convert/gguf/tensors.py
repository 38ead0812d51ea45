"""The numbers of a checkpoint's tensors, read piece by piece and turned into a GGUF type.

llama.cpp's own conversions are used (`ggml_quantize_chunk`), a piece a thread, so that no more
than a few pieces are in memory, however large the tensor.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from erank_lite import ggml
from erank_lite.errors import ModelError
from erank_lite.models.lora import LoraPart
from erank_lite.models.safetensors import DTYPES, StoredTensor

PIECE = 1 << 20  # bytes of the source that are taken at once: few enough to stay in the cache
# What F16 rounds to infinity; Q8_0 keeps a scale in F16, the largest number of a block by 127.
_TOO_LARGE = {"F16": 65520.0, "Q8_0": 127 * 65520.0}
# Each type's integer view, and the bits of its exponent: all ones means infinite or not a number.
_BITS: dict[str, tuple[npt.DTypeLike, int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
}


def nbytes(shape: tuple[int, ...], quant_type: GGMLQuantizationType) -> int:
    """Return the bytes of a tensor of `shape` in `quant_type`."""
    block, size = GGML_QUANT_SIZES[quant_type]
    return int(np.prod(shape)) // block * size


def converted(
    tensor: StoredTensor,
    heads: int,
    quant_type: GGMLQuantizationType,
    pool: ThreadPoolExecutor,
    ahead: int,
    lora: LoraPart | None = None,
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield a tensor's data in `quant_type`, in order, with the bytes that each piece had before.

    Args:
        tensor: where it lies.
        heads: reorder the rows of so many heads (see `TensorSpec`), or 0.
        quant_type: the type to write.
        pool: where the work is done.
        ahead: how many pieces may be under way, which bounds the memory.
        lora: what is added to it first, in 32 bits and then rounded to the tensor's own type, as a
            merged checkpoint would have it.

    Raises:
        ModelError: a number is not finite, or too large for `quant_type`.
        OSError: the file cannot be read.
    """
    if quant_type.name == tensor.dtype:
        # A copy is bound by memory: handed to another thread, it would leave the cache on the way.
        for piece in _pieces(tensor, heads, lora):
            yield piece.nbytes, _convert(piece, tensor, quant_type)
        return
    waiting: deque[tuple[int, Future[npt.NDArray[Any]]]] = deque()
    for piece in _pieces(tensor, heads, lora):
        waiting.append((piece.nbytes, pool.submit(_convert, piece, tensor, quant_type)))
        if len(waiting) == ahead:
            size, done = waiting.popleft()
            yield size, done.result()
    while waiting:
        size, done = waiting.popleft()
        yield size, done.result()


def _pieces(tensor: StoredTensor, heads: int, lora: LoraPart | None) -> Iterator[npt.NDArray[Any]]:
    """Yield rows of the tensor as integers: [rows, row length]."""
    view, _ = _BITS[tensor.dtype]
    length = tensor.shape[-1]
    rows = tensor.size // DTYPES[tensor.dtype] // length
    step = max(1, PIECE // (length * DTYPES[tensor.dtype]))
    if heads:
        step = -(-step // (rows // heads)) * (rows // heads)  # whole heads
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.offset)
        for start in range(0, rows, step):
            piece = np.empty((min(step, rows - start), length), view)
            target = piece.data.cast("B")
            at = 0
            while at < len(target):
                read = file.readinto(target[at:])
                if not read:
                    raise ModelError(f"`{tensor.file}` became shorter while it was read")
                at += read
            if lora is not None:
                piece = _as_stored(lora.added(_floats(piece, tensor), start), tensor)
            if heads:
                head = rows // heads
                halves = piece.reshape(-1, 2, head // 2, length)
                piece = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1, length)
            yield piece


def _convert(
    piece: npt.NDArray[Any], tensor: StoredTensor, quant_type: GGMLQuantizationType
) -> npt.NDArray[Any]:
    _, exponent = _BITS[tensor.dtype]
    if (piece & piece.dtype.type(exponent)).max() == exponent:
        raise ModelError(
            f"`{tensor.file}` holds infinities or values that are not numbers: it is damaged",
            "download the checkpoint again",
        )
    if quant_type.name == tensor.dtype:
        return piece
    floats = _floats(piece, tensor)
    if quant_type is GGMLQuantizationType.F32:
        return floats
    if np.abs(floats).max() >= _TOO_LARGE.get(quant_type.name, math.inf):
        raise ModelError(
            f"`{tensor.file}` holds numbers that are too large for {quant_type.name}",
            "choose BF16",
        )
    return quantized(floats, quant_type)


def _floats(piece: npt.NDArray[Any], tensor: StoredTensor) -> npt.NDArray[np.float32]:
    """Return a tensor's numbers, which are held as integers."""
    if tensor.dtype == "BF16":
        return (piece.astype(np.uint32) << 16).view(np.float32)
    floats: npt.NDArray[np.float32] = piece.view(f"f{piece.itemsize}").astype(
        np.float32, copy=False
    )
    return floats


def _as_stored(floats: npt.NDArray[np.float32], tensor: StoredTensor) -> npt.NDArray[Any]:
    """Return numbers as `_pieces` yields them, rounded to nearest, ties to even."""
    if tensor.dtype == "BF16":
        bits = floats.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    view, _ = _BITS[tensor.dtype]
    return floats.astype(f"f{np.dtype(view).itemsize}").view(view)


def quantized(
    rows: npt.NDArray[np.float32], quant_type: GGMLQuantizationType
) -> npt.NDArray[np.uint8]:
    """Return `rows` [n, row length] in `quant_type`, by llama.cpp's own kernels."""
    out = np.empty(nbytes(rows.shape, quant_type), np.uint8)
    pointer = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    _quantize_chunk()(quant_type, pointer, out.ctypes.data, 0, *rows.shape, None)
    return out


@functools.cache
def _quantize_chunk() -> Any:
    """Return ggml_quantize_chunk(type, src, dst, start, rows, row length, importance matrix)."""
    size, floats, number = ctypes.c_size_t, ctypes.POINTER(ctypes.c_float), ctypes.c_int64
    return ggml.function(
        "ggml_quantize_chunk", size, ctypes.c_int, floats, ctypes.c_void_p, number, number, number,
        floats,
    )  # fmt: skip
