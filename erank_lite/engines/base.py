"""What every engine offers. Engines are dumb and fast: they know tokens, not scores.

An engine implements `_advance`, and `_cancel` and `_free` to clean up. What all share stands here
once: reading the source, refusing what is too long, ending a run that another one replaces, and
doing what a guide asks for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, cast

from erank_lite.errors import ModelError
from erank_lite.machine.plan import Plan
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, G, Guide, Request, Source, Step

_E = TypeVar("_E", bound="Engine")
_IDLE = 0.005  # seconds between two questions to a source that has nothing just now


NOT_BEGUN = Step()
"""The step of a sequence whose guide has not been asked yet."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One document under way.

    Attributes:
        request: what is completed.
        guide: steers it.
        slot: where the engine keeps its keys and values, where it has slots.
        ids: all tokens so far, of the prompt and the completion.
        past: how many of them have been computed.
        tokens_generated: how many were generated, dropped ones included.
        attempts: how often it was started.
        step: what the guide wants next.
    """

    request: Request[Guide]
    guide: Guide
    ids: list[int]
    slot: int = 0
    past: int = 0
    tokens_generated: int = 0
    attempts: int = 1
    step: Step = NOT_BEGUN

    @classmethod
    def start(cls, request: Request[Guide], attempts: int = 1) -> Sequence:
        """Return the sequence of a request that nothing has been computed of."""
        return cls(request, request.guide(), list(request.prompt.ids), attempts=attempts)

    @property
    def pending(self) -> int:
        """How many tokens are still to be computed."""
        return len(self.ids) - self.past

    def apply(self, step: Step) -> bool:
        """Drop and append the tokens that the guide wants; return whether it is done."""
        self.step = step
        if step.done:
            return True
        if step.drop:
            del self.ids[-step.drop :]
        # At least one token must be computed for there to be a next one.
        self.past = min(self.past, len(self.ids), len(self.ids) + len(step.force) - 1)
        self.ids += step.force
        return False

    def finished(self, failure: str | None = None) -> Completion[Guide]:
        """Return its completion, or the reason why there is none."""
        return Completion(self.request.key, self.guide, self.tokens_generated, failure)


class Queue:
    """The requests of one run, as an engine takes them: what is to be started again comes first.

    Requests that do not fit the context never reach the engine: they are in `refused`.
    """

    def __init__(self, source: Source, context_length: int) -> None:
        """Read `source`; a prompt and its completion may have `context_length` tokens."""
        self._source = source
        self._context_length = context_length
        self._again: deque[tuple[Request[Guide], int]] = deque()
        self._ahead: deque[Request[Guide]] = deque()
        self.refused: list[Completion[Guide]] = []

    def look(self, count: int) -> list[Request[Guide]]:
        """Return up to `count` requests that come next, without starting them."""
        while len(self._again) + len(self._ahead) < count:
            request = self._source.take()
            if request is None:
                break
            need = len(request.prompt.ids) + request.max_tokens
            if need > self._context_length:
                reason = f"it needs {need} tokens, the context has {self._context_length}"
                self.refused.append(Completion(request.key, request.guide(), failure=reason))
                continue
            self._ahead.append(request)
        return [request for request, _ in self._again] + list(self._ahead)

    def take(self) -> Sequence | None:
        """Start the next request; None where there is none just now."""
        if self._again:
            request, attempts = self._again.popleft()
            return Sequence.start(request, attempts)
        return Sequence.start(self._ahead.popleft()) if self.look(1) else None

    def rearrange(self, requests: Iterable[Request[Guide]]) -> None:
        """Put the requests that `look` returned into another order."""
        self._ahead = deque(requests)

    def put_back(self, sequence: Sequence, *, failed: bool = True) -> None:
        """Have a sequence started again, before all others; a failed attempt counts."""
        self._again.appendleft((sequence.request, sequence.attempts + failed))

    @property
    def waiting(self) -> bool:
        """Whether requests were looked at that are not started yet."""
        return bool(self._again or self._ahead)

    @property
    def ended(self) -> bool:
        """Whether everything was taken and nothing will come."""
        return not self._again and not self._ahead and self._source.ended


class IterableSource:
    """A source that reads an iterable, which may be long or lazy, as there is room for more."""

    def __init__(self, requests: Iterable[Request[Guide]]) -> None:
        self._requests = iter(requests)
        self.ended = False

    def take(self) -> Request[Guide] | None:
        """Return the next request, or None at the end."""
        request = None if self.ended else next(self._requests, None)
        self.ended = request is None
        return request


class Engine(ABC):
    """Runs a model over many prompts together.

    Attributes:
        plan: how it runs; the plan that it was given, unless a dry run of that failed.
        tokenizer: the model's.
        chat_template: the checkpoint's own, in jinja2.
        end_ids: every token that ends the model's turn.
        max_new_tokens: the checkpoint's own limit of new tokens, or None where it names none.
        context_length: the most tokens that prompt and completion may have together.
        tokens_generated: by all runs so far.
        description: what computes: the engine, its kernel where there is a choice, and the device.
    """

    plan: Plan
    tokenizer: Tokenizer
    chat_template: str
    end_ids: frozenset[int]
    max_new_tokens: int | None
    context_length: int
    description: str

    def __init__(self, plan: Plan, text: ModelText, context_length: int) -> None:
        """Take what all engines have; see the attributes."""
        self.plan = plan
        self.tokenizer, self.chat_template = text.tokenizer, text.chat_template
        self.end_ids, self.max_new_tokens = text.end_ids, text.max_new_tokens
        self.context_length = context_length
        self.tokens_generated = 0
        self._runs = 0
        self._closed = False

    def run(self, requests: Iterable[Request[G]] | Source) -> Iterator[Completion[G]]:
        """Complete every request and yield each as it finishes, in any order.

        As many come out as went in: a request that cannot be completed comes back with its failure.
        Where the source has nothing just now, what is under way goes on. A run that begins ends the
        one before; closing the iterator gives up what is unfinished.

        Args:
            requests: an iterable, which is read as places become free, or a `Source`.

        Raises:
            ModelError: the engine cannot go on, is closed, or another run began.
        """
        if self._closed:
            raise ModelError("the engine is closed", "load the model again")
        self._runs += 1
        self._cancel()
        source = requests if hasattr(requests, "take") else IterableSource(cast(Any, requests))
        queue = Queue(cast(Source, source), self.context_length)
        return cast("Iterator[Completion[G]]", self._run(queue, self._runs))

    def _run(self, queue: Queue, run: int) -> Generator[Completion[Guide]]:
        try:
            while True:
                self._check_current(run)
                finished = self._advance(queue)
                for completion in (*queue.refused, *(finished or ())):
                    yield completion
                    self._check_current(run)
                queue.refused.clear()
                if finished is None:
                    if queue.ended:
                        return
                    time.sleep(_IDLE)
        finally:
            if self._runs == run and not self._closed:
                self._cancel()

    def _check_current(self, run: int) -> None:
        if self._closed:
            raise ModelError("the engine was closed during this run", "load the model again")
        if self._runs != run:
            raise ModelError("this run was given up when another one began")

    @abstractmethod
    def _advance(self, queue: Queue) -> list[Completion[Guide]] | None:
        """Start what there is room for and compute one step of everything that is under way.

        Returns:
            What finished; None where nothing is under way and `queue` has nothing just now.

        Raises:
            ModelError: the engine cannot go on.
        """

    @abstractmethod
    def _cancel(self) -> None:
        """Drop everything that is under way; nothing may be."""

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._cancel()
            self._free()

    @abstractmethod
    def _free(self) -> None:
        """Free weights and memory, once."""

    def __enter__(self: _E) -> _E:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
