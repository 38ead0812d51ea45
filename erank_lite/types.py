"""What the stages hand to each other.

documents → Prompt → Request → Source → engine: Step by Step → Completion → Score
            family                      steered by a Guide                  family
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids that an engine reads before it generates.

    Attributes:
        ids: the whole prompt.
        shared: how many leading ids are the same for every document of the query.
        think_prefix: what the chat template put after a `<think>` that it opened itself (usually a
            newline), or None where it opened none.
        truncated: the document was cut, by `truncate_length` or to fit the context.
    """

    ids: tuple[int, ...]
    shared: int
    think_prefix: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What a guide wants next: drop ids, append ids, then generate.

    Attributes:
        drop: how many ids to remove from the end of the sequence, before anything else.
        force: ids to append without sampling.
        max_tokens: how many tokens may be generated before the guide must be asked again; an engine
            that feeds token by token may ignore it.
        logprobs_for: ids whose log-probability is wanted at the next token, beside that of the
            token chosen there; None where no probability is wanted, so none need be computed.
        done: nothing can change the result any more.
    """

    drop: int = 0
    force: tuple[int, ...] = ()
    max_tokens: int = 1
    logprobs_for: tuple[int, ...] | None = None
    done: bool = False


class Guide(Protocol):
    """Follows one completion and says at each token what the engine must do next."""

    def begin(self) -> Step:
        """Return the first step."""

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take one generated token and return the next step.

        Args:
            token: the id generated.
            logprobs: natural-log probabilities under the full softmax at temperature 1, by id,
                where the last step asked for them.
        """


G = TypeVar("G", bound=Guide)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn, where a family does not take the most probable.

    What is drawn depends on the seed, the prompt and the place, and on nothing else in the batch.

    Attributes:
        temperature: logits are divided by it.
        top_p: only the most probable tokens that reach this probability together are drawn from.
        seed: another one gives another completion.
    """

    temperature: float
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request(Generic[G]):
    """One prompt to complete.

    Attributes:
        key: the caller's own number for it.
        prompt: what the model reads first.
        guide: makes a fresh guide; a document that is started again needs another.
        max_tokens: the most ids that its completion can hold at any moment.
        priority: a source gives requests of a higher one first. Engines take what they get.
        deadline: seconds on the clock of `time.monotonic` by which it is wanted, or None; a
            source's matter too.
        sampling: how tokens are chosen; None takes the most probable.
    """

    key: int
    prompt: Prompt
    guide: Callable[[], G]
    max_tokens: int
    priority: int = 0
    deadline: float | None = None
    sampling: Sampling | None = None


class Source(Protocol):
    """Gives an engine its requests, one when there is room for one.

    One that watches a clock also has `look`, which is called again and again, after `pause` seconds
    at the latest, and may raise what ends the run; and `given_up`, a set of keys of requests that
    are wanted no longer: they are dropped, under way or not, and do not come back.

    Example:
        A source that others add to while a run goes on:

        >>> import queue
        >>> class Inbox:
        ...     def __init__(self):
        ...         self.requests, self.closed = queue.Queue(), False
        ...     def take(self):
        ...         return None if self.requests.empty() else self.requests.get()
        ...     @property
        ...     def ended(self):
        ...         return self.closed and self.requests.empty()
    """

    def take(self) -> Request[Guide] | None:
        """Return the next request, or None where there is none just now."""

    @property
    def ended(self) -> bool:
        """Whether no request will come any more."""


@dataclass(frozen=True, slots=True)
class Completion(Generic[G]):
    """A finished request: its guide has seen the end, or `failure` says why it could not.

    Attributes:
        key: the request's key.
        guide: the guide that followed the completion.
        tokens: how many tokens were generated for it.
        failure: the engine's reason where the document could not be completed, else None.
    """

    key: int
    guide: G
    tokens: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What was read of one document.

    Attributes:
        score: the integer answered, of ERank 0 to 10; None where no answer could be read, or where
            documents are put in order without one.
        probability: its own: of ERank under the full softmax, of labels among them; or None.
        expected_score: the expected score over 0…10 (a real number), or None where it was not
            computed.
        reasoning: the text of the reasoning.
        forced: the reasoning was closed, or the answer asked for, from outside; of documents that
            are compared, too: what the model said of them last could not be read.
        failure: None, or why there is no score.
        completion: all that was generated, forced parts included.
        stopped: tokens of reasoning after which a budget ended it; None where none did.
        value: what ranks the document, of families where that is not score × probability.
    """

    score: int | None
    probability: float | None
    expected_score: float | None
    reasoning: str
    forced: bool
    failure: str | None
    completion: str
    stopped: int | None = None
    value: float | None = None

    @property
    def rank_score(self) -> float | None:
        """The published ranking score, of ERank score × Pr(score); None for a failure."""
        if self.value is not None:
            return self.value
        if self.score is None or self.probability is None:
            return None
        return self.score * self.probability
