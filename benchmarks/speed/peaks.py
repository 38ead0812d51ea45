"""The machine's peaks, computing and reading memory: measured on the spot, with as many threads.

- `matmul_gflops`: a product of two float32 matrices by numpy's BLAS.
- `model_gflops`: llama.cpp reading one prompt of a micro-batch with this file: what its kernels for
  this type reach, whose integer instructions may be faster than float32's.
- `gigabytes_per_second`: each thread reads an array of its own over and over, all together much
  larger than the caches (an OR over 64-bit integers, which computes next to nothing).

The best of some repetitions counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.roofline import Costs
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.benchmarks.speed.workload import Workload
from erank_lite.errors import ModelError
from erank_lite.machine.hardware import memory
from erank_lite.machine.plan import MICRO_BATCH
from erank_lite.models.gguf import GGUFFile

_MATRIX = 2048
_BYTES = 1 << 30
_REPEAT = 5
_ENOUGH = 5.0  # seconds after which nothing is repeated


def run(trial: Trial) -> Measurement:
    """Measure the rates; `trial.path` is the GGUF file."""
    extra = {
        "matmul_gflops": matmul(),
        "model_gflops": model(Path(trial.path), trial.threads, trial.ordinary[0]),
        "gigabytes_per_second": bandwidth(trial.threads),
    }
    return Measurement("rates of this machine", peak_memory=peak_memory(), extra=extra)


def best(act: Callable[[], object]) -> float:
    """Return the fewest seconds that `act` takes, of a few times."""
    fastest, begun = float("inf"), time.perf_counter()
    for _ in range(_REPEAT):
        start = time.perf_counter()
        act()
        fastest = min(fastest, time.perf_counter() - start)
        if time.perf_counter() - begun > _ENOUGH:
            break
    return fastest


def matmul(size: int = _MATRIX) -> float:
    """Return the GFLOPS of a product of float32 matrices; its threads are the BLAS's own."""
    draw = np.random.default_rng(0)
    a, b = (draw.random((size, size), np.float32) for _ in range(2))
    return 2 * size**3 / best(lambda: a @ b) / 1e9


def bandwidth(threads: int, size: int = _BYTES) -> float:
    """Return the gigabytes (1e9 bytes) per second that so many threads read together."""
    each = min(size, memory()[1] // 4) // threads // 8
    with ThreadPoolExecutor(threads) as pool:
        # Made by the threads that read: memory lies near the CPU that first touches it.
        parts = list(pool.map(lambda _: np.ones(each, np.int64), range(threads)))
        seconds = best(lambda: list(pool.map(np.bitwise_or.reduce, parts)))
    return each * 8 * threads / seconds / 1e9


def model(path: Path, threads: int, token: int) -> float:
    """Return the GFLOPS of llama.cpp, reading one prompt of a micro-batch on the CPU."""
    from erank_lite.engines.llama_cpp.amx import amx_is_broken
    from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model

    gguf = GGUFFile.read(path)
    count = min(MICRO_BATCH, int(gguf.hparam("context_length", 0)) or MICRO_BATCH)
    loaded = Model(path, 0, None, None, repack=not amx_is_broken())
    context = Context(loaded, 1, count, count, count, threads, "f16", False)
    rows = Batch([token] * count, list(range(count)), [0] * count, [0] * (count - 1) + [1])

    def read() -> None:
        context.remove(0)
        if code := context.decode(rows):
            raise ModelError(f"llama_decode returned {code} for a prompt of {count} tokens")

    seconds = best(read)
    context.close()
    loaded.close()
    workload = Workload(documents=1, shared=0, own=count, tokens=1, sequences=1)
    return Costs.from_gguf(gguf).reading(workload) / seconds / 1e9
