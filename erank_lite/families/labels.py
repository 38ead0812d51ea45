"""Answers that are one of a few labels: their probabilities at one place make the score.

| family         | the place               | labels            | rank score |
|----------------|-------------------------|-------------------|------------|
| Qwen3-Reranker | the first               | `no`, `yes`       | p(yes)     |
| JudgeRank      | the first               | `No`, `Yes`       | p(Yes)     |
| Rank1          | after `</think>`        | ` false`, ` true` | p(true)    |
| TFRank         | after `yes(` or `no(`   | `0` … `4`         | Σ i·p(i)   |

Probabilities are those of the labels among themselves: exp(l_i) / Σ exp(l_j).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from erank_lite.errors import ModelError
from erank_lite.families.base import Thinking
from erank_lite.families.loops import CHECK_EVERY, loops
from erank_lite.families.reading import DAMAGED, Completed, is_nan, without_tags
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Prompt, Score, Step

_OPEN, _CLOSE = b"<think>", b"</think>"
_FORM_LIMIT = 64  # tokens in which an answer in a form must have come


@dataclass(frozen=True)
class Labels:
    """Labels, by token id.

    Attributes:
        values: what each counts.
    """

    values: Mapping[int, int]

    @classmethod
    def read(cls, tokenizer: Tokenizer, values: Mapping[str, int]) -> Labels:
        """Find the labels' tokens.

        Args:
            tokenizer: the model's.
            values: what each label counts, by its text, the space before it included.

        Raises:
            ModelError: one of them is no single token.

        Example:
            >>> from erank_lite.models.text import ModelText
            >>> from erank_lite.models.checkpoint import BUNDLED_FOLDER
            >>> tokenizer = ModelText.read(BUNDLED_FOLDER).tokenizer
            >>> sorted(Labels.read(tokenizer, {"no": 0, "yes": 1}).values.values())
            [0, 1]
        """
        found = {}
        for text, value in values.items():
            ids = tokenizer.encode(text).ids
            if len(ids) != 1:
                raise ModelError(
                    f"this family answers with {text!r}, which is {len(ids)} tokens of this model",
                    "take the family that the model was trained for (--family)",
                )
            found[ids[0]] = value
        return cls(found)

    def score(self, logprobs: Mapping[int, float]) -> tuple[int, float, float]:
        """Return (the most probable label's value, its probability, the expected value)."""
        top = max(logprobs[i] for i in self.values)
        mass = {i: math.exp(logprobs[i] - top) for i in self.values}
        total = math.fsum(mass.values())
        best = max(self.values, key=lambda i: mass[i])
        expected = math.fsum(value * mass[i] for i, value in self.values.items()) / total
        return self.values[best], mass[best] / total, expected


@dataclass(frozen=True)
class LabelReading:
    """How the labels of a family are reached.

    Attributes:
        tokenizer: the model's.
        end_ids: every token that ends the model's turn.
        labels: what is read.
        reasons: the model reasons first, up to `</think>`; where it answers in a form, only if it
            opens its reasoning.
        marks: the text right before a label, one of these; none where it follows at once.
        cut_back: where the reasoning is ended from outside, it is cut after its last sentence.
    """

    tokenizer: Tokenizer
    end_ids: frozenset[int]
    labels: Labels
    reasons: bool = False
    marks: tuple[bytes, ...] = ()
    cut_back: bool = False


class LabelGuide:
    """Reads one completion up to its label. See `erank_lite.types.Guide`."""

    def __init__(
        self,
        reading: LabelReading,
        prompt: Prompt,
        thinking: Thinking = "full",
        max_new_tokens: int = 0,
        stop: Callable[[], bool] = lambda: False,
        skip: bool = False,
    ) -> None:
        """Prepare to read the completion of `prompt`.

        Args:
            reading: how the label is reached.
            prompt: what the model reads first.
            thinking: of a family that reasons: "full" (to the limit), a budget in tokens, or
                "none".
            max_new_tokens: the limit of "full".
            stop: asked at each token whether the reasoning is to end now.
            skip: nothing is to be written at all.
        """
        self._reading, self._thinking = reading, thinking
        self._think_prefix = prompt.think_prefix
        self._budget = thinking if isinstance(thinking, int) else max_new_tokens
        self._stop, self._skip = stop, skip
        self._done = Completed(reading.tokenizer.pieces)
        self._in_thought = reading.reasons
        self._answer = 0  # where it begins
        self._spent = 0
        self._form_spent = 0
        self._measures = False
        self._forced = False
        self._stopped: int | None = None
        self._failure: str | None = None
        self._read: tuple[int, float, float] | None = None

    @property
    def writes(self) -> bool:
        """Whether a token was generated."""
        return self._spent > 0 or self._form_spent > 0

    def begin(self) -> Step:
        """Return the first step."""
        if self._skip:
            self._stopped = 0
            return Step(done=True)
        if self._in_thought and self._thinking == "none":
            return self._close()
        return self._go_on()

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take one generated token; see `erank_lite.types.Guide.feed`."""
        if is_nan(logprobs):
            return self._fail(DAMAGED)
        if self._measures:
            assert logprobs is not None
            self._read = self._reading.labels.score(logprobs)
            # Only a label that the model would have written itself is its own answer.
            self._forced |= token not in self._reading.labels.values
            return Step(done=True)
        if token in self._reading.end_ids:
            return self._close(drop=1) if self._in_thought else self._no_label()
        self._done.append((token,))
        if self._in_thought and self._reading.marks and not self._opens_reasoning():
            self._in_thought = False
        if not self._in_thought:
            self._form_spent += 1
            return self._go_on() if self._form_spent < _FORM_LIMIT else self._no_label()
        self._spent += 1
        at = self._done.text.find(_CLOSE, max(0, len(self._done.text) - 64))
        if at >= 0:
            self._in_thought, self._answer = False, at + len(_CLOSE)
            if not self._reading.marks and len(self._done.text) > self._answer:
                return self._cut(self._answer, "")  # the token went on after it
            return self._go_on()
        if self._stop():
            self._stopped = self._spent
            return self._close()
        looping = self._spent % CHECK_EVERY == 0 and loops(self._done.ids)
        return self._close() if looping or self._spent >= self._budget else self._go_on()

    def score(self) -> Score:
        """Return what was read; see `erank_lite.families.base.ScoringGuide`."""
        text = self._done.decoded()
        value, probability, expected = self._read or (None, None, None)
        failure = self._failure
        if self._read is None and failure is None:
            failure = "no answer was reached"
        return Score(
            score=value,
            probability=probability,
            expected_score=expected,
            reasoning=without_tags(text) if self._reading.reasons else "",
            forced=self._forced,
            failure=failure,
            completion=text,
            stopped=self._stopped,
            value=expected,
        )

    def _opens_reasoning(self) -> bool:
        """Return whether what was written begins as a reasoning does, as far as it goes."""
        if self._think_prefix is not None:
            return True
        begun = bytes(self._done.text).lstrip()[: len(_OPEN)]
        return _OPEN.startswith(begun)

    def _go_on(self) -> Step:
        """Return the step for the next token: a label's, where its place is reached."""
        marks = self._reading.marks
        if not self._in_thought and bytes(self._done.text[self._answer :]).endswith(marks or b""):
            return self._measure()
        left = self._budget - self._spent if self._in_thought else _FORM_LIMIT - self._form_spent
        return Step(max_tokens=max(1, left))

    def _measure(self, drop: int = 0, force: tuple[int, ...] = ()) -> Step:
        self._measures = True
        return Step(drop, force, 1, tuple(self._reading.labels.values))

    def _close(self, drop: int = 0) -> Step:
        """End the reasoning from outside."""
        self._forced, self._in_thought = True, False
        text = bytes(self._done.text)
        length = len(text)
        if self._reading.cut_back and text:
            length = max(text.rfind(mark) for mark in (b".", b"!", b"?")) + 1
        then = "\n</think>" + "\n\n" * bool(self._reading.marks)
        return self._cut(length, then, drop)

    def _cut(self, length: int, then: str, drop: int = 0) -> Step:
        dropped, appended = self._done.cut(length, then, self._reading.tokenizer)
        self._answer = len(self._done.text)
        if self._reading.marks:
            return Step(drop + dropped, appended, _FORM_LIMIT)
        return self._measure(drop + dropped, appended)

    def _no_label(self) -> Step:
        marks = " or ".join(mark.decode() for mark in self._reading.marks)
        begins = bytes(self._done.text[self._answer :]).decode("utf-8", "replace").strip()[:40]
        return self._fail(f"the answer has no {marks}: it begins {begins!r}")

    def _fail(self, reason: str) -> Step:
        self._failure = reason
        return Step(done=True)


class LabelGuides:
    """Makes the guides of one model."""

    def __init__(self, reading: LabelReading, thinking: Thinking, max_new_tokens: int) -> None:
        """Take what all documents have in common.

        Args:
            reading: how labels are reached.
            thinking: the mode.
            max_new_tokens: the limit of "full".
        """
        self.reading, self.thinking, self.max_new_tokens = reading, thinking, max_new_tokens

    def guide(self, prompt: Prompt, stop: Callable[[], bool], skip: bool) -> LabelGuide:
        """Return a fresh guide; see `erank_lite.families.base.Pointwise.guide`."""
        return LabelGuide(self.reading, prompt, self.thinking, self.max_new_tokens, stop, skip)

    def max_tokens(self) -> int:
        """Return the most ids that a completion can hold at any moment."""
        form = _FORM_LIMIT if self.reading.marks else 0
        if not self.reading.reasons:
            return form + 1
        close = 16  # `</think>` in letters, and what a token that was cut through comes to
        if self.thinking == "none":
            return close + form + 1
        budget = self.thinking if isinstance(self.thinking, int) else self.max_new_tokens
        return budget + close + form + 1
