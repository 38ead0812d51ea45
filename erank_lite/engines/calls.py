"""Many callers, one engine: each run of an engine is a call, and calls share the running batch.

    caller's thread                      the engine's thread
    Call.feed ──► waiting ──► Queue.take ──► sequences under way
    Call.fetch ◄── completions ◄── Queue.deliver ◄──┘

A caller's source is read in the caller's own thread, and its completions wait until it fetches
them. Between the two, everything is behind one lock.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from types import TracebackType

from erank_lite.errors import ModelError
from erank_lite.types import Completion, Guide, Request, Source, Step

_IDLE = 0.005  # seconds between two questions to a source that has nothing just now
_WAIT = 1.0  # seconds; Windows lets nothing interrupt a wait without a timeout
_GATHER = 0.05  # seconds for which requests are collected before the engine gets them

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

    @property
    def written(self) -> int:
        """How many tokens the completion has by now."""
        return len(self.ids) - len(self.request.prompt.ids)

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


class Queue:
    """The requests of all calls, in the order in which an engine starts them.

    What is to be started again comes first; then the calls take turns, a request each.
    """

    def __init__(self, context_length: int, ahead: int, work: Callable[[], None]) -> None:
        """Begin without a call.

        Args:
            context_length: tokens that a prompt and its completion may have; a request that needs
                more fails at once.
            ahead: requests of a call that are kept waiting, so that the engine never waits.
            work: a method that the engine's thread runs while there are calls, see `wait_for_work`.
        """
        self.ahead = ahead
        self.closed = False
        self._context_length = context_length
        self._work = weakref.WeakMethod(work)  # an engine that is dropped is freed at once
        self._getpid = os.getpid  # when the interpreter ends, modules go before what they made
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._numbers = itertools.count()
        self._calls: deque[Call] = deque()  # open ones; the next to be served first
        self._closing: deque[Call] = deque()  # closed, but still in `_calls`
        self._owners: dict[int, tuple[Call, int]] = {}  # of what is waiting or under way
        self._given_up: set[int] = set()  # still under way, but wanted no longer
        self._again: deque[tuple[Request[Guide], int]] = deque()

    # For the callers

    def open(self, wake: Callable[[], None] | None = None) -> Call:
        """Return a new call; `wake` is called, in any thread, when it has something to fetch.

        Raises:
            ModelError: the engine is closed, or belongs to another process.
        """
        self.check()
        with self._lock:
            self.check()
            call = Call(self, self._lock, wake)
            self._calls.append(call)
        return call

    def check(self) -> None:
        """Refuse what cannot be done any more, or here.

        Raises:
            ModelError: the engine is closed, or belongs to another process.
        """
        self.check_process()
        if self.closed:
            raise ModelError("the engine is closed", "load the model again")

    def check_process(self) -> None:
        """Refuse to go on in a child process: it has neither the thread nor a lock to rely on.

        Raises:
            ModelError: this is another process than the one that loaded the model.
        """
        if not self._here():
            raise ModelError(
                f"the model was loaded in another process (PID {self._pid})",
                "load it in the process that uses it, after the fork",
            )

    def _here(self) -> bool:
        return self._pid == self._getpid()

    def add(self, call: Call, requests: Iterable[Request[Guide]], ended: bool) -> None:
        """Take a call's next requests; with `ended`, no more will come."""
        with self._lock:
            if call.error is not None or call.closed:
                return
            call.ended = call.ended or ended
            for request in requests:
                need = len(request.prompt.ids) + request.max_tokens
                if need > self._context_length:
                    reason = f"it needs {need} tokens, the context has {self._context_length}"
                    failed = Completion(request.key, request.guide(), failure=reason)
                    call.completions.append(failed)
                    continue
                number = next(self._numbers)
                self._owners[number] = (call, request.key)
                call.unfinished += 1
                call.waiting.append(replace(request, key=number))
            if call.waiting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._work(), name="erank-lite engine", daemon=True
                    )
                    self._thread.start()
                self._changed.notify_all()

    def give_up(self, call: Call, keys: Collection[int]) -> None:
        """Drop some of a call's requests, before the next step where they are under way."""
        if not keys:
            return
        with self._lock:
            owners = self._owners.items()
            numbers = {n for n, (owner, key) in owners if owner is call and key in keys}
            for number in numbers:
                del self._owners[number]
            call.unfinished -= len(numbers)
            waiting = {request.key for request in call.waiting}
            call.waiting = deque(r for r in call.waiting if r.key not in numbers)
            self._given_up |= numbers - waiting
            self._changed.notify_all()

    def close_call(self, call: Call) -> None:
        """Give up what is unfinished of a call; its places become free before the next step."""
        if call.closed or not self._here():
            return
        call.closed = True
        self._closing.append(call)
        # The lock is not waited for: a call that was dropped is closed by the garbage collector,
        # which may run where this thread holds it. `wait_for_work` does what is left.
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
                self._changed.notify_all()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._closing:
            call = self._closing.popleft()
            self._calls.remove(call)
            for request in call.waiting:
                self._owners.pop(request.key, None)
            call.waiting.clear()

    def close(self, interrupt: Callable[[], None], tell: bool) -> bool:
        """End the engine's thread.

        Args:
            interrupt: called while that thread may compute, to make it end the sooner.
            tell: end the calls with an error; else they wait for ever.

        Returns:
            Whether the engine is to be freed now: not twice, not by a process that did not load
            it, and not below the engine's own thread.
        """
        if self.closed or not self._here():
            return False
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            if tell:
                hint = "load the model again"
                self._fail(ModelError("the engine was closed during this run", hint))
            self._changed.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        interrupt()
        thread.join()
        return True

    # For the engine's thread

    def wait_for_work(self) -> bool:
        """Wait until something is to be computed; return False where the thread is to end."""
        with self._lock:
            self._settle()
            while not self._busy and self._calls and not self.closed:
                self._changed.wait(_WAIT)
                self._settle()
            if self._busy and not self.closed:
                return True
            self._thread = None
            return False

    @property
    def _busy(self) -> bool:
        return bool(self._owners or self._given_up)

    def look(self, count: int) -> list[Request[Guide]]:
        """Return up to `count` requests that come next, without starting them."""
        with self._lock:
            found = [request for request, _ in self._again]
            for row in itertools.zip_longest(*(call.waiting for call in self._calls)):
                if len(found) >= count:
                    break
                found += (request for request in row if request is not None)
            return found[:count]

    def take(self) -> Sequence | None:
        """Start the next request; None where none is waiting."""
        with self._lock:
            if self._again:
                request, attempts = self._again.popleft()
                return Sequence.start(request, attempts)
            call = next((call for call in self._calls if call.waiting), None)
            if call is None:
                return None
            self._calls.remove(call)
            self._calls.append(call)
            request = call.waiting.popleft()
            if not call.ended and len(call.waiting) == self.ahead // 2:
                call.notify()
        return Sequence.start(request)

    def put_back(self, sequence: Sequence, *, failed: bool = True) -> None:
        """Have a sequence started again, before all others; a failed attempt counts."""
        with self._lock:
            self._again.appendleft((sequence.request, sequence.attempts + failed))

    def withdrawn(self) -> set[int]:
        """Return the keys of what was started and is wanted no longer, and forget them."""
        with self._lock:
            keys = {key for key, (call, _) in self._owners.items() if call.closed}
            for key in keys:
                del self._owners[key]
            keys |= self._given_up
            self._given_up.clear()
            if keys:
                self._again = deque(entry for entry in self._again if entry[0].key not in keys)
        return keys

    def deliver(self, completions: Iterable[Completion[Guide]]) -> None:
        """Hand completions to the calls that wait for them."""
        with self._lock:
            for completion in completions:
                call, key = self._owners.pop(completion.key, (None, 0))
                if call is not None and not call.closed:
                    call.unfinished -= 1
                    call.completions.append(replace(completion, key=key))
                    call.notify()

    def fail(self, error: BaseException) -> None:
        """End all calls with an error, and the engine's thread, which can go on no longer."""
        with self._lock:
            self._fail(error)
            self._thread = None

    def _fail(self, error: BaseException) -> None:
        for call in self._calls:
            call.error = error
            call.waiting.clear()
            call.notify()
        self._owners.clear()
        self._given_up.clear()
        self._again.clear()


