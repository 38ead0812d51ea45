"""K- and I-quants, by llama.cpp's own `llama_model_quantize`, in a child process."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import gguf

from erank_lite.convert import child
from erank_lite.errors import ModelError

BUFFER = 256 << 20  # the most bytes of a tensor's rows that are in memory at once
_STEP = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB")


def planned_size(source: Path, kind: str) -> int:
    """Return the bytes that the tensors of `source` will take as `kind`, up to 0.01 MiB more.

    Args:
        source: a GGUF file whose data need not be there yet, only its room.
        kind: name of a llama.cpp file type, such as "Q4_K_M".

    Raises:
        ModelError: the type needs an importance matrix, or llama.cpp refuses.
    """
    arguments = {"source": str(source), "out": None, "kind": kind}
    sizes: list[float] = [m["size"] for m in child.run(__name__, arguments) if "size" in m]
    if not sizes:
        raise ModelError(f"llama.cpp does not say how large {source} would be as {kind}")
    return math.ceil(sizes[-1] * (1 << 20))


def quantize(source: Path, out: Path, kind: str, threads: int) -> Generator[str]:
    """Write `source` as `kind` to `out`; yield the name of each tensor when its turn comes.

    Closing the iterator stops the work.

    Raises:
        ModelError: llama.cpp refuses, fails or crashes.
    """
    arguments = {"source": str(source), "out": str(out), "kind": kind, "threads": threads}
    for message in child.run(__name__, arguments):
        if "tensor" in message:
            yield message["tensor"]


def _work(
    send: Callable[[dict[str, Any]], None],
    source: str,
    out: str | None,
    kind: str,
    threads: int = 1,
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
    code = lib.llama_model_quantize(source.encode(), (out or "").encode(), params)
    if needs_matrix:
        raise ModelError(
            f"{kind} needs an importance matrix (how much each weight matters), without which its "
            "result would be garbage: choose IQ4_XS, IQ3_S, Q3_K_M or Q2_K"
        )
    if code:
        raise ModelError(f"llama.cpp cannot quantize it: {'; '.join(filter(None, errors))}")


if __name__ == "__main__":
    child.serve(_work)
