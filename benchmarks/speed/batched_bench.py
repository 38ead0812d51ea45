"""The practical ceiling: what llama-batched-bench, of llama.cpp, reads and decodes in such shapes.

It reads prompts of one length one after the other and then decodes them all together, each at full
width, with no scheduling, sampling or text around it: the same kernels with the least beside them.
That a reranker reads what is shared only once, and never waits between the two, is accounted for.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from erank_lite.benchmarks.speed.work import Work
from erank_lite.errors import ModelError

_STEP = 256  # llama.cpp pads a sequence's cells to this


@dataclass(frozen=True)
class Bench:
    """Tokens per second."""

    reading: float
    decoding: float

    def rate(self, work: Work) -> float:
        """Return the documents per second of a work that is read and decoded at these rates."""
        own = work.own + work.shared / work.documents
        return 1 / (own / self.reading + work.tokens / self.decoding)


def batched_bench(program: str, model: Path, work: Work, threads: int, timeout: float) -> Bench:
    """Run llama-batched-bench on the shapes of `work`.

    Raises:
        ModelError: it failed, or told nothing that can be read.
    """
    cells = -(-work.cells // _STEP) * _STEP
    command = [program, "-m", str(model), "-t", str(threads), "-c", str(cells * work.together)]
    command += ["-b", "2048", "-ub", "512", "-npp", str(work.shared + work.own)]
    command += ["-ntg", str(work.tokens), "-npl", str(work.together)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"llama-batched-bench was not done after {timeout:.0f} seconds") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        raise ModelError(f"llama-batched-bench failed: {lines[-1][:200]}")
    return parse(done.stdout)


def parse(text: str) -> Bench:
    """Return the rates in the table that llama-batched-bench prints.

    Raises:
        ModelError: there is no such table.
    """
    rows = [line for line in text.splitlines() if re.match(r"\|\s*\d", line)]
    try:
        values = [float(v) for v in rows[0].strip().strip("|").split("|")]
        return Bench(values[5], values[7])  # S_PP t/s, S_TG t/s
    except (IndexError, ValueError):
        raise ModelError("llama-batched-bench printed no table that can be read") from None
