"""The score core: steers a completion, decides what must be computed, and reads the answer.

`rank_score = s × Pr(s)`, with s the integer in `<answer>…</answer>` after the reasoning and Pr(s)
its probability under the full softmax (arXiv 2509.00520; model cards of the ERank models).

How answers are read (W is white space):

| generated                              | reading                                              |
|----------------------------------------|------------------------------------------------------|
| `<answer>7</answer>`, `W7W</answer>`   | 7; Pr(7) is that of the token that carries the digit |
| `10`                                   | 10; Pr(`1`)·Pr(`0`|`1`), or Pr(`10`) if one token    |
| `07`                                   | 7; the product over the tokens that carry digits     |
| `7` and then the model's end token     | 7                                                    |
| `0 7`, `7.5`, `11`, `-3`, `seven`, ``  | failure: not one integer from 0 to 10                |
| an answer inside the reasoning         | reasoning; what counts comes after `</think>`        |
| two answers                            | the first                                            |
| no answer, budget spent, runaway       | the reasoning is closed and the answer asked for     |
| an answer of more than 16 tokens       | failure: cut off                                     |

Where the answer was asked for from outside (a spent budget, or no thinking), a model that writes
something else is not a failure: the most probable number at that place is taken, under its own
probability, which says how little the model meant it, and the result is `forced`.
"""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from erank_lite.families.base import Thinking
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.families.loops import CHECK_EVERY, loops
from erank_lite.machine.shapes import MAX_NEW_TOKENS
from erank_lite.types import Prompt, Score, Step

_OPEN, _CLOSE = b"<think>", b"</think>"
_ANSWER = b"<answer>"
_ANSWER_TAILS = tuple(_ANSWER[:n] for n in range(1, len(_ANSWER)))
_ANSWER_LIMIT = 16
_NUMBER = re.compile(rb"\s*(\d+)\s*(|<|</.*)\Z", re.DOTALL)
_OUT_OF_RANGE = 11


@dataclass(slots=True)
class _Answer:
    """Where the answer stands: its first byte, and the id of its first that is not white space."""

    start: int
    first_id: int | None = None


