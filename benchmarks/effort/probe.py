"""Looks at what a model would answer while it reasons, and takes the question back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from erank_lite.families.erank.score import ScoreGuide, distribution
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.types import Prompt, Step

_ENDS = (b".", b"!", b"?", b"\n")
_PATIENCE = 16  # tokens that the end of a sentence is waited for


@dataclass(frozen=True)
class Probe:
    """What would have been answered.

    Attributes:
        tokens: of the reasoning that stood by then.
        expected: Σ s·Pr(s) / Σ Pr(s).
        mass: Σ Pr(s): how much of the probability the eleven scores have.
    """

    tokens: int
    expected: float
    mass: float


class ProbeGuide:
    """Follows a completion as `ScoreGuide` does, and asks for the answer on the way.

    A probe appends what closes the reasoning and opens the answer, reads the distribution of the
    score there (and that of the second digit of 10), and drops it all: the reasoning then goes on
    as if it had never been asked.

    Attributes:
        guide: what reads the completion.
        probes: what was seen, by the tokens after which it was to be seen.
    """

    def __init__(
        self, guide: ScoreGuide, vocabulary: ScoreVocabulary, prompt: Prompt, cuts: Sequence[int]
    ) -> None:
        """Take what follows the completion.

        Args:
            guide: a fresh one.
            vocabulary: of the model's tokenizer.
            prompt: what the model reads first.
            cuts: tokens of reasoning after which to look, rising; 0 looks before any.
        """
        self.guide, self._vocabulary, self._prompt = guide, vocabulary, prompt
        self.probes: dict[int, Probe] = {}
        self._cuts = list(cuts)
        self._tokens = 0
        self._next = Step()
        self._asked = 0  # ids that a probe appended
        self._first: Mapping[int, float] | None = None
        self._one = vocabulary.ids.get(b"1")

    def begin(self) -> Step:
        """Return the first step."""
        step = self.guide.begin()
        if self._cuts and self._cuts[0] == 0:
            return self._ask(step, self._vocabulary.no_thinking(self._prompt.think_prefix))
        return step

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take a token, of the completion or of a probe."""
        if self._asked:
            return self._look(logprobs or {})
        self._tokens += 1
        step = self.guide.feed(token, logprobs)
        plain = not (step.done or step.drop or step.force)
        if plain and self.guide.reasons and self._is_due():
            return self._ask(step, self._vocabulary.close_and_ask)
        return step

    def _is_due(self) -> bool:
        if not self._cuts or self._tokens < self._cuts[0]:
            return False
        last = self._vocabulary.pieces[self.guide.ids[-1]]
        return last.rstrip(b" ").endswith(_ENDS) or self._tokens >= self._cuts[0] + _PATIENCE

    def _ask(self, following: Step, ids: tuple[int, ...]) -> Step:
        self._next, self._asked = following, len(ids)
        return Step(0, ids, 1, self._vocabulary.candidates)

    def _look(self, logprobs: Mapping[int, float]) -> Step:
        if self._first is None and self._one is not None and not self._vocabulary.one_token_ten:
            # The token that was chosen gives way to a `1`, after which 10 goes on with a `0`.
            self._first = logprobs
            self._asked += 1
            return Step(1, (self._one,), 1, self._vocabulary.candidates)
        zero = self._vocabulary.ids.get(b"0")
        ten = None
        if self._first is not None:
            ten = math.exp(logprobs[zero]) if zero is not None and zero in logprobs else 0.0
        mass = distribution(self._vocabulary, self._first or logprobs, ten)
        total = math.fsum(mass.values())
        expected = math.fsum(s * p for s, p in mass.items()) / total if total > 0 else 0.0
        self.probes[self._cuts.pop(0)] = Probe(self._tokens, expected, total)
        drop, self._asked, self._first = self._asked + 1, 0, None
        return replace(self._next, drop=drop)
