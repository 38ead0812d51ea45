"""K- and I-quants, by llama.cpp's own `llama_model_quantize`, in a child process.

An importance matrix goes to it as llama-quantize (`tools/quantize/quantize.cpp`) gives it, and so
do the words under `quantize.imatrix.…` that the file has of it.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import gguf

from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.errors import ModelError
from erank_lite.util import worker as child

BUFFER = 256 << 20  # the most bytes of a tensor's rows that are in memory at once
_STEP = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_LONGEST_TEXT = 127  # bytes of a value that llama.cpp takes for the metadata


def planned_size(source: Path, kind: str, weighed: bool = False) -> int:
    """Return the bytes that the tensors of `source` will take as `kind`, up to 0.01 MiB more.

    Args:
        source: a GGUF file whose data need not be there yet, only its room.
        kind: name of a llama.cpp file type, such as "Q4_K_M".
        weighed: there will be an importance matrix, with which llama.cpp chooses other types for
            some tensors.

    Raises:
        ModelError: the type needs an importance matrix, or llama.cpp refuses.
    """
    arguments = {"source": str(source), "out": None, "kind": kind, "weighed": weighed}
    sizes: list[float] = [m["size"] for m in child.run(__name__, arguments) if "size" in m]
    if not sizes:
        raise ModelError(f"llama.cpp does not say how large {source} would be as {kind}")
    return math.ceil(sizes[-1] * (1 << 20))


def quantize(
    source: Path, out: Path, kind: str, threads: int, matrix: Path | None = None
) -> Generator[str]:
    """Write `source` as `kind` to `out`; yield the name of each tensor when its turn comes.

    Closing the iterator stops the work.

    Args:
        source: a GGUF file in 16 or 32 bits.
        out: the file to make.
        kind: name of a llama.cpp file type, such as "Q4_K_M".
        threads: how many work.
        matrix: the file of an importance matrix of the model, or None.

    Raises:
        ModelError: llama.cpp refuses, fails or crashes.
    """
    arguments = {
        "source": str(source), "out": str(out), "kind": kind, "threads": threads,
        "matrix": str(matrix) if matrix else None, "weighed": matrix is not None,
    }  # fmt: skip
    for message in child.run(__name__, arguments):
        if "tensor" in message:
            yield message["tensor"]


def _work(
    send: Callable[[dict[str, Any]], None],
    source: str,
    out: str | None,
    kind: str,
    weighed: bool,
    threads: int = 1,
    matrix: str | None = None,
) -> None:
    import llama_cpp.llama_cpp as lib

    errors: list[str] = []
    needs_matrix = False

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def listen(level: int, text: bytes, _: Any) -> None:
        nonlocal needs_matrix
        line = text.decode("utf-8", "replace")
        if step := _STEP.match(line):
            send({"tensor": step[1]})
        elif size := _SIZE.search(line):
            send({"size": float(size[1]) + 0.01})
        needs_matrix |= "require an imatrix" in line or "importance matrix" in line
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            errors.append(line.strip())

    lib.llama_log_set(listen, None)
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = gguf.LlamaFileType[f"MOSTLY_{kind}"]
    params.nthread = threads
    params.max_buf_size = BUFFER
    params.dry_run = out is None
    if weighed:
        found = ImportanceMatrix.read(Path(matrix)) if matrix else None
        # An array that ends at once is enough for a plan.
        params.imatrix = _entries(lib, found)
        if matrix and found:
            params.kv_overrides = _told(lib, Path(matrix).name, found)
    code = lib.llama_model_quantize(source.encode(), (out or "").encode(), params)
    if needs_matrix and not weighed:
        raise ModelError(
            f"{kind} needs an importance matrix (how much each weight matters), without which its "
            "result would be garbage: make the file by erank-lite convert gguf with --imatrix "
            "auto, or choose IQ4_XS, IQ3_S, Q3_K_M or Q2_K"
        )
    if code:
        raise ModelError(f"llama.cpp cannot quantize it: {'; '.join(filter(None, errors))}")


def _entries(lib: Any, matrix: ImportanceMatrix | None) -> Any:
    names = sorted(matrix.sums) if matrix else []
    entries = (lib.llama_model_imatrix_data * (len(names) + 1))()  # the last one is the end
    for entry, name in zip(entries, names, strict=False):
        assert matrix is not None
        values = matrix.weights(name)
        entry.name, entry.size = name.encode(), values.size
        entry.data = (ctypes.c_float * values.size).from_buffer(values.data)
    return entries


def _told(lib: Any, name: str, matrix: ImportanceMatrix) -> Any:
    """Return what the file's metadata say of the matrix, the words of llama-quantize."""
    told: list[tuple[str, str | int]] = [("file", name)]
    told += [("dataset", d) for d in matrix.datasets[:1]]
    told.append(("entries_count", len(matrix.sums)))
    told += [("chunks_count", matrix.chunks)] if matrix.chunks > 0 else []
    overrides = (lib.llama_model_kv_override * (len(told) + 1))()
    for override, (key, value) in zip(overrides, told, strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            cut = value.encode("utf-8", "replace")[:_LONGEST_TEXT].decode("utf-8", "ignore")
            override.tag, override.value.val_str = lib.LLAMA_KV_OVERRIDE_TYPE_STR, cut.encode()
    return overrides


if __name__ == "__main__":
    child.serve(_work)
