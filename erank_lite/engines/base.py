"""What every engine offers. Engines are dumb and fast: they know tokens, not scores.

An engine implements `_advance`, `_under_way`, `_drop` and `_free`. What all share stands here once:
the thread that computes, and how runs share it. See `erank_lite.engines.calls`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

from erank_lite.engines.calls import IterableSource, Queue, Sequence
from erank_lite.machine.pace import Meter, Pace
from erank_lite.machine.plan import Plan
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, G, Guide, Request, Source

_E = TypeVar("_E", bound="Engine")
_LOOK = 0.2  # seconds between two looks at how much is done
_AHEAD = 4  # requests of a call that wait, for each document that is decoded


class Engine(ABC):
    """Runs a model over many prompts together, for any number of callers at once.

    One thread computes, from the first request of a run to the last of all. An engine that is
    dropped is freed; at the end of the program, all are closed.

    Attributes:
        path: the file, the folder or the address that it runs; None where it was made otherwise
            than by `erank_lite.load.load`.
        names: what the model is called: as it was asked for, and by its own file.
        plan: how it runs; the plan that it was given, unless a dry run of that failed.
        tokenizer: the model's.
        chat_template: the checkpoint's own, in jinja2.
        end_ids: every token that ends the model's turn.
        max_new_tokens: the checkpoint's own limit of new tokens, or None where it names none.
        context_length: the most tokens that prompt and completion may have together.
        tokens_generated: by all runs so far.
        under_way: how much of the documents under way is done: 1.5 where one is done by half and
            another nearly. It is brought up to date as steps are computed.
        description: what computes: the engine, its kernel where there is a choice, and the device.
    """

    path: Path | str | None = None
    names: tuple[str, ...] = ()
    plan: Plan
    tokenizer: Tokenizer
    chat_template: str
    end_ids: frozenset[int]
    max_new_tokens: int | None
    context_length: int
    description: str
    under_way: float = 0.0
    _meter: Meter | None = None  # of engines that compute here
    _queue: Queue | None = None

    def __init__(self, plan: Plan, text: ModelText, context_length: int) -> None:
        """Take what all engines have; see the attributes."""
        self.plan = plan
        self.tokenizer, self.chat_template = text.tokenizer, text.chat_template
        self.end_ids, self.max_new_tokens = text.end_ids, text.max_new_tokens
        self.context_length = context_length
        self.tokens_generated = 0
        self._queue = Queue(context_length, _AHEAD * (plan.sequences or 1), self._work)
        _OPEN.add(self)

    def run(self, requests: Iterable[Request[G]] | Source) -> Generator[Completion[G], None, None]:
        """Complete every request and yield each as it finishes, in any order.

        As many come out as went in: a request that cannot be completed comes back with its failure.
        Where the source has nothing just now, what is under way goes on. Runs share the engine, in
        turns; closing the iterator gives up what is unfinished of this one.

        Args:
            requests: an iterable, which is read as places become free, or a `Source`; read in the
                thread that reads what comes out.

        Raises:
            ModelError: the engine cannot go on, is closed, or was loaded in another process.
        """
        assert self._queue is not None
        self._queue.check()
        completions = self._run(self._queue, _source(requests))
        return cast("Generator[Completion[G], None, None]", completions)

    def _run(self, queue: Queue, source: Source) -> Generator[Completion[Guide], None, None]:
        with queue.open() as call:
            while not call.finished:
                call.feed(source, self._arrange)
                yield from call.fetch()

    async def arun(
        self, requests: Iterable[Request[G]] | Source
    ) -> AsyncGenerator[Completion[G], None]:
        """Do what `run` does, without blocking the event loop; `requests` is read in threads.

        Raises:
            ModelError: as for `run`.
        """
        assert self._queue is not None
        source, loop, ready = _source(requests), asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(ready.set)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                call.close()

        with self._queue.open(wake) as call:
            while not call.finished:
                ready.clear()
                if call.hungry or call.pause is not None:
                    await asyncio.to_thread(call.feed, source, self._arrange)
                for completion in call.fetch(wait=False):
                    yield cast("Completion[G]", completion)
                if not call.finished and not call.hungry:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(ready.wait(), call.pause)

    def _work(self) -> None:
        """Compute while there are calls; in the engine's thread."""
        queue = self._queue
        assert queue is not None
        looked = 0.0
        try:
            while queue.wait_for_work():
                self._drop_all(queue.withdrawn())
                begun = time.perf_counter()
                completions = self._advance(queue)
                ended = time.perf_counter()
                if self._meter is not None:
                    self._meter.step_took(ended - begun)
                    if ended - looked > _LOOK:
                        looked = ended
                        self.under_way = sum(map(self._done_of, self._under_way()))
                queue.deliver(completions)
        except BaseException as error:
            try:
                self._drop_all()
            finally:
                queue.fail(error)

    def _drop_all(self, keys: set[int] | None = None) -> None:
        """Drop the sequences of these requests, or of all."""
        if keys is None or keys:
            for sequence in list(self._under_way()):
                if keys is None or sequence.request.key in keys:
                    self._drop(sequence)

    @property
    def pace(self) -> Pace | None:
        """How fast it reads and writes here, as far as is known; None where a server computes."""
        return self._meter.pace if self._meter else None

    def _done_of(self, sequence: Sequence) -> float:
        """Return how much of a document under way is done."""
        assert self._meter is not None
        request = sequence.request
        return self._meter.share(len(request.prompt.ids), sequence.past, request.max_tokens)

    @abstractmethod
    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        """Start what there is room for and compute one step of everything that is under way.

        Returns:
            What finished.

        Raises:
            ModelError: the engine cannot go on.
        """

    @abstractmethod
    def _under_way(self) -> Iterable[Sequence]:
        """Return everything that was taken from the queue and is not finished."""

    @abstractmethod
    def _drop(self, sequence: Sequence) -> None:
        """Give up one of these."""

    @abstractmethod
    def _free(self) -> None:
        """Free weights and memory, once."""

    def _arrange(self, requests: list[Request[Guide]]) -> list[Request[Guide]]:
        """Return a call's next requests in the order in which they are best computed."""
        return requests

    def _interrupt(self) -> None:  # noqa: B027 - nothing to do where steps are short
        """Make the step that is being computed end soon, as the engine is closed."""

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards. Closing twice is fine.

        Runs that are not finished end with a `ModelError`.
        """
        self._close()

    def _close(self, tell: bool = True) -> None:
        if self._queue is None or not hasattr(self, "description"):
            return  # it could not be loaded: what was made of it is freed by itself
        if self._queue.close(self._interrupt, tell):
            if self._meter is not None:
                self._meter.keep()
            self._free()

    def __del__(self) -> None:
        self.close()

    def __enter__(self: _E) -> _E:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: it holds memory of this "
            "process; load the model in each process that uses it"
        )


def _source(requests: Any) -> Source:
    return cast(Source, requests if hasattr(requests, "take") else IterableSource(requests))


# What llama.cpp and CUDA hold must be freed before they are unloaded.
_OPEN: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_OPEN):
        engine._close(tell=False)  # only daemon threads still wait, and they end with the program
