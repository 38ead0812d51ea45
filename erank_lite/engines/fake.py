"""An engine without a model: it writes what a script says. For tests, and for trying things out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from erank_lite.engines.base import Engine
from erank_lite.engines.calls import Queue
from erank_lite.engines.calls import Sequence as Document
from erank_lite.machine.plan import Plan
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, Guide, Prompt

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
        text = ModelText(tokenizer, chat_template, frozenset(end_ids), max_new_tokens)
        super().__init__(Plan(engine="fake"), text, context_length)
        self.description = "fake"
        self.prompts: list[Prompt] = []
        self._script = script

    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        document = queue.take()
        if document is None:
            return []
        prompt, start = document.request.prompt, len(document.request.prompt.ids)
        self.prompts.append(prompt)
        done = document.apply(document.guide.begin())
        while not done:
            likely = dict(self._script(prompt, tuple(document.ids[start:])))
            token = next(iter(likely))
            wanted = document.step.logprobs_for
            logprobs = None
            if wanted is not None:
                logprobs = {i: math.log(likely.get(i, 1e-12)) for i in (token, *wanted)}
            document.ids.append(token)
            document.tokens_generated += 1
            self.tokens_generated += 1
            done = document.apply(document.guide.feed(token, logprobs))
        return [document.finished()]

    def _under_way(self) -> Iterable[Document]:
        return ()  # between two steps

    def _drop(self, sequence: Document) -> None:
        """Nothing is ever under way."""

    def _free(self) -> None:
        """Nothing is held."""
