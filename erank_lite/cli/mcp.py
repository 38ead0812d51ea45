"""`erank-lite mcp`: tools for programs that speak the Model Context Protocol."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES
from erank_lite.errors import missing_extra

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def mcp(
    model: Annotated[
        str, typer.Option(help="As for rerank, or the address of erank-lite serve.")
    ] = "erank-tiny",
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder whose files the tools search and read may be used on. Repeat for several.",
            show_default="none: only the tool rerank",
        ),
    ] = None,
    thinking: options.Thinking = "full",
    option: options.EngineOption = None,
) -> None:
    """Serve the tools over standard input and output until the client goes away.

    Raises:
        ErankLiteError: an option cannot be used.
    """
    if importlib.util.find_spec("mcp") is None:
        raise missing_extra("serving tools", "mcp", "mcp")
    from erank_lite.families.base import parse_thinking
    from erank_lite.mcp import make_server

    parse_thinking(thinking)
    given = options.engine_options(option)
    folders = None
    if folder:
        from erank_lite.search import Folders

        folders = Folders(folder)
    make_server(model, folders, thinking=thinking, **given).run()
