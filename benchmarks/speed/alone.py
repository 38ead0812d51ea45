"""A trial in a process of its own.

A process of its own has a peak of memory of its own, and cannot take down or slow what is measured
after it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from erank_lite.benchmarks.speed.systems import runner
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.benchmarks.speed.workload import Workload
from erank_lite.errors import ModelError
from erank_lite.util import worker

TIMEOUT = 3600.0
"""Seconds that one run of one system may take, loading included."""

# The thread pools of numpy and of what it calls are made when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_alone(trial: Trial, timeout: float = TIMEOUT) -> Measurement:
    """Run `trial` in a process of its own.

    Raises:
        ModelError: it could not be done, or generated another number of tokens than asked for.
    """
    found = worker.call(
        __name__,
        asdict(trial),
        trial.system,
        environment=dict.fromkeys(_THREADS, str(trial.threads)),
        timeout=timeout,
    )
    measured = Measurement(**found)
    wanted = trial.workload.total_tokens
    if measured.tokens not in (None, wanted):
        raise ModelError(f"{trial.system} generated {measured.tokens} tokens, not {wanted}")
    return measured


def _work(send: worker.Send, workload: dict[str, int], **arguments: Any) -> dict[str, Any]:
    trial = Trial(workload=Workload(**workload), **arguments)
    return asdict(runner(trial.system)(trial))


if __name__ == "__main__":
    worker.serve(_work)
