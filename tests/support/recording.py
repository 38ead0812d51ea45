"""Prompts of random tokens, and a guide that keeps what an engine makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from erank_lite.engines.base import Engine
from erank_lite.testing.guides import CountingGuide
from erank_lite.types import Prompt, Request


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


def request(
    key: int, prompt: Prompt, count: int, guide: type[CountingGuide] = CountingGuide
) -> Request[CountingGuide]:
    """Return a request for `count` tokens, followed by a guide of that class."""
    return Request(key, prompt, lambda: guide(count), count + 1)


def run(
    engine: Engine, prompts: Sequence[Prompt], counts: Sequence[int]
) -> dict[int, CountingGuide]:
    """Return each prompt's guide, by its index."""
    requests = [
        request(i, prompt, count)
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    completions = list(engine.run(requests))
    assert sorted(c.key for c in completions) == list(range(len(prompts)))
    assert all(c.failure is None for c in completions)
    assert [c.tokens for c in completions] == [counts[c.key] for c in completions]
    return {c.key: c.guide for c in completions}


def same(a: CountingGuide, b: CountingGuide, noise: float) -> bool:
    """Whether two completions are equal up to noise, or part where two tokens are nearly tied."""
    for x, y, p, q in zip(a.tokens, b.tokens, a.logprobs, b.logprobs, strict=True):
        if x != y:
            return abs(p - q) <= noise
        assert abs(p - q) <= noise
    return True
