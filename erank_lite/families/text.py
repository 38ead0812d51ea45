"""Answers that are text: they are written to their end, and read by a pattern afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from erank_lite.families.loops import CHECK_EVERY, loops
from erank_lite.families.reading import DAMAGED, Completed, is_nan
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Step

_ANSWER_LIMIT = 256  # tokens of an answer that was asked for from outside


@dataclass(frozen=True)
class TextReading:
    """How far a completion is written.

    Attributes:
        tokenizer: the model's.
        end_ids: every token that ends the model's turn.
        budget: tokens, after which it ends or the answer is asked for.
        until: the text that ends it; None where only the model's own end does.
        ask: the text that asks for the answer where the budget is spent; None where nothing is
            asked for.
        begins: the text that begins an answer: one that is under way then is given time to end.
    """

    tokenizer: Tokenizer
    end_ids: frozenset[int]
    budget: int
    until: str | None = None
    ask: str | None = None
    begins: str = "<answer>"

    def max_tokens(self) -> int:
        """Return the most ids that a completion can hold at any moment."""
        asked = len(self.tokenizer.encode_trusted(self.ask)) + _ANSWER_LIMIT if self.ask else 0
        return self.budget + asked + 1


class TextGuide:
    """Follows one completion to its end. See `erank_lite.types.Guide`.

    Attributes:
        forced: the answer was asked for from outside.
        failure: None, or why the completion cannot be used.
    """

    def __init__(self, reading: TextReading) -> None:
        """Prepare to follow a completion that is read so far."""
        self._reading = reading
        self._done = Completed(reading.tokenizer.pieces)
        self._left = reading.budget
        self._answers = False
        self.forced = False
        self.failure: str | None = None

    @property
    def text(self) -> str:
        """What was written."""
        return self._done.decoded()

    def begin(self) -> Step:
        """Return the first step."""
        return Step(max_tokens=self._left)

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take one generated token; see `erank_lite.types.Guide.feed`."""
        if is_nan(logprobs):
            self.failure = DAMAGED
            return Step(done=True)
        if token in self._reading.end_ids:
            return Step(done=True)
        self._done.append((token,))
        self._left -= 1
        until = self._reading.until
        if until is not None and until.encode() in self._done.text[-64:]:
            return Step(done=True)
        looping = self._left % CHECK_EVERY == 0 and loops(self._done.ids)
        if not looping and self._left > 0:
            return Step(max_tokens=self._left)
        if self._reading.ask is None or self._answers:
            return Step(done=True)
        self._answers, self._left = True, _ANSWER_LIMIT
        if not looping and self._reading.begins.encode() in self._done.text:
            return Step(max_tokens=self._left)
        self.forced = True
        asked = self._reading.tokenizer.encode_trusted(self._reading.ask)
        self._done.append(asked)
        return Step(0, asked, self._left)