class ScoreGuide:
    """Reads one completion token by token. See `erank_lite.types.Guide`."""

    def __init__(
        self,
        vocabulary: ScoreVocabulary,
        prompt: Prompt,
        thinking: Thinking = "full",
        max_new_tokens: int = MAX_NEW_TOKENS,
        stop: Callable[[], bool] = lambda: False,
        skip: bool = False,
    ) -> None:
        """Prepare to read the completion of `prompt`.

        Args:
            vocabulary: of the model's tokenizer.
            prompt: what the model reads first.
            thinking: "full" (to the limit), a budget in tokens, or "none".
            max_new_tokens: the limit of "full".
            stop: asked at each token whether the reasoning is to end now.
            skip: nothing is to be written at all.
        """
        self._vocabulary = vocabulary
        self._stop, self._skip = stop, skip
        self._stopped: int | None = None
        self._prompt = prompt
        self._thinking = thinking
        self._budget = thinking if isinstance(thinking, int) else max_new_tokens
        self._text = bytearray()
        self._ids: list[int] = []
        self._ends: list[int] = []
        self._logprobs: dict[int, Mapping[int, float]] = {}
        self._in_thought = prompt.think_prefix is not None
        self._thought_closed = False
        self._scanned = 0
        self._spent = 0
        self._answer: _Answer | None = None
        self._answer_spent = 0
        self._forced = False
        self._asked = False
        self._failure: str | None = None
        self._score: int | None = None
        self._probability: float | None = None
        self._second_zero: float | None = None
        self._probing = False

    @property
    def reasons(self) -> bool:
        """Whether the reasoning is under way, or has not begun."""
        return self._answer is None and not self._thought_closed

    @property
    def writes(self) -> bool:
        """Whether a token was generated."""
        return self._spent > 0 or self._answer_spent > 0

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the completion so far, forced ones included, without an end token."""
        return tuple(self._ids)

    def begin(self) -> Step:
        """Return the first step: generate, or force an empty reasoning."""
        if self._skip:
            self._stopped = 0
            return self._done()
        if self._thinking != "none":
            return self._go_on()
        ids = self._vocabulary.no_thinking(self._prompt.think_prefix)
        self._in_thought = False
        self._thought_closed = True
        return self._open_answer(ids)

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take one generated token; see `erank_lite.types.Guide.feed`."""
        if logprobs is not None and any(map(math.isnan, logprobs.values())):
            self._score = None
            self._failure = "the model computes no numbers (NaN): its file is damaged"
            return self._done()
        if self._probing:
            self._second_zero = self._zero_after_one(logprobs or {})
            return self._done()
        if logprobs is not None:
            self._logprobs[len(self._ids)] = logprobs
        if token in self._vocabulary.end_ids:
            return self._end_of_turn()
        self._append((token,))
        if self._answer is not None:
            self._answer_spent += 1
            return self._read_answer()
        self._spent += 1
        self._scan()
        if self._answer is not None:
            # The token that completed the marker counts where the answer began in it.
            self._answer_spent += len(self._text) > self._answer.start
            return self._read_answer()
        if self._stop():
            self._stopped = self._spent
            return self._force_answer(drop=0)
        looping = len(self._ids) % CHECK_EVERY == 0 and loops(self._ids)
        if self._spent >= self._budget or looping:
            return self._force_answer(drop=0)
        return self._go_on()

    def score(self) -> Score:
        """Return what was read. Call it once the guide said `done`, or after a failure."""
        text = bytes(self._text)
        end = len(text) if self._answer is None else self._answer.start
        reasoning = text[:end].removesuffix(_ANSWER).strip().removeprefix(_OPEN)
        reasoning = reasoning.removesuffix(_CLOSE).strip()
        failure = self._failure
        if self._score is None and failure is None:
            failure = "no answer was reached"
        return Score(
            score=self._score,
            probability=self._probability,
            expected_score=self._expected_score(),
            reasoning=reasoning.decode("utf-8", "replace"),
            forced=self._forced,
            failure=failure,
            completion=text.decode("utf-8", "replace"),
            stopped=self._stopped,
        )

    # Moving through the text

    def _append(self, ids: Iterable[int]) -> None:
        for i in ids:
            self._text += self._vocabulary.pieces[i] if i < len(self._vocabulary.pieces) else b""
            self._ids.append(i)
            self._ends.append(len(self._text))

    def _scan(self) -> None:
        """Follow the markers in the text that came since the last scan."""
        while self._answer is None:
            if self._in_thought:
                at = self._text.find(_CLOSE, self._scanned)
                if at < 0:
                    self._scanned = max(self._scanned, len(self._text) - len(_CLOSE) + 1)
                    return
                self._in_thought = False
                self._thought_closed = True
                self._scanned = at + len(_CLOSE)
                continue
            opened = self._text.find(_OPEN, self._scanned)
            asked = self._text.find(_ANSWER, self._scanned)
            if asked >= 0 and not 0 <= opened < asked:
                self._answer = _Answer(asked + len(_ANSWER))
            elif opened >= 0:
                self._in_thought = True
                self._scanned = opened + len(_OPEN)
            else:
                self._scanned = max(self._scanned, len(self._text) - len(_ANSWER) + 1)
                return

    def _go_on(self) -> Step:
        near = not self._in_thought and self._text.endswith(_ANSWER_TAILS)
        measure = self._vocabulary.candidates if self._answer or near else None
        left = _ANSWER_LIMIT - self._answer_spent if self._answer else self._budget - self._spent
        return Step(max_tokens=max(1, left), logprobs_for=measure)

    def _open_answer(self, ids: tuple[int, ...], drop: int = 0) -> Step:
        self._append(ids)
        self._asked = True
        self._answer = _Answer(len(self._text))
        return Step(drop, ids, _ANSWER_LIMIT, self._vocabulary.candidates)

    def _force_answer(self, drop: int) -> Step:
        self._forced = True
        closed = self._thought_closed and not self._in_thought
        self._in_thought = False
        self._thought_closed = True
        ids = self._vocabulary.ask if closed else self._vocabulary.close_and_ask
        return self._open_answer(ids, drop)

    def _end_of_turn(self) -> Step:
        """The model ended its turn: an answer that stands is read, a missing one is asked for."""
        if self._answer is None:
            return self._force_answer(drop=1)
        number = _NUMBER.match(self._text, self._answer.start)
        if number and int(number[1]) < _OUT_OF_RANGE:
            return self._accept(int(number[1]), ended=True)
        return self._fail("the answer is empty" if not number else self._not_an_integer())

    # Reading the answer

    def _read_answer(self) -> Step:
        assert self._answer is not None
        content = bytes(self._text[self._answer.start :])
        if content.strip() and self._answer.first_id is None:
            self._answer.first_id = len(self._ids) - 1
        number = _NUMBER.match(content)
        if content.strip() and (number is None or int(number[1]) >= _OUT_OF_RANGE):
            return self._fail(self._not_an_integer())
        if number is None:
            if self._answer_spent >= _ANSWER_LIMIT:
                return self._fail("the answer was cut off before a number")
            return self._go_on()
        if number[2].startswith(b"</"):
            return self._accept(int(number[1]))
        if self._answer_spent >= _ANSWER_LIMIT:
            return self._fail("the answer was cut off before it was closed")
        return self._go_on()

    def _accept(self, value: int, ended: bool = False) -> Step:
        digits = self._digit_tokens()
        if any(i not in self._logprobs for i in digits):
            return self._fail("the answer's probability was not measured")
        self._score = value
        self._probability = math.exp(math.fsum(self._logprobs[i][self._ids[i]] for i in digits))
        if len(digits) == 1 and value == 1:
            following = self._logprobs.get(digits[0] + 1)
            self._second_zero = None if following is None else self._zero_after_one(following)
        elif value == 10 and len(digits) == 2:
            self._second_zero = self._zero_after_one(self._logprobs[digits[1]])
        elif value == 0 and len(digits) == 1 and not self._vocabulary.one_token_ten:
            return self._probe(digits[0], ended)
        return self._done()

    def _probe(self, zero: int, ended: bool) -> Step:
        """Look at Pr(`0` | `1`) in place of the zero answered, which the expected score needs.

        Documents scored 0 tie, and the expected score is what breaks the tie.
        """
        piece = self._vocabulary.pieces[self._ids[zero]]
        one = self._vocabulary.ids.get(piece.replace(b"0", b"1"))
        if one is None:
            return self._done()
        self._probing = True
        drop = len(self._ids) - zero + ended
        return Step(drop, (one,), 1, self._vocabulary.candidates)

    def _digit_tokens(self) -> list[int]:
        """Return the places, among the ids, of the tokens that carry the answer's digits."""
        assert self._answer is not None
        number = _NUMBER.match(self._text, self._answer.start)
        assert number is not None
        begin, end = number.span(1)
        starts = [0, *self._ends]
        return [i for i, stop in enumerate(self._ends) if stop > begin and starts[i] < end]

    def _zero_after_one(self, logprobs: Mapping[int, float]) -> float:
        zero = self._vocabulary.ids.get(b"0")
        return math.exp(logprobs[zero]) if zero is not None and zero in logprobs else 0.0

    def _expected_score(self) -> float | None:
        """Return Σ s·Pr(s) / Σ Pr(s) over 0…10, where all that it needs was computed."""
        if self._score is None or self._answer is None or self._answer.first_id is None:
            return None
        ten = self._second_zero
        if ten is None and not self._vocabulary.one_token_ten:
            return None
        mass = distribution(self._vocabulary, self._logprobs[self._answer.first_id], ten)
        total = math.fsum(mass.values())
        return math.fsum(s * p for s, p in mass.items()) / total if total > 0 else None

    def _not_an_integer(self) -> str:
        assert self._answer is not None
        content = bytes(self._text[self._answer.start :]).decode("utf-8", "replace").strip()
        return f"the answer is not an integer from 0 to 10: it begins {content!r}"

    def _fail(self, reason: str) -> Step:
        if not self._asked or not self._take_most_probable():
            self._failure = reason
        return self._done()

    def _take_most_probable(self) -> bool:
        """Read the most probable number where the model was asked for one and wrote none."""
        assert self._answer is not None
        place = self._answer.first_id
        if place is None:  # nothing but white space: the last place looked at
            place = max(self._logprobs, default=-1)
        logprobs = self._logprobs.get(place, {})
        numbers = [i for i in self._vocabulary.candidates if i in logprobs]
        if not numbers:
            return False
        best = max(numbers, key=lambda i: logprobs[i])
        self._score = self._vocabulary.values[best]
        self._probability = math.exp(logprobs[best])
        self._forced = True
        return True

    def _done(self) -> Step:
        return Step(done=True)


