"""What a family is: what models that were trained alike are asked, and how they are read.

    pointwise    documents ─► prompts ─► engine ─► guides ─► a score for each
    in rounds    documents ─► a round of prompts ─► engine ─► the next round … ─► scores

To add a family: a module beside this one, and a line in `erank_lite.families`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from erank_lite.errors import InputError
from erank_lite.families.benchmarks import is_benchmark
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide, Prompt, Sampling, Score

Thinking = int | Literal["full", "none"]
"""As long as the model likes; so many tokens, after which the answer is asked for; not at all."""


def parse_thinking(value: str | int) -> Thinking:
    """Return the thinking mode that `value` names: "full", "none" or a number of tokens.

    Raises:
        InputError: it is none of these.

    Example:
        >>> parse_thinking("256"), parse_thinking("none")
        (256, 'none')
    """
    text = str(value).strip().lower() if value is not None else ""
    if text == "full":
        return "full"
    if text == "none":
        return "none"
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise InputError(
        "thinking must be 'full', 'none' or a number of tokens from 1 to 999999999, "
        f"not {value!r:.40}"
    )


class DocumentPrompts(Protocol):
    """Makes the prompts of one query."""

    def document(self, doc: str, room: int | None = None) -> Prompt:
        """Return the prompt for one document; see `erank_lite.families.prompts.QueryPrompts`."""


class ScoringGuide(Guide, Protocol):
    """A guide that ends in a score."""

    @property
    def writes(self) -> bool:
        """Whether a token was generated."""

    def score(self) -> Score:
        """Return what was read. It is called once the guide is done, or after a failure."""


class Asker(ABC):
    """Asks one model as its family does, in one mode of thinking.

    Attributes:
        thinking: the mode.
        max_new_tokens: the most that "full" lets a model write.
    """

    thinking: Thinking
    max_new_tokens: int

    @abstractmethod
    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment."""


class Pointwise(Asker):
    """Asks about each document alone, once."""

    @abstractmethod
    def with_thinking(self, thinking: Thinking) -> Pointwise:
        """Return the same in another mode of thinking."""

    @abstractmethod
    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> DocumentPrompts:
        """Return what makes the prompts of a query.

        Args:
            query: the query's text.
            instruction: what relevance means: free text or a name of the family's; None is its own.
            truncate_length: cut the query and each document to this many tokens; None cuts nothing.

        Raises:
            InputError: one of them cannot be used.
        """

    @abstractmethod
    def guide(
        self, prompt: Prompt, stop: Callable[[], bool] = lambda: False, skip: bool = False
    ) -> ScoringGuide:
        """Return a fresh guide for the completion of a prompt.

        Args:
            prompt: what the model reads first.
            stop: asked at each token whether the reasoning is to end now.
            skip: nothing is to be written at all.
        """


@dataclass(frozen=True, slots=True)
class Ask:
    """One completion of a round.

    Attributes:
        prompt: what the model reads first.
        guide: makes a fresh guide.
        max_tokens: the most ids that the completion can hold at any moment.
        sampling: how tokens are chosen; None takes the most probable.
    """

    prompt: Prompt
    guide: Callable[[], Guide]
    max_tokens: int
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a query's documents.

    Attributes:
        scores: of each document, in the order given.
        truncated: whether each was cut.
        unread: completions whose answer could not be read.
    """

    scores: Sequence[Score]
    truncated: Sequence[bool]
    unread: int = 0


Rounds = Generator[Sequence[Ask], Sequence[Completion[Guide]], Verdict]
"""Yields what is to be completed next, all at once, and is sent the completions in that order."""


class QueryRounds(Protocol):
    """Asks about the documents of one query."""

    def rounds(self, docs: Sequence[str], room: int) -> Rounds:
        """Return the rounds for documents in the first stage's order, best first.

        Args:
            docs: texts; none is empty.
            room: tokens that a prompt may have.
        """


class InRounds(Asker):
    """Asks about the documents of a query together, or more than once."""

    @abstractmethod
    def with_thinking(self, thinking: Thinking) -> InRounds:
        """Return the same in another mode of thinking."""

    @abstractmethod
    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryRounds:
        """Return what asks about a query's documents; arguments and errors as of `Pointwise`."""


@dataclass(frozen=True)
class Family:
    """A family of rerankers.

    Attributes:
        name: as it is asked for.
        models: the published ones.
        unit: what one answer is about: "a document", "a set of 20", …
        make: returns what asks one model, from its text, the tokens that prompt and completion may
            have together, and the mode of thinking.
        source: where prompts and reading were taken from.
        licence: of the weights, as far as it is known.
        verified: what of it was compared with the authors' code.
        pattern: what a model's name looks like; None where no name tells.
        best: the highest rank score.
        thinks: whether the mode of thinking changes anything.
        together: whether a document's result depends on the others of its query.
        on_a_scale: whether it answers with an integer from 0 to 10, which can be measured after a
            reasoning that is not its own (`erank_lite.benchmarks.fidelity.teacher_forcing`).
        instruction_text: returns the text that an instruction comes to, or None where there is none
            in the prompt; raises an InputError where it cannot be used.
        truncate_length: tokens of query and documents, each, in the published evaluations; None
            where these cut nothing, or the family cuts by itself.
    """

    name: str
    models: tuple[str, ...]
    unit: str
    make: Callable[[ModelText, int, Thinking], Pointwise | InRounds]
    source: str
    licence: str
    verified: str
    instruction_text: Callable[[str | None], str | None]
    pattern: re.Pattern[str] | None = None
    best: float = 1.0
    thinks: bool = True
    together: bool = False
    on_a_scale: bool = False
    truncate_length: int | None = None


def no_instruction(name: str) -> Callable[[str | None], None]:
    """Return what refuses free text, for a family whose prompt has no place for it.

    A benchmark's own instruction, by its name, is left out: such a family is evaluated without.
    """

    def instruction_text(instruction: str | None) -> None:
        if instruction is not None and instruction.strip() and not is_benchmark(instruction):
            raise InputError(
                f"{name}'s prompt has no place for an instruction",
                "leave it out, or make it part of the query",
            )

    return instruction_text
