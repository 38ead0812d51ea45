"""The remote engine: completions from a server, vLLM or llama-server, which may be elsewhere.

Tokens come one by one over a stream, and go to the guide; where it is done, or wants something
else than the next token, the connection is closed, which ends the work on the server too. A new
request goes on from all ids so far: the server's cache of prefixes makes that cheap. Probabilities
are asked for only where the guide asks: they slow a server down.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from erank_lite.engines.base import Engine
from erank_lite.engines.remote.dialects import Chunk
from erank_lite.engines.remote.handshake import ModelText, check, ping, recognise
from erank_lite.engines.remote.http import Fault, Server
from erank_lite.errors import InputError, ModelError
from erank_lite.types import Completion, Guide, Request, Step

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SEQUENCES = 32  # where the server does not say how many it takes on
_ATTEMPTS = 4
_BACKOFF, _LONGEST_WAIT = 1.0, 60.0
_LOST_IN_A_ROW = 3


@dataclass(slots=True)
class _Document:
    """One document under way: `ids` are all its tokens, `step` is what its guide wants next."""

    request: Request
    guide: Guide
    ids: list[int] = field(init=False)
    step: Step = field(init=False)
    tokens_generated: int = 0

    def __post_init__(self) -> None:
        self.ids = list(self.request.prompt.ids)
        self._follow(self.guide.begin())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> bool:
        """Give the guide a token; return whether it just wants the next one."""
        self.ids.append(token)
        wanted = logprobs if self.step.logprobs_for is not None else None
        return self._follow(self.guide.feed(token, wanted))

    def _follow(self, step: Step) -> bool:
        if step.drop:
            del self.ids[-step.drop :]
        self.ids += step.force
        self.step = step
        return not (step.done or step.drop or step.force)

    def finished(self, fault: Fault | None = None) -> Completion:
        failure = None if fault is None else f"no completion came from the server: {fault}"
        return Completion(self.request.key, self.guide, self.tokens_generated, failure)


class RemoteEngine(Engine):
    """Runs the model of a server: vLLM's `/v1/completions` or llama-server's `/completion`."""

    def __init__(
        self,
        url: str,
        *,
        tokenizer: str | Path | None = None,
        model: str | None = None,
        strict: bool = False,
        sequences: int | None = None,
        context_length: int | None = None,
        timeout: float = 300.0,
    ) -> None:
        """Find out what the server is, and that it can be used. ERANK_LITE_API_KEY holds its key.

        Args:
            url: the server's address, `http://HOST:PORT`.
            tokenizer: the folder of the checkpoint that is served (its weights may be missing), or
                a GGUF file of it; None takes the one that the server names, if it is here.
            model: the name that the server gives to it, where it has several.
            strict: one document at a time, and nothing from the server's cache of prefixes, so
                that no document's result depends on those before.
            sequences: requests at once; None means as many as llama-server has places, or 32.
            context_length: tokens that one document's prompt and completion may have; None means
                what the server allows.
            timeout: seconds that the server may say nothing before it is asked again.

        Raises:
            ModelError: the server or the tokenizer cannot be used.
            InputError: an option is out of its range.
        """
        for name, value, least, most in (
            ("sequences", sequences, 1, 4096),
            ("context_length", context_length, 256, 1 << 24),
            ("timeout", timeout, 0.001, 1e6),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} must lie between {least} and {most}, not {value}")
        self._server = Server(url, timeout)
        self.tokens_generated = 0
        self._pending: set[Future[tuple[Completion, bool]]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="erank-lite remote", daemon=True)
        self._thread.start()
        try:
            served = self._await(recognise(self._server, model, strict))
            text = ModelText.of(tokenizer or self._found_here(served.sources))
            self.tokenizer, self.chat_template = text.tokenizer, text.chat_template
            self.end_ids, self.max_new_tokens = text.end_ids, text.max_new_tokens
            self._dialect = served.dialect
            lengths = [n for n in (context_length, served.context_length) if n is not None]
            if not lengths:
                raise ModelError(
                    f"{self._server.name} does not say how long its context is: give context_length"
                )
            self.context_length = min(lengths)
            self._sequences = 1 if strict else sequences or served.places or _SEQUENCES
            self._await(check(self._server, self._dialect, self.tokenizer))
            self.description = f"remote, {served.dialect.name} at {self._server.name}"
        except BaseException:
            self.close()
            raise

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Complete every request; see `Engine.run`. A run that begins ends the one before."""
        if self._loop.is_closed():
            raise ModelError("the engine is closed: make another one")
        self._give_up()
        source = iter(requests)
        mine: set[Future[tuple[Completion, bool]]] = set()
        self._pending = mine
        lost = 0
        try:
            while True:
                for request in islice(source, self._sequences - len(mine)):
                    mine.add(self._submit(self._complete(request)))
                if not mine:
                    return
                # With a timeout, since Windows lets nothing interrupt a wait without one.
                done, _ = wait(mine, timeout=1, return_when=FIRST_COMPLETED)
                mine -= done
                for future in done:
                    completion, served = future.result()
                    lost = 0 if served else lost + 1
                    yield completion
                    if self._pending is not mine:
                        raise CancelledError
                if lost >= _LOST_IN_A_ROW:
                    self._await(self._still_there())
                    lost = 0
        except CancelledError:
            raise ModelError("this run was given up when another one began") from None
        finally:
            if self._pending is mine:
                self._give_up()

    def close(self) -> None:
        """Close every connection."""
        if self._loop.is_closed():
            return
        self._give_up()
        self._await(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _found_here(self, sources: Iterable[str]) -> Path:
        for source in sources:
            if Path(source).exists():
                return Path(source)
        raise ModelError(
            f"the model of {self._server.name} is not on this machine: give tokenizer= the folder "
            "of its checkpoint, or a GGUF file of it (--tokenizer on the command line)"
        )

    # One document

    async def _complete(self, request: Request) -> tuple[Completion, bool]:
        """Complete one document; say, too, whether the server did its part."""
        document = _Document(request, request.guide())
        need = len(request.prompt.ids) + document.guide.max_tokens
        if need > self.context_length:
            reason = f"it needs {need} tokens, the context has {self.context_length}"
            return Completion(request.key, document.guide, failure=reason), True
        faults = 0
        while not document.step.done:
            try:
                await self._advance(document)
            except Fault as fault:
                faults += 1
                if not fault.passing or faults == _ATTEMPTS:
                    return document.finished(fault), fault.about_the_request
                await asyncio.sleep(_pause(faults, fault))
        return document.finished(), True

    async def _advance(self, document: _Document) -> None:
        """Generate until the guide wants something else than the next token of this stream."""
        step = document.step
        measured = step.logprobs_for is not None
        body = self._dialect.body(document.ids, step.max_tokens, measured)
        made, missing = 0, 0
        async with aclosing(self._server.events(self._dialect.path, body)) as events:
            async for event in events:
                chunk = self._dialect.read(event, measured)
                missing = 0 if chunk.count is None else chunk.count - made - len(chunk.tokens)
                if missing > 0:
                    missing += len(chunk.tokens)
                    break
                made += len(chunk.tokens)
                if not self._take(document, chunk, measured):
                    return
                if chunk.ended:
                    if not made:
                        raise Fault("it generated nothing")
                    return
        if missing <= 0:
            raise Fault("it broke the stream off")
        # llama-server leaves out of its streams the tokens that end within a character.
        body = self._dialect.body(document.ids, missing, False, stream=False)
        chunk = self._dialect.read(await self._server.ask(self._dialect.path, body))
        if not chunk.tokens:
            raise Fault("it leaves tokens out")
        self._take(document, chunk, False)

    def _take(self, document: _Document, chunk: Chunk, measured: bool) -> bool:
        """Feed the guide; return whether it wants the token that comes next in this stream."""
        for token, logprobs in chunk.tokens:
            document.tokens_generated += 1
            self.tokens_generated += 1
            goes_on = document.feed(token, logprobs)
            if not goes_on or (document.step.logprobs_for is not None and not measured):
                return False
        if chunk.ended == "turn":
            # The server ended it at a token that is no end here, or kept that token to itself.
            document.feed(min(self.end_ids), None)
        return True

    # The loop

    async def _still_there(self) -> None:
        """Raise a ModelError where the server serves nothing any more."""
        try:
            await ping(self._server, self._dialect, self.tokenizer.encode_trusted("0"))
        except Fault as fault:
            raise ModelError(
                f"the server at {self._server.name} is gone, after {_LOST_IN_A_ROW} documents in a "
                f"row that it failed: {fault}: start it again, and give the rest once more"
            ) from None

    def _submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _await(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._submit(work).result()

    def _give_up(self) -> None:
        """End what is under way; its connections are closed when this returns."""
        self._pending = set()
        self._await(_end_the_others())


async def _end_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _pause(faults: int, fault: Fault) -> float:
    """Return the seconds to wait before asking again: longer each time, never all at once."""
    backoff = _BACKOFF * 2.0 ** (faults - 1) * random.uniform(0.5, 1.0)
    seconds = min(max(backoff, fault.after or 0.0), _LONGEST_WAIT)
    _log.info("the server: %s; asking again in %.1f s", fault, seconds)
    return seconds
