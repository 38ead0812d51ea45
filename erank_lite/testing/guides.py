"""A guide for tests and benchmarks of engines: a fixed number of tokens, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from erank_lite.types import Prompt, Request, Step


class CountingGuide:
    """Has exactly `count` tokens generated, and keeps them. See `erank_lite.types.Guide`.

    Attributes:
        count: tokens to generate.
        tokens: ids generated so far.
        logprobs: the natural-log probability of each, where they were asked for.

    Example:
        >>> guide = CountingGuide(2)
        >>> guide.begin().max_tokens, guide.feed(7, {7: -0.5}).done, guide.feed(9, {9: -1.0}).done
        (2, False, True)
        >>> guide.tokens, guide.logprobs
        ([7, 9], [-0.5, -1.0])
    """

    def __init__(self, count: int, *, logprobs: bool = True) -> None:
        """Prepare to count.

        Args:
            count: tokens to generate, at least one.
            logprobs: ask for the probability of each token; without, none need be computed.
        """
        self.count = count
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self._logprobs_for = () if logprobs else None

    def begin(self) -> Step:
        """Return the first step."""
        return Step(max_tokens=self.count, logprobs_for=self._logprobs_for)

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Keep a token and its probability, and return the next step."""
        self.tokens.append(token)
        if self._logprobs_for is not None:
            assert logprobs is not None
            self.logprobs.append(logprobs[token])
        left = self.count - len(self.tokens)
        return Step(max_tokens=max(1, left), logprobs_for=self._logprobs_for, done=not left)


def counting_request(
    key: int, prompt: Prompt, count: int, *, logprobs: bool = True, max_tokens: int | None = None
) -> Request[CountingGuide]:
    """Return a request for `count` tokens.

    Args:
        key: of the request.
        prompt: what is read first.
        count: tokens to generate.
        logprobs: ask for their probabilities.
        max_tokens: what the engine is to reserve; None means what `count` takes.
    """
    guide = partial(CountingGuide, count, logprobs=logprobs)
    return Request(key, prompt, guide, count + 1 if max_tokens is None else max_tokens)
