"""ERank (arXiv 2509.00520; model cards of Alibaba-NLP/ERank-4B, -14B and -32B)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

from erank_lite.families.base import Family, Pointwise, Thinking
from erank_lite.families.erank.prompt import PromptBuilder, instruction_text
from erank_lite.families.erank.score import ScoreGuide, ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.families.prompts import QueryPrompts
from erank_lite.models.text import ModelText
from erank_lite.types import Prompt


class ERank(Pointwise):
    """Asks for an integer from 0 to 10. See `erank_lite.families.base.Pointwise`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model.

        Args:
            text: the model's.
            context_length: tokens that prompt and completion may have together.
            thinking: the mode.

        Raises:
            ModelError: the chat template does not carry ERank's message.
        """
        self._prompts = PromptBuilder(text.tokenizer, text.chat_template)
        vocabulary = ScoreVocabulary(text.tokenizer, text.end_ids)
        self._guides = ScoreGuides(vocabulary, thinking, text.max_new_tokens, context_length)
        self.thinking, self.max_new_tokens = thinking, self._guides.max_new_tokens

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPrompts:
        """Return what makes the prompts of a query."""
        return self._prompts.query(query, instruction, truncate_length)

    def guide(
        self, prompt: Prompt, stop: Callable[[], bool] = lambda: False, skip: bool = False
    ) -> ScoreGuide:
        """Return a fresh guide for the completion of a prompt."""
        return self._guides.guide(prompt, stop, skip)

    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment."""
        return self._guides.max_tokens(think_prefix)

    def with_thinking(self, thinking: Thinking) -> ERank:
        """Return the same in another mode of thinking."""
        other = copy.copy(self)
        other.thinking, other._guides = thinking, self._guides.with_thinking(thinking)
        return other


FAMILY = Family(
    name="erank",
    models=("Alibaba-NLP/ERank-4B", "Alibaba-NLP/ERank-14B", "Alibaba-NLP/ERank-32B"),
    unit="a document",
    make=ERank,
    source="model cards; arXiv 2509.00520",
    licence="Apache-2.0",
    verified="prompt, token ids, score and truncation",
    instruction_text=instruction_text,
    pattern=re.compile(r"(?<![a-z])erank", re.IGNORECASE),
    best=10.0,
    on_a_scale=True,
    truncate_length=2048,
)
