"""`erank-lite compare`: how far models, types and engines are from a reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from erank_lite.benchmarks.fidelity.compare import compare, table
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.record import RECORDS, command_line
from erank_lite.benchmarks.runner import Job, Settings
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.cli.eval import check, displays, say
from erank_lite.cli.terminal import Terminal, printable


def run(
    reference: str,
    others: Sequence[str],
    collections: Sequence[str],
    out: Path,
    settings: Settings,
    first_stage: FirstStage,
    queries: int | None,
    floor: bool,
    **options: Any,
) -> None:
    """Compare, and print a table for each collection.

    Raises:
        ErankLiteError: something that was given cannot be used, or a model cannot go on.
    """
    check(settings, out)
    base = ModelSpec.parse(reference, **options)
    specs = [ModelSpec.parse(other, **options) for other in others]
    with displays() as progress:
        for spec in (base, *specs):
            spec.bring(progress(spec.label))  # a name that is wrong is told before hours of work
    for collection in [c for name in collections for c in open_collections(name)]:
        part = collection if queries is None else collection.first(queries)
        candidates, _ = first_stage.of(part, out, say)
        job = Job.of(part, candidates, settings)
        with displays() as progress:
            found = compare(
                base,
                specs,
                job,
                out,
                command=command_line(),
                floor=floor,
                say=say,
                progress=progress,
            )
        _show(found)
    say(f"the records are in {out / RECORDS}")


def _show(found: dict[str, Any]) -> None:
    reference = found["reference"]
    typer.echo(
        printable(
            f"{found['collection']}: {found['queries']} queries, {found['documents']} documents; "
            f"reference {reference['name']} ({reference['ran']}), "
            f"nDCG@10 {reference['nDCG@10']:.4f}"
        )
    )
    head, rows = table(found)
    shown = Table(box=None, pad_edge=False)
    shown.add_column(head[0], overflow="fold", min_width=12)
    for name in head[1:]:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(printable, row))
    Terminal().print(shown)
