"""The remote engine: completions from servers, vLLM or llama-server, which may be elsewhere.

Tokens come one by one over a stream, and go to the guide; where it is done, or wants something
else than the next token, the connection is closed, which ends the work on the server too. A new
request goes on from all ids so far: the server's cache of prefixes makes that cheap. Probabilities
are asked for only where the guide asks: they slow a server down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from threading import Thread
from typing import Any, TypeVar

from erank_lite.engines.base import Engine
from erank_lite.engines.calls import Queue, Sequence
from erank_lite.engines.remote.dialects import Chunk
from erank_lite.engines.remote.handshake import Served, check, ping, recognise, refusal
from erank_lite.engines.remote.http import Fault, ServerClient
from erank_lite.engines.remote.options import RemoteOptions
from erank_lite.engines.remote.pool import Pool, Server, addresses, pause
from erank_lite.errors import ModelError
from erank_lite.machine.plan import Plan
from erank_lite.models.checkpoint import BUNDLED_FOLDER, BUNDLED_MODEL
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide

_T = TypeVar("_T")

_ATTEMPTS = 4
_LOST_IN_A_ROW = 3
_TICK = 0.02  # seconds


class RemoteEngine(Engine):
    """Runs the model of servers: vLLM's `/v1/completions` or llama-server's `/completion`."""

    def __init__(self, url: str, plan: Plan) -> None:
        """Find out what the servers are, and that they can be used.

        ERANK_LITE_API_KEY holds their key. Of several servers, one that cannot be reached is left
        out, and tried again.

        Args:
            url: the server's address, `http://HOST:PORT`, or several with commas between them.
            plan: how to run it; its options are `RemoteOptions`. The tokenizer in them is the
                folder of the checkpoint that is served (its weights may be missing), or a GGUF
                file of it; None takes the one that the server names, if it is here.

        Raises:
            InputError: an address is none.
            ModelError: no server, or not the tokenizer, can be used.
        """
        assert isinstance(plan.options, RemoteOptions)
        options = self._options = plan.options
        found = [Server(ServerClient(one, options.timeout)) for one in addresses(url)]
        self._pool = Pool(found)
        self._documents: dict[Future[tuple[Completion[Guide], bool]], Sequence] = {}
        self._lost = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="erank-lite remote", daemon=True)
        self._thread.start()
        try:
            self._await(self._each(self._recognise, found))
            known = {s.client.name: s.served for s in found if s.served is not None}
            text = _text(options.tokenizer) if options.tokenizer else _text_of(known)
            lengths = [s.context_length for s in known.values()] + [options.context_length]
            shortest = min((n for n in lengths if n is not None), default=None)
            if shortest is None:
                raise ModelError(
                    f"{' and '.join(known)} does not say how long its context is",
                    "give context_length",
                )
            sequences = 1 if options.strict else options.sequences or self._pool.places
            plan = replace(plan, sequences=sequences, context_length=shortest)
            super().__init__(plan, text, shortest)
            self._await(self._each(self._check, [s for s in found if s.served is not None]))
            sources = {s for served in known.values() for s in served.sources}
            self.names = tuple(PureWindowsPath(name).name for name in sorted(sources))
            self.description = "remote, " + ", ".join(
                f"{served.dialect.name} at {name}" for name, served in known.items()
            )
        except BaseException:
            self._free()
            raise

    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        if self._lost >= _LOST_IN_A_ROW:
            self._lost = 0
            self._await(self._check_alive())
        assert self.plan.sequences is not None
        # Those that are left out take none: the others have as many as they would have.
        while len(self._documents) < max(1, round(self.plan.sequences * self._pool.share)):
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
        for server in self._pool.servers:
            self._await(server.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # The servers

    async def _each(
        self, do: Callable[[Server], Coroutine[Any, Any, None]], servers: list[Server]
    ) -> None:
        """Do something with each of these; leave those out that fail, unless all do.

        Raises:
            ModelError: all fail, or one is not what was asked for.
        """
        outcomes = await asyncio.gather(*map(do, servers), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Fault):
                raise outcome
        failed = {s: o for s, o in zip(servers, outcomes, strict=True) if isinstance(o, Fault)}
        if len(failed) == len(servers):
            server, fault = next(iter(failed.items()))
            raise refusal(server.client, fault) from None
        for server, fault in failed.items():
            server.served = None
            self._pool.leave_out(server, fault)

    async def _recognise(self, server: Server) -> None:
        options = self._options
        server.served = await recognise(server.client, options.model, options.strict)

    async def _check(self, server: Server) -> None:
        assert server.served is not None
        await check(server.client, server.served.dialect, self.tokenizer)

    async def _met(self, server: Server) -> Served:
        """Return what a server is; find it out where it could not be reached before.

        Raises:
            Fault: it cannot be used now.
        """
        if server.served is None:
            try:
                await self._recognise(server)
                await self._check(server)
            except (Fault, ModelError) as error:
                server.served = None
                raise error if isinstance(error, Fault) else Fault(error.message) from None
        assert server.served is not None
        return server.served

    # One document

    async def _complete(self, document: Sequence) -> tuple[Completion[Guide], bool]:
        """Complete one document; say, too, whether the server did its part."""
        document.apply(document.guide.begin())
        faults = 0
        while not document.step.done:
            with self._pool.request() as server:
                try:
                    await self._stream(server, document)
                    self._pool.welcome(server)
                    continue
                except Fault as error:
                    fault = error
            faults += 1
            if not fault.about_the_request:
                self._pool.leave_out(server, fault)
            again = fault.passing or (not fault.about_the_request and self._pool.any_may_serve)
            if faults == _ATTEMPTS or not again:
                failure = f"no completion came from the server: {fault}"
                return document.finished(failure), fault.about_the_request
            if fault.about_the_request or self._pool.all_rest:
                await asyncio.sleep(pause(faults, fault))
        return document.finished(), True

    async def _stream(self, server: Server, document: Sequence) -> None:
        """Generate until the guide wants something else than the next token of this stream."""
        client, dialect = server.client, (await self._met(server)).dialect
        step = document.step
        measured = step.logprobs_for is not None
        body = dialect.body(
            document.ids, step.max_tokens, measured, sampling=document.request.sampling
        )
        made, missing = 0, 0
        async with aclosing(client.events(dialect.path, body)) as events:
            async for event in events:
                chunk = dialect.read(event, measured)
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
        body = dialect.body(
            document.ids, missing, False, stream=False, sampling=document.request.sampling
        )
        chunk = dialect.read(await client.ask(dialect.path, body))
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
        """Raise a ModelError where no server serves anything any more."""
        for server in self._pool.servers:
            try:
                dialect = (await self._met(server)).dialect
                await ping(server.client, dialect, self.tokenizer.encode_trusted("0"))
                return self._pool.welcome(server)
            except Fault as error:
                fault = error
        names = " and ".join(server.client.name for server in self._pool.servers)
        raise ModelError(
            f"the server at {names} is gone, after {_LOST_IN_A_ROW} documents in a row that it "
            f"failed: {fault}",
            "start it again, and give the rest once more",
        )

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


def _text_of(known: Mapping[str, Served]) -> ModelText:
    """Return the text of the files that servers name, where these are on this machine."""
    for source in (source for served in known.values() for source in served.sources):
        if Path(source).exists():
            return ModelText.read(Path(source))
    raise ModelError(
        f"the model of {' and '.join(known)} is not on this machine",
        "give tokenizer= the folder of its checkpoint, or a GGUF file of it (--tokenizer on "
        "the command line)",
    )


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
