"""What is printed: to a terminal, a file or a program, and to one that no longer reads."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erank_lite.errors import InputError

EXIT_CODES = (
    "Exit codes: 0 done; 1 the input, an option or the model cannot be used; 2 the command line is "
    "wrong; 3 not one document could be scored; 130 interrupted (rerank prints what was finished); "
    "141 the reader of the output went away."
)
_NAME, _GAP = 12, 2  # columns: the least for a table's names, and between two columns


class Terminal(Console):
    """A console that leaves a reader who went away to the caller."""

    def on_broken_pipe(self) -> None:
        """Let the error go on: rich would end the program here, with a code of its own."""
        raise


def interrupt_when_ended() -> None:
    """Have a command that is ended from outside say what is kept, as one that is interrupted.

    SIGHUP comes when the terminal is closed; where nohup has it ignored, it stays so.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


class _Messages(io.FileIO):
    """Standard error, where what cannot be written is lost: it must not cost results."""

    def write(self, data: Any) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def lose_messages_that_cannot_be_printed() -> None:
    """Have a command go on where standard error is a full disk or nobody's any more."""
    stderr = sys.__stderr__
    if stderr is None or stderr is not sys.stderr:
        return
    raw = _Messages(stderr.fileno(), "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw), stderr.encoding, stderr.errors, line_buffering=True
    )


def printable(text: str) -> str:
    """Return `text` with control characters as spaces: foreign text must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(text: str) -> None:
    """Print a line for people, to standard error: standard output is for results."""
    typer.echo(printable(text), err=True)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table; where the terminal is too narrow for it, each row as a line of its own.

    Args:
        head: the columns' names. The first column holds the rows' names, and may be folded.
        rows: a cell for each column.
        left: how many columns are words; the others are numbers, at the right of their columns.
    """
    console = Terminal(highlight=False)
    head, *rows = ([printable(cell) for cell in row] for row in (head, *rows))
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if min(widths[0], _NAME) + sum(_GAP + width for width in widths[1:]) > console.width:
        for name, *cells in rows:
            pairs = zip(head[1:], cells, strict=True)
            console.print(Text(f"{name}: " + ", ".join(f"{key} {cell}" for key, cell in pairs)))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column(head[0], overflow="fold")
    for index, name in enumerate(head[1:], 1):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@contextlib.contextmanager
def output() -> Iterator[None]:
    """End with 141 where the reader went away: typer itself would make it 1."""
    if sys.stdout is None:
        raise InputError("standard output is closed: there is nowhere to print to")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence_output()
        raise typer.Exit(141) from None


def silence_output() -> None:
    """Keep Python from writing to an output that failed once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
