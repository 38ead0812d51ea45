"""What families share that ask about each document alone and answer with a label."""

from __future__ import annotations

import copy
from collections.abc import Callable

from erank_lite.families.base import Pointwise, Thinking
from erank_lite.families.labels import LabelGuide, LabelGuides, LabelReading
from erank_lite.machine.shapes import MAX_NEW_TOKENS
from erank_lite.models.text import ModelText
from erank_lite.types import Prompt


class Labelled(Pointwise):
    """Asks for a label; a family adds its prompts. See `erank_lite.families.base.Pointwise`."""

    def __init__(
        self,
        text: ModelText,
        context_length: int,
        thinking: Thinking,
        reading: LabelReading,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        """Take a model.

        Args:
            text: the model's.
            context_length: tokens that prompt and completion may have together.
            thinking: the mode.
            reading: how its labels are reached.
            max_new_tokens: the published limit.
        """
        self.tokenizer = text.tokenizer
        # A short context keeps at least half of its room for the prompt.
        limit = min(max_new_tokens, context_length // 2)
        self._guides = LabelGuides(reading, thinking, limit)
        self.thinking, self.max_new_tokens = thinking, limit

    def guide(
        self, prompt: Prompt, stop: Callable[[], bool] = lambda: False, skip: bool = False
    ) -> LabelGuide:
        """Return a fresh guide for the completion of a prompt."""
        return self._guides.guide(prompt, stop, skip)

    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment."""
        return self._guides.max_tokens()

    def reading_in(self, thinking: Thinking) -> LabelReading:
        """Return how labels are reached in a mode of thinking."""
        return self._guides.reading

    def with_thinking(self, thinking: Thinking) -> Labelled:
        """Return the same in another mode of thinking."""
        other = copy.copy(self)
        other.thinking = thinking
        other._guides = LabelGuides(self.reading_in(thinking), thinking, self.max_new_tokens)
        return other