class Call:
    """One run: what its caller asked for, and what came of it. A context manager that closes."""

    def __init__(self, queue: Queue, lock: threading.Lock, wake: Callable[[], None] | None) -> None:
        self.waiting: deque[Request[Guide]] = deque()
        self.completions: deque[Completion[Guide]] = deque()
        self.unfinished = 0
        self.ended = False  # nothing more will be asked for
        self.closed = False
        self.error: BaseException | None = None
        self._queue, self._lock, self._wake = queue, lock, wake
        self._ready = threading.Condition(lock)
        self._pause: float | None = None  # the source had nothing just now

    def feed(
        self,
        source: Source,
        arrange: Callable[[list[Request[Guide]]], Iterable[Request[Guide]]],
    ) -> None:
        """Give the engine what `source` has, as far as there is room for it to wait."""
        self._queue.check_process()
        look = getattr(source, "look", None)
        if look is not None:
            look()
            self._queue.give_up(self, source.given_up)  # type: ignore[attr-defined]
        found: list[Request[Guide]] = []
        room = 0 if self.ended else self._queue.ahead - len(self.waiting)
        until = time.perf_counter() + _GATHER
        self._pause, ended = getattr(source, "pause", None), False
        while len(found) < room and time.perf_counter() < until:
            request = source.take()
            if request is None:
                ended = source.ended
                if self._pause is None and not ended:
                    self._pause = _IDLE
                break
            found.append(request)
        if found or ended:
            self._queue.add(self, arrange(found), ended)

    def fetch(self, wait: bool = True) -> list[Completion[Guide]]:
        """Return what is finished; where nothing is, wait for it, or until `feed` is to be called.

        Raises:
            ModelError: the engine cannot go on, or was closed.
        """
        self._queue.check_process()
        with self._lock:
            while wait and not (self.completions or self.error or self.finished or self.hungry):
                self._ready.wait(_WAIT if self.pause is None else self.pause)
                if self.pause is not None:
                    break
            found = list(self.completions)
            self.completions.clear()
            if self.error is not None and not found:
                raise self.error
            return found

    def notify(self) -> None:
        """Wake the caller; with the lock held."""
        self._ready.notify()
        if self._wake is not None:
            self._wake()

    @property
    def hungry(self) -> bool:
        """Whether the engine could soon want more than what waits."""
        return not self.ended and self.pause is None and len(self.waiting) <= self._queue.ahead // 2

    @property
    def pause(self) -> float | None:
        """Seconds after which a source that had nothing is to be asked again; None where it had."""
        return self._pause

    @property
    def finished(self) -> bool:
        """Whether everything was asked for, completed and fetched."""
        return self.ended and not self.unfinished and not self.completions and self.error is None

    def close(self) -> None:
        """Give up what is unfinished."""
        self._queue.close_call(self)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
