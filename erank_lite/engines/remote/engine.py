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
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from erank_lite.engines.base import Engine
from erank_lite.engines.calls import Queue, Sequence
from erank_lite.engines.remote.dialects import Chunk
from erank_lite.engines.remote.handshake import check, ping, recognise
from erank_lite.engines.remote.http import Fault, ServerClient
from erank_lite.engines.remote.options import RemoteOptions
from erank_lite.errors import ModelError
from erank_lite.machine.plan import Plan
from erank_lite.models.checkpoint import BUNDLED_FOLDER, BUNDLED_MODEL
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SEQUENCES = 32  # where the server does not say how many it takes on
_ATTEMPTS = 4
_BACKOFF, _LONGEST_WAIT = 1.0, 60.0
_LOST_IN_A_ROW = 3
_TICK = 0.02  # seconds


class RemoteEngine(Engine):
    """Runs the model of a server: vLLM's `/v1/completions` or llama-server's `/completion`."""

    def __init__(self, url: str, plan: Plan) -> None:
        """Find out what the server is, and that it can be used. ERANK_LITE_API_KEY holds its key.

        Args:
            url: the server's address, `http://HOST:PORT`.
            plan: how to run it; its options are `RemoteOptions`. The tokenizer in them is the
                folder of the checkpoint that is served (its weights may be missing), or a GGUF
                file of it; None takes the one that the server names, if it is here.

        Raises:
            ModelError: the server or the tokenizer cannot be used.
        """
        assert isinstance(plan.options, RemoteOptions)
        options = plan.options
        self._server = ServerClient(url, options.timeout)
        self._documents: dict[Future[tuple[Completion[Guide], bool]], Sequence] = {}
        self._lost = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="erank-lite remote", daemon=True)
        self._thread.start()
        try:
            served = self._await(recognise(self._server, options.model, options.strict))
            text = _text(options.tokenizer) if options.tokenizer else self._text_of(served.sources)
            lengths = [n for n in (options.context_length, served.context_length) if n is not None]
            if not lengths:
                raise ModelError(
                    f"{self._server.name} does not say how long its context is",
                    "give context_length",
                )
            sequences = 1 if options.strict else options.sequences or served.places or _SEQUENCES
            plan = replace(plan, sequences=sequences, context_length=min(lengths))
            super().__init__(plan, text, min(lengths))
            self._dialect, self._sequences = served.dialect, sequences
            self._await(check(self._server, self._dialect, self.tokenizer))
            self.description = f"remote, {served.dialect.name} at {self._server.name}"
        except BaseException:
            self._free()
            raise

    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        if self._lost >= _LOST_IN_A_ROW:
            self._lost = 0
            self._await(self._check_alive())
        while len(self._documents) < self._sequences:
            document = queue.take()
            if document is None:
                break
            self._documents[self._submit(self._complete(document))] = document
        # Not for long: other requests may come, and some be given up.
        done, _ = wait(self._documents, _TICK, return_when=FIRST_COMPLETED)
        finished = []
        for future in done:
            del self._documents[future]
            if future.cancelled():  # as the engine is closed
                continue
            completion, served = future.result()
            self._lost = 0 if served else self._lost + 1
            finished.append(completion)
        return finished

    def _under_way(self) -> Iterable[Sequence]:
        return self._documents.values()

    def _drop(self, sequence: Sequence) -> None:
        """End a document's connection, which ends the work on the server too."""
        future = next(f for f, document in self._documents.items() if document is sequence)
        del self._documents[future]
        future.cancel()

    def _interrupt(self) -> None:
        self._await(_end_the_others())

    def _free(self) -> None:
        if self._loop.is_closed():
            return
        self._await(_end_the_others())
        self._await(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _text_of(self, sources: Iterable[str]) -> ModelText:
        for source in sources:
            if Path(source).exists():
                return ModelText.read(Path(source))
        raise ModelError(
            f"the model of {self._server.name} is not on this machine",
            "give tokenizer= the folder of its checkpoint, or a GGUF file of it (--tokenizer on "
            "the command line)",
        )

    # One document

    async def _complete(self, document: Sequence) -> tuple[Completion[Guide], bool]:
        """Complete one document; say, too, whether the server did its part."""
        document.apply(document.guide.begin())
        faults = 0
        while not document.step.done:
            try:
                await self._stream(document)
            except Fault as fault:
                faults += 1
                if not fault.passing or faults == _ATTEMPTS:
                    failure = f"no completion came from the server: {fault}"
                    return document.finished(failure), fault.about_the_request
                await asyncio.sleep(_pause(faults, fault))
        return document.finished(), True

    async def _stream(self, document: Sequence) -> None:
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

    def _take(self, document: Sequence, chunk: Chunk, measured: bool) -> bool:
        """Feed the guide; return whether it wants the token that comes next in this stream."""
        for token, logprobs in chunk.tokens:
            document.tokens_generated += 1
            self.tokens_generated += 1
            goes_on = _feed(document, token, logprobs)
            if not goes_on or (document.step.logprobs_for is not None and not measured):
                return False
        if chunk.ended == "turn":
            # The server ended it at a token that is no end here, or kept that token to itself.
            _feed(document, min(self.end_ids), None)
        return True

    # The loop

    async def _check_alive(self) -> None:
        """Raise a ModelError where the server serves nothing any more."""
        try:
            await ping(self._server, self._dialect, self.tokenizer.encode_trusted("0"))
        except Fault as fault:
            raise ModelError(
                f"the server at {self._server.name} is gone, after {_LOST_IN_A_ROW} documents in a "
                f"row that it failed: {fault}",
                "start it again, and give the rest once more",
            ) from None

    def _submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _await(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._submit(work).result()


def _text(source: Path) -> ModelText:
    """Return the text of a checkpoint folder, a GGUF file, or the bundled model.

    Raises:
        ModelError: there is none, or it lacks something.
    """
    path = BUNDLED_FOLDER if str(source) == BUNDLED_MODEL else source.expanduser()
    if not path.exists():
        raise ModelError(
            f"there is no file or folder `{path}`",
            'give tokenizer= the checkpoint\'s folder (hf download NAME --exclude "*.safetensors" '
            "--local-dir FOLDER brings it without the weights) or a GGUF file of it",
        )
    return ModelText.read(path)


def _feed(document: Sequence, token: int, logprobs: Mapping[int, float] | None) -> bool:
    """Give the guide a token; return whether it just wants the next one."""
    document.ids.append(token)
    wanted = logprobs if document.step.logprobs_for is not None else None
    step = document.guide.feed(token, wanted)
    document.apply(step)
    return not (step.done or step.drop or step.force)


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
