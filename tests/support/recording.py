"""Prompts of random tokens, and a guide that keeps what an engine makes of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from erank_lite.engines.base import Engine
from erank_lite.types import Prompt, Request, Step


class Recorder:
    """Generates `count` tokens and keeps them with their log-probabilities."""

    def __init__(self, count: int) -> None:
        self.max_tokens = count + 1
        self.count = count
        self.tokens: list[int] = []
        self.logprobs: list[float] = []

    def begin(self) -> Step:
        return Step(max_tokens=self.count, logprobs_for=())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        assert logprobs is not None
        self.tokens.append(token)
        self.logprobs.append(logprobs[token])
        left = self.count - len(self.tokens)
        return Step(max_tokens=max(1, left), logprobs_for=(), done=not left)


def random_prompts(count: int, seed: int, queries: int = 5) -> list[Prompt]:
    """Return prompts of random lengths: each query's share a beginning."""
    draw = random.Random(seed)
    prompts: list[Prompt] = []
    while len(prompts) < count:
        shared = tuple(draw.choices(range(256), k=draw.randint(0, 60)))
        for _ in range(min(-(-count // queries), count - len(prompts))):
            own = draw.choices(range(256), k=draw.randint(1, 120))
            prompts.append(Prompt((*shared, *own), len(shared)))
    return prompts


def run(engine: Engine, prompts: Sequence[Prompt], counts: Sequence[int]) -> dict[int, Recorder]:
    """Return each prompt's recorder, by its place."""
    requests = [
        Request(i, prompt, lambda c=count: Recorder(c))  # type: ignore[misc]
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    completions = list(engine.run(requests))
    assert sorted(c.key for c in completions) == list(range(len(prompts)))
    assert all(c.failure is None for c in completions)
    assert [c.tokens for c in completions] == [counts[c.key] for c in completions]
    return {c.key: c.guide for c in completions}  # type: ignore[misc]


def same(a: Recorder, b: Recorder, noise: float) -> bool:
    """Whether two completions are equal up to noise, or part where two tokens are nearly tied."""
    for x, y, p, q in zip(a.tokens, b.tokens, a.logprobs, b.logprobs, strict=True):
        if x != y:
            return abs(p - q) <= noise
        assert abs(p - q) <= noise
    return True