def distribution(
    vocabulary: ScoreVocabulary, logprobs: Mapping[int, float], zero_after_one: float | None
) -> dict[int, float]:
    """Return the probability of each score.

    Args:
        vocabulary: of the model's tokenizer.
        logprobs: of its numbers, by id, where the answer begins.
        zero_after_one: Pr(`0` | `1`), where 10 is written in two tokens and this was measured.
    """
    mass: dict[int, float] = defaultdict(float)
    for i, value in vocabulary.values.items():
        if i in logprobs:
            mass[value] += math.exp(logprobs[i])
    if not vocabulary.one_token_ten and zero_after_one is not None:
        # Part of the first digit `1` belongs to 10: it is moved there, not counted twice.
        mass[10] = mass[1] * zero_after_one
        mass[1] -= mass[10]
    return mass


class ScoreGuides:
    """Makes the guides of one model: the same vocabulary, thinking and limit for all documents."""

    def __init__(
        self,
        vocabulary: ScoreVocabulary,
        thinking: Thinking,
        max_new_tokens: int | None,
        context_length: int,
    ) -> None:
        """Take what all documents have in common.

        Args:
            vocabulary: of the model's tokenizer.
            thinking: "full" (to the limit), a budget in tokens, or "none".
            max_new_tokens: the checkpoint's own limit; None means the published one.
            context_length: tokens that prompt and completion may have together.
        """
        self.vocabulary = vocabulary
        self.thinking = thinking
        # A short context keeps at least half of its room for the prompt.
        self.max_new_tokens = min(max_new_tokens or MAX_NEW_TOKENS, context_length // 2)

    def with_thinking(self, thinking: Thinking) -> ScoreGuides:
        """Return the same in another mode of thinking."""
        found = copy.copy(self)
        found.thinking = thinking
        return found

    def guide(
        self, prompt: Prompt, stop: Callable[[], bool] = lambda: False, skip: bool = False
    ) -> ScoreGuide:
        """Return a fresh guide for the completion of `prompt`; see `ScoreGuide` for the others."""
        limit = self.max_new_tokens
        return ScoreGuide(self.vocabulary, prompt, self.thinking, limit, stop, skip)

    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment.

        Args:
            think_prefix: of the prompt.
        """
        if self.thinking == "none":
            return len(self.vocabulary.no_thinking(think_prefix)) + _ANSWER_LIMIT + 1
        budget = self.thinking if isinstance(self.thinking, int) else self.max_new_tokens
        return budget + len(self.vocabulary.close_and_ask) + _ANSWER_LIMIT + 2
