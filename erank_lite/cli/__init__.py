"""The command line: one module for each command, with its options."""

from __future__ import annotations

import io
import logging
import sys
from typing import Annotated, Any, NoReturn

import typer

from erank_lite.cli.lazy import LazyGroup
from erank_lite.cli.output import (
    lose_messages_that_cannot_be_printed,
    printable,
    silence_output,
)
from erank_lite.errors import ErankLiteError
from erank_lite.version import __version__

COMMANDS = {
    "rerank": "Rank documents for a query, best first.",
    "search": "Find passages of your own files that answer a query.",
    "batch": "Rank the documents of a file of many queries; goes on after anything.",
    "serve": "Serve models over HTTP to every rerank client, with a page to try them.",
    "mcp": "Offer ranking and search as tools to programs that speak the Model Context Protocol.",
    "demo": "Rerank bundled documents with the bundled model; nothing is downloaded.",
    "doctor": "Show what this machine has, which ERank models run on it and how, and what to fix.",
    "families": "List the families of rerankers that run here, and where each was taken from.",
    "plan": "Show which engine would run a model here, as which type, in how much memory, and why.",
    "inspect": "Show what a GGUF file holds, and whether it looks like an ERank model.",
    "convert": "Convert a checkpoint to a file that runs here.",
    "cache": "List or remove the downloads and conversions that are kept.",
    "eval": "Rerank judged collections and measure the order: nDCG@10, MRR, MAP, recall, p-MRR.",
    "compare": "Measure how types, engines or models differ from a reference, in scores and order.",
    "benchmark": "Measure quality, fidelity and speed of a model's types, and write the report.",
    "report": "Make a page, plots and tables of what eval, compare and benchmark measured.",
}

_MAX_MESSAGE = 2000  # characters

app = typer.Typer(
    cls=LazyGroup,
    help="Rerank documents with ERank reasoning rerankers on the machine at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# typer carries its own copy of click or imports it, by version: its base of usage errors is found
# through one that it exports.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def _listed() -> None:
    """Stand for a command in the list of them; `LazyGroup` brings the command itself."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_listed)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"erank-lite {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. See `output.EXIT_CODES`."""
    lose_messages_that_cannot_be_printed()
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from foreign files may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="erank-lite", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ErankLiteError as error:
        _stop(1, error.message, error.hint)
    except KeyboardInterrupt:
        sys.exit(130)
    except _UsageError as error:
        message = error.format_message().rstrip(".")
        if message:
            command = error.ctx.command_path if error.ctx else "erank-lite"
            _stop(2, message[0].lower() + message[1:], f"{command} --help lists the options")
        error.show()  # no command at all: the help
        sys.exit(2)
    except OSError as error:
        if error.filename is not None:
            _stop(1, f"`{error.filename}` cannot be used: {error.strerror}")
        silence_output()
        _stop(1, f"the output cannot be written: {error.strerror}")
    sys.exit(code)


def _stop(code: int, message: str, hint: str | None = None) -> NoReturn:
    typer.echo(f"error: {_line(message)}", err=True)
    if hint is not None:
        typer.echo(f"hint: {_line(hint)}", err=True)
    sys.exit(code)


def _line(text: str) -> str:
    """Return a message as a line: what it quotes may hold line breaks or codes, or be a book."""
    half = _MAX_MESSAGE // 2
    short = text if len(text) <= _MAX_MESSAGE else f"{text[:half]} … {text[-half:]}"
    return printable(short)
