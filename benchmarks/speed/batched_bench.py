"""The practical ceiling: what llama-batched-bench, of llama.cpp, reads and decodes in such shapes.

It reads prompts of one length one after the other and then decodes them all together, each at full
width, with no scheduling, sampling or text around it: the same kernels with the least beside them.
That a reranker reads what is shared only once, and never waits between the two, is accounted for.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import asdict, dataclass

from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.benchmarks.speed.workload import Workload
from erank_lite.errors import ModelError

_PADDING = 256  # llama.cpp pads a sequence's cells to this


@dataclass(frozen=True)
class Bench:
    """Tokens per second."""

    reading: float
    decoding: float

    def rate(self, workload: Workload) -> float:
        """Return the documents per second of a workload that is read and decoded at these rates."""
        own = workload.own + workload.shared / workload.documents
        return 1 / (own / self.reading + workload.tokens / self.decoding)


def run(trial: Trial) -> Measurement:
    """Run llama-batched-bench on the shapes of the workload; `options`: its program."""
    workload = trial.workload
    cells = -(-workload.context_length // _PADDING) * _PADDING
    command = [trial.options["program"], "-m", trial.path, "-t", str(trial.threads)]
    command += ["-c", str(cells * workload.concurrent), "-b", "2048", "-ub", "512"]
    command += ["-npp", str(workload.shared + workload.own), "-ntg", str(workload.tokens)]
    command += ["-npl", str(workload.concurrent)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        raise ModelError(f"llama-batched-bench failed: {lines[-1][:200]}")
    return Measurement("llama-batched-bench", extra=asdict(parse(done.stdout)))


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
