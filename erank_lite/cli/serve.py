"""`erank-lite serve`: models over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES, say
from erank_lite.errors import InputError, missing_extra

app = typer.Typer(add_completion=False)
_DRAIN = 30  # seconds that requests have to end when the server is told to stop
_CONNECTIONS = 2_048


@app.command(epilog=EXIT_CODES)
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="As for rerank, with its engine and options after commas, as in "
            "erank-tiny,sequences=8. Repeat for several: the first answers for unknown names, the "
            "others are loaded when they are asked for.",
            show_default="erank-tiny",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve; beyond this machine only with a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose first line clients send as Authorization: Bearer KEY or X-Api-Key.",
            show_default="no key",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that the Host header may have beside addresses and localhost: of a proxy or "
            "a container. Repeat for several.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that may be searched, on the page and by clients; needs a key. Repeat for "
            "several.",
            show_default="none",
        ),
    ] = None,
    thinking: Annotated[
        str,
        typer.Option(
            help="full, none, or the maximum tokens of reasoning, of requests that name none."
        ),
    ] = "full",
    deadline: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Answer each request with the best order that is found in so many seconds.",
            show_default="no deadline",
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep results, and find them again.")
    ] = True,
    strict: options.Strict = False,
    option: options.EngineOption = None,
) -> None:
    """Serve until interrupted.

    Raises:
        ErankLiteError: an option cannot be used, or the address.
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra("serving", package, "serve")
    import uvicorn

    from erank_lite.benchmarks.spec import ModelSpec
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.families.base import parse_thinking
    from erank_lite.load import check, resolve
    from erank_lite.models.checkpoint import BUNDLED_MODEL
    from erank_lite.reranker import Reranker
    from erank_lite.results.store import ResultStore
    from erank_lite.serve.app import Server, Settings
    from erank_lite.serve.guard import Guard, allowed_hosts, is_loopback
    from erank_lite.serve.models import Models

    parse_thinking(thinking)
    key = None if api_key_file is None else _key(api_key_file)
    if key is None and not is_loopback(host):
        raise InputError(
            f"{host} can be reached from other machines, and there is no key",
            "give --api-key-file FILE, or serve 127.0.0.1",
        )
    if folder and key is None:
        raise InputError(
            "--folder lets whoever asks read its files, and there is no key",
            "give --api-key-file FILE",
        )
    given = options.engine_options(option, strict=strict or None)
    specs, aliases = {}, {}
    for text in model or [BUNDLED_MODEL]:
        spec = ModelSpec.parse(text, **given)
        if spec.label in specs:
            raise InputError(f"{spec.label} is named twice")
        # A name or an option that is wrong ends the command, not a request hours later.
        check(spec.model, spec.engine, spec.options)
        specs[spec.label], aliases[text] = spec, spec.label
    store = ResultStore() if cache else None
    reporter = TerminalReporter()

    def load(name: str) -> Reranker:
        spec = specs[name]
        return Reranker(
            spec.model, engine=spec.engine, family=spec.family, thinking=thinking, results=store,
            reporter=reporter, **spec.options,
        )  # fmt: skip

    def memory(name: str) -> int | None:
        spec = specs[name]
        decided, _ = resolve(spec.model, spec.engine, spec.options, reporter)
        return decided.memory

    # Taken before anything is loaded: an address that is in use is told at once.
    listener = _listen(host, port)
    guard = Guard(key, allowed_hosts(host, allowed_host or ()))
    models = Models(list(specs), load, memory, aliases=aliases)
    folders = None
    if folder:
        from erank_lite.search import Folders

        folders = Folders(folder)
    server = Server(models, Settings(guard, None, deadline), folders)
    access = logging.getLogger("erank_lite.access")
    access.setLevel(logging.INFO)
    access.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access.addHandler(handler)
    address = f"http://{_shown(host)}:{listener.getsockname()[1]}"
    say(f"{', '.join(specs)} at {address}; the page is there, the API under {address}/v1/rerank")
    config = uvicorn.Config(
        server.app(), log_level="warning", access_log=False, limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_DRAIN, server_header=False, date_header=True,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        if store is not None:
            store.close()


def _key(file: Path) -> str:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"`{file}` cannot be read: {error}") from None
    key = lines[0].strip() if lines else ""
    if not key:
        raise InputError(f"`{file}` holds no key in its first line")
    return key


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # With the protocol named, asyncio sends what is small at once (TCP_NODELAY).
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_CONNECTIONS)
    except OSError as error:
        raise InputError(
            f"{host} port {port} cannot be served: {error.strerror or error}",
            "give another --port, or 0 for a free one",
        ) from None
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
