"""An engine without a model: it writes what a script says. For tests, and for trying things out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from erank_lite.engines.base import Engine
from erank_lite.errors import ModelError
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, Prompt, Request

Script = Callable[[Prompt, Sequence[int]], Sequence[tuple[int, float]]]
"""(prompt, ids written so far) → the most probable next tokens with their probabilities."""


class FakeEngine(Engine):
    """Runs a script instead of a model, through the same door as every engine."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        script: Script,
        chat_template: str,
        end_ids: Iterable[int] = (),
        context_length: int = 8192,
        max_new_tokens: int | None = None,
    ) -> None:
        """Take the script; see `Script`. The first token that it names is the one written."""
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.end_ids = frozenset(end_ids)
        self.context_length = context_length
        self.max_new_tokens = max_new_tokens
        self.tokens_generated = 0
        self.description = "fake"
        self.prompts: list[Prompt] = []
        self._script = script
        self._run: int | None = 0

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Complete one request after the other."""
        if self._run is None:
            raise ModelError("the engine is closed: make another one")
        self._run += 1
        run = self._run
        for request in requests:
            if self._run != run:
                raise ModelError("this run was given up when another one began")
            self.prompts.append(request.prompt)
            guide = request.guide()
            need = len(request.prompt.ids) + guide.max_tokens
            if need > self.context_length:
                reason = f"it needs {need} tokens, the context has {self.context_length}"
                yield Completion(request.key, guide, failure=reason)
                continue
            ids: list[int] = []
            step, count = guide.begin(), 0
            while not step.done:
                if step.drop:
                    del ids[-step.drop :]
                ids += step.force
                likely = dict(self._script(request.prompt, tuple(ids)))
                token = next(iter(likely))
                logprobs = None
                if step.logprobs_for is not None:
                    logprobs = {
                        i: math.log(likely.get(i, 1e-12)) for i in (token, *step.logprobs_for)
                    }
                ids.append(token)
                count += 1
                self.tokens_generated += 1
                step = guide.feed(token, logprobs)
            yield Completion(request.key, guide, count)

    def close(self) -> None:
        """Nothing is held; a run is refused from here on."""
        self._run = None
