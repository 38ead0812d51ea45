"""K- and I-quants, by llama.cpp's own `llama_model_quantize`, in a child process.

An importance matrix goes to it as llama-quantize (`tools/quantize/quantize.cpp`) gives it, and so
do the keys under `quantize.imatrix.…`, which say what it was.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import gguf

from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.errors import ModelError
from erank_lite.util import worker

BUFFER = 256 << 20  # bytes of a tensor's rows that are in memory at once, at the most
_STEP = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_MAX_TEXT = 127  # bytes of a value that llama.cpp takes for the metadata


def planned_size(source: Path, quant_type: str, with_matrix: bool = False) -> int:
    """Return the bytes that the tensors of `source` will take as `quant_type`, up to 0.01 MiB more.

    Args:
        source: a GGUF file whose data need not be there yet, only its room.
        quant_type: a llama.cpp file type, such as "Q4_K_M".
        with_matrix: there will be an importance matrix, with which llama.cpp chooses other types
            for some tensors.

    Raises:
        ModelError: the type needs an importance matrix, or llama.cpp refuses.
    """
    arguments = {
        "source": str(source),
        "out": None,
        "quant_type": quant_type,
        "with_matrix": with_matrix,
    }
    size: float | None = worker.call(__name__, arguments)
    if size is None:
        raise ModelError(f"llama.cpp does not say how large `{source}` would be as {quant_type}")
    return math.ceil(size * (1 << 20))


def quantize(
    source: Path, out: Path, quant_type: str, threads: int, matrix: Path | None = None
) -> Generator[str]:
    """Write `source` as `quant_type` to `out`; yield the name of each tensor when its turn comes.

    Closing the iterator stops the work.

    Args:
        source: a GGUF file in 16 or 32 bits.
        out: the file to make.
        quant_type: a llama.cpp file type, such as "Q4_K_M".
        threads: CPU threads.
        matrix: the file of an importance matrix of the model, or None.

    Raises:
        ModelError: llama.cpp refuses, fails or crashes.
    """
    arguments = {
        "source": str(source), "out": str(out), "quant_type": quant_type, "threads": threads,
        "matrix": str(matrix) if matrix else None, "with_matrix": matrix is not None,
    }  # fmt: skip
    for message in worker.run(__name__, arguments):
        yield message["tensor"]


def _work(
    send: worker.Send,
    source: str,
    out: str | None,
    quant_type: str,
    with_matrix: bool,
    threads: int = 1,
    matrix: str | None = None,
) -> float | None:
    """Quantize; return the MiB that all tensors take, as llama.cpp says it."""
    import llama_cpp.llama_cpp as lib

    errors: list[str] = []
    needs_matrix, size = False, None

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def listen(level: int, text: bytes, _: Any) -> None:
        nonlocal needs_matrix, size
        line = text.decode("utf-8", "replace")
        if step := _STEP.match(line):
            send({"tensor": step[1]})
        elif total := _SIZE.search(line):
            size = float(total[1]) + 0.01
        needs_matrix |= "require an imatrix" in line or "importance matrix" in line
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            errors.append(line.strip())

    lib.llama_log_set(listen, None)
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = gguf.LlamaFileType[f"MOSTLY_{quant_type}"]
    params.nthread = threads
    params.max_buf_size = BUFFER
    params.dry_run = out is None
    if with_matrix:
        found = ImportanceMatrix.read(Path(matrix)) if matrix else None
        # An array that ends at once is enough for a plan.
        params.imatrix = _entries(lib, found)
        if matrix and found:
            params.kv_overrides = _metadata(lib, Path(matrix).name, found)
    code = lib.llama_model_quantize(source.encode(), (out or "").encode(), params)
    if needs_matrix and not with_matrix:
        raise ModelError(
            f"{quant_type} needs an importance matrix (how much each weight matters), without "
            "which its result would be garbage",
            "make the file by erank-lite convert gguf with --imatrix auto, or choose IQ4_XS, "
            "IQ3_S, Q3_K_M or Q2_K",
        )
    if code:
        raise ModelError(f"llama.cpp cannot quantize it: {'; '.join(filter(None, errors))}")
    return size


def _entries(lib: Any, matrix: ImportanceMatrix | None) -> Any:
    names = sorted(matrix.sums) if matrix else []
    entries = (lib.llama_model_imatrix_data * (len(names) + 1))()  # the last one is the end
    for entry, name in zip(entries, names, strict=False):
        assert matrix is not None
        values = matrix.weights(name)
        entry.name, entry.size = name.encode(), values.size
        entry.data = (ctypes.c_float * values.size).from_buffer(values.data)
    return entries


def _metadata(lib: Any, name: str, matrix: ImportanceMatrix) -> Any:
    """Return what the file's metadata say of the matrix, in the keys of llama-quantize."""
    entries: list[tuple[str, str | int]] = [("file", name)]
    entries += [("dataset", d) for d in matrix.datasets[:1]]
    entries.append(("entries_count", len(matrix.sums)))
    entries += [("chunks_count", matrix.chunks)] if matrix.chunks > 0 else []
    overrides = (lib.llama_model_kv_override * (len(entries) + 1))()
    for override, (key, value) in zip(overrides, entries, strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            cut = value.encode("utf-8", "replace")[:_MAX_TEXT].decode("utf-8", "ignore")
            override.tag, override.value.val_str = lib.LLAMA_KV_OVERRIDE_TYPE_STR, cut.encode()
    return overrides


if __name__ == "__main__":
    worker.serve(_work)
