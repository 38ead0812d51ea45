"""`erank-lite eval`: a model on judged collections."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage, bright, evaluate
from erank_lite.benchmarks.record import RECORDS, Record, command_line
from erank_lite.benchmarks.runner import Job, Settings
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.cli.convert import shown_progress
from erank_lite.cli.terminal import Terminal, printable
from erank_lite.errors import InputError
from erank_lite.families.erank.prompt import instruction_text
from erank_lite.families.erank.score import parse_thinking
from erank_lite.types import Progress

_EVERY = 60.0  # seconds between two lines where there is no terminal


def run(
    collections: Sequence[str],
    model: str,
    out: Path,
    settings: Settings,
    first_stage: FirstStage,
    queries: int | None,
    alpha: float,
    **options: Any,
) -> None:
    """Evaluate one model and print the measures.

    Raises:
        ErankLiteError: something that was given cannot be used, or the model cannot go on.
    """
    check(settings, out)
    spec = ModelSpec.parse(model, **options)
    found = [c for name in collections for c in open_collections(name)]
    with displays() as progress:
        spec.bring(progress(spec.label))  # a name that is wrong is told before BM25 reads
    records = []
    for collection in found:
        whole = queries is None or queries >= len(collection.queries)
        part = collection if whole or queries is None else collection.first(queries)
        candidates, found_by = first_stage.of(part, out, say)
        job = Job.of(part, candidates, settings)
        with job_progress(f"{spec.label}, {collection.name}") as progress:
            result = evaluate(
                spec,
                job,
                found_by,
                first_stage.depth,
                out,
                command=command_line(),
                alpha=alpha,
                whole=whole,
                say=say,
                progress=progress,
            )
        _show(result, alpha)
        records.append(result)
    mean = bright(records)
    if mean is not None:
        typer.echo("BRIGHT, mean of nDCG@10: " + _line(mean))
    say(f"the runs are in {out / 'runs'}, the records in {out / RECORDS}")


def check(settings: Settings, out: Path) -> None:
    """Refuse a setting, or a place for results, before anything is read."""
    # A job that is ended from outside says what is kept, as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    instruction_text(settings.instruction)
    parse_thinking(settings.thinking)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None


def say(line: str) -> None:
    """Print a line for people, where results do not go."""
    typer.echo(printable(line), err=True)


@contextlib.contextmanager
def job_progress(name: str) -> Iterator[Progress]:
    """Yield a function that shows how far a job is: a bar, or a line a minute where none can be."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    begun, first, told = 0.0, 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        bytes_shown = None
        bars, task = None, None

        def show(stage: str, done: int, total: int) -> None:
            nonlocal begun, first, told, bytes_shown, bars, task
            if stage != "documents":
                if bytes_shown is None:
                    bytes_shown = stack.enter_context(shown_progress())
                bytes_shown(stage, done, total)
                return
            now = time.monotonic()
            if not console.is_terminal:
                begun, first = (begun, first) if begun else (now, done)
                if now - told >= _EVERY and done > first:
                    told = now
                    left = (total - done) * (now - begun) / (done - first)
                    say(f"{name}: {done} of {total} documents, about {left / 60:.0f} min left")
                return
            if bars is None:
                stack.pop_all().close()  # one display at a time
                bars = stack.enter_context(Bars(*columns, console=console, transient=True))
                task = bars.add_task(printable(name), total=total, completed=done)
            assert task is not None
            bars.update(task, completed=done)

        yield show


@contextlib.contextmanager
def displays() -> Iterator[Callable[[str], Progress]]:
    """Yield a function that shows one job after the other: each ends the display before."""
    with contextlib.ExitStack() as stack:

        def progress(name: str) -> Progress:
            stack.close()
            return stack.enter_context(job_progress(name))

        yield progress


def _show(result: Record, alpha: float) -> None:
    measures = result["measures"]
    rows = {"first stage": measures["first stage"], "reranked": measures["reranked"]}
    if "hybrid" in measures:
        best = max(measures["hybrid"], key=lambda a: measures["hybrid"][a]["nDCG@10"])
        for a in dict.fromkeys((str(alpha), best)):
            rows[f"hybrid, alpha {a}" + " (the best here)" * (a == best)] = measures["hybrid"][a]
    title = f"{result['model']} on {result['collection']}: {result['queries']} queries, "
    title += f"{result['documents']} documents, first stage {result['first_stage']}"
    table = Table(box=None, pad_edge=False, title=printable(title), title_justify="left")
    table.add_column("")
    for name in rows["reranked"]:
        table.add_column(name, justify="right", no_wrap=True)
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.4f}" for value in values.values()))
    Terminal().print(table)
    if result["published"]:
        typer.echo("published, BF16: " + _line(result["published"]))
    if result["failed"]:
        say(f"{result['failed']} documents could not be scored; they rank last")
    sys.stdout.flush()


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
