"""`erank-lite convert`: a checkpoint as a GGUF file, with what it takes and how far it is."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from erank_lite.cli.terminal import printable
from erank_lite.convert.needs import Needs, amount
from erank_lite.convert.to_gguf import check_type, convert_gguf
from erank_lite.models import PACKAGED, checkpoint_folder
from erank_lite.types import Progress as Report


def run(source: str, out: Path, kind: str, force: bool, threads: int | None) -> None:
    """Convert `source` to `out`.

    Raises:
        ErankLiteError: it cannot be done.
    """
    check_type(kind)
    # Ended from outside, it tidies up as when it is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with shown_progress() as progress:
            folder = checkpoint_folder(source, progress)
            convert_gguf(
                folder, out, kind, force=force, threads=threads, writes_prose=source != PACKAGED,
                announce=_announce, progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing is left of the conversion", err=True)
        raise
    typer.echo(f"{printable(str(out))}  {amount(out.stat().st_size)}", err=True)


def _announce(needs: Needs) -> None:
    typer.echo(
        f"the file will have {amount(needs.size)}; on the way it takes {amount(needs.disk)} of "
        f"disk, {amount(needs.memory)} of memory and about {_time(needs.seconds)}",
        err=True,
    )


@contextlib.contextmanager
def shown_progress() -> Iterator[Report]:
    """Yield a function that shows on a terminal how far each stage is, by bytes."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    stages: dict[str, TaskID] = {}
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total)
            progress.update(stages[stage], completed=done, total=total)

        yield show


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
