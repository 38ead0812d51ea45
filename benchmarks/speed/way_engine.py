"""This project's engines, as users get them: many documents together, what they share read once."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from erank_lite.benchmarks.speed.job import Job, Outcome
from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.engines.base import Engine
from erank_lite.errors import ModelError
from erank_lite.load import load
from erank_lite.types import Prompt, Request, Step


class CountingGuide:
    """Lets exactly `tokens` be generated; asks for no probability."""

    def __init__(self, tokens: int, capacity: int | None = None) -> None:
        self.max_tokens = tokens + 1 if capacity is None else capacity
        self._left = tokens

    def begin(self) -> Step:
        return Step(max_tokens=self._left)

    def feed(self, token: int, logprobs: object) -> Step:
        self._left -= 1
        return Step(max_tokens=max(1, self._left), done=self._left == 0)


def run(job: Job) -> Outcome:
    """Run our engine; `options` are the engine's name and its own."""
    options = dict(job.options)
    name = options.pop("engine", "llama.cpp")
    options |= {"sequences": job.work.sequences, "threads": job.threads}
    with load(job.path, name, options) as engine:
        inside: list[float] = []
        if name == "llama.cpp":
            _watch_decode(inside)
        _warm_up(engine, job)
        inside.clear()
        marks, tokens, took = _timed(engine, job)
        beside: dict[str, Any] = {"on_processor": engine.description.endswith(("processor", "cpu"))}
        if inside:
            beside["outside_decode"] = 1 - sum(inside) / took
        flash = ", flash attention" if options.get("flash_attention") else ""
        what = f"{engine.description}{flash}, {job.work.together} documents together"
    return Outcome(what, marks[0], marks[-1], tokens, peak_memory(), beside)


def _timed(engine: Engine, job: Job) -> tuple[list[float], int, float]:
    """Return the seconds at which each document was finished, the tokens, and the whole time."""
    requests = [
        Request(i, Prompt(ids, job.work.shared), lambda: CountingGuide(job.work.tokens))
        for i, ids in enumerate(job.prompts())
    ]
    marks, tokens = [], 0
    start = time.perf_counter()
    for completion in engine.run(requests):
        marks.append(time.perf_counter() - start)
        if completion.failure:
            raise ModelError(f"a document failed: {completion.failure}")
        tokens += completion.tokens
    return marks, tokens, time.perf_counter() - start


def _warm_up(engine: Engine, job: Job) -> None:
    """Run short documents that leave the engine as an earlier query of this size would have."""
    requests = []
    for i, ids in enumerate(job.warm_up(job.work.together)):
        room = job.work.cells - len(ids)
        requests.append(Request(i, Prompt(ids, 0), partial(CountingGuide, 1, room)))
    for completion in engine.run(requests):
        if completion.failure:
            raise ModelError(f"a document failed: {completion.failure}")


def _watch_decode(inside: list[float]) -> None:
    """Time every call of llama_decode from now on, on the thread that makes it."""
    from erank_lite.engines.llama_cpp.bindings import Context

    decode = Context._decode

    def timed(self: Context) -> int:
        start = time.perf_counter()
        code = decode(self)
        inside.append(time.perf_counter() - start)
        return code

    Context._decode = timed  # type: ignore[method-assign]
