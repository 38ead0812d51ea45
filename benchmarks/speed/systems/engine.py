"""This project's engines, as users get them: many documents together, what they share read once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.engines.base import Engine
from erank_lite.errors import ModelError
from erank_lite.load import load
from erank_lite.testing.guides import CountingGuide, counting_request
from erank_lite.types import Completion, Prompt, Request


def run(trial: Trial) -> Measurement:
    """Run our engine; `options` are the engine's name and its own."""
    options = dict(trial.options)
    name = options.pop("engine", "llama.cpp")
    options |= {"sequences": trial.workload.sequences, "threads": trial.threads}
    with load(trial.path, name, options) as engine:
        decoding: list[float] = []
        if name == "llama.cpp":
            _watch_decode(decoding)
        _warm_up(engine, trial)
        decoding.clear()
        marks, tokens, seconds = _timed(engine, trial)
        extra: dict[str, Any] = {"on_cpu": not engine.plan.gpu_layers}
        if decoding:
            extra["outside_decode"] = 1 - sum(decoding) / seconds
        what = f"{engine.description}, {trial.workload.concurrent} documents together"
    return Measurement(what, marks[0], marks[-1], tokens, peak_memory(), extra)


def _timed(engine: Engine, trial: Trial) -> tuple[list[float], int, float]:
    """Return the seconds at which each document was finished, the tokens, and the whole time."""
    work = trial.workload
    requests = [
        counting_request(i, Prompt(ids, work.shared), work.tokens, logprobs=False)
        for i, ids in enumerate(trial.prompts())
    ]
    marks, tokens = [], 0
    start = time.perf_counter()
    for completion in _completed(engine, requests):
        marks.append(time.perf_counter() - start)
        tokens += completion.tokens
    return marks, tokens, time.perf_counter() - start


def _warm_up(engine: Engine, trial: Trial) -> None:
    """Run short documents that leave the engine as an earlier query of this size would have."""
    requests = []
    for i, ids in enumerate(trial.warm_up(trial.workload.concurrent)):
        room = trial.workload.context_length - len(ids)
        prompt = Prompt(ids, 0)
        requests.append(counting_request(i, prompt, 1, logprobs=False, max_tokens=room))
    for _ in _completed(engine, requests):
        pass


def _completed(
    engine: Engine, requests: Iterable[Request[CountingGuide]]
) -> Iterator[Completion[CountingGuide]]:
    for completion in engine.run(requests):
        if completion.failure:
            raise ModelError(f"a document failed: {completion.failure}")
        yield completion


def _watch_decode(seconds: list[float]) -> None:
    """Time every call of llama_decode from now on, on the thread that makes it."""
    from erank_lite.engines.llama_cpp.bindings import Batch, Context

    decode = Context.decode

    def timed(self: Context, rows: Batch) -> int:
        start = time.perf_counter()
        code = decode(self, rows)
        seconds.append(time.perf_counter() - start)
        return code

    Context.decode = timed  # type: ignore[method-assign]
