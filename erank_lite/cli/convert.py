"""`erank-lite convert`: a checkpoint in another format, with what it takes and how far it is."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from erank_lite.convert.estimate import Estimate, amount
from erank_lite.models.prepare import BUNDLED_MODEL, checkpoint_folder
from erank_lite.types import Progress as Report


def run(
    source: str, out: Path, kind: str, imatrix: str | None, force: bool, threads: int | None
) -> None:
    """Convert `source` to the GGUF file `out`; `imatrix` is a file's name, or auto.

    Raises:
        ErankLiteError: it cannot be done.
    """
    from erank_lite.convert.gguf.convert import check_type, convert_gguf

    check_type(kind)
    with _conversion(source) as (folder, progress):
        convert_gguf(
            folder, out, kind, force=force, threads=threads, check_perplexity=source != BUNDLED_MODEL,
            imatrix=imatrix, announce=_announce("file"), calibrating=_calibrating,
            progress=progress,
        )  # fmt: skip
    typer.echo(f"{printable(str(out))}  {amount(out.stat().st_size)}", err=True)


def run_gptq(source: str, out: Path, force: bool, **options: Any) -> None:
    """Quantize `source` to the folder `out`; `options` are `convert_gptq`'s.

    Raises:
        ErankLiteError: it cannot be done.
    """
    from erank_lite.convert.gptq.convert import convert_gptq

    with _conversion(source) as (folder, progress):
        convert_gptq(
            folder, out, force=force, announce=_announce("result"), calibrating=_calibrating,
            progress=progress, **options,
        )  # fmt: skip
    size = sum(file.stat().st_size for file in out.iterdir())
    typer.echo(f"{printable(str(out))}  {amount(size)}", err=True)


@contextlib.contextmanager
def _conversion(source: str) -> Iterator[tuple[Path, Report]]:
    """Yield the folder of the checkpoint `source`, and what shows the progress."""
    # Ended from outside, it tidies up as when it is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with shown_progress() as progress:
            yield checkpoint_folder(source, progress), progress
    except KeyboardInterrupt:
        typer.echo(
            "interrupted: no file was made; calibration text that the model wrote is kept", err=True
        )
        raise


def _announce(what: str) -> Callable[[Estimate], None]:
    def say(needs: Estimate) -> None:
        typer.echo(
            f"the {what} will have {amount(needs.size)}; on the way it takes {amount(needs.disk)} "
            f"of disk, {amount(needs.memory)} of memory and about {_time(needs.seconds)}",
            err=True,
        )

    return say


def _calibrating(seconds: float) -> None:
    typer.echo(
        f"the model writes its calibration text first: about {_time(seconds)}; it is kept", err=True
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
