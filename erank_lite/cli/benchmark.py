"""`erank-lite benchmark`: everything at once, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.record import command_line
from erank_lite.benchmarks.runner import Settings
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.benchmarks.suite import Suite
from erank_lite.cli.eval import check, displays, say


def run(
    collections: Sequence[str],
    model: str,
    types: str,
    others: Sequence[str],
    out: Path,
    first_stage: FirstStage,
    settings: Settings,
    queries: int,
    speed: bool,
) -> None:
    """Measure, write the report, and print where its page is.

    Raises:
        ErankLiteError: something that was given cannot be used, or a model cannot go on.
    """
    check(settings, out)
    found = [c for name in collections for c in open_collections(name)]
    suite = Suite(
        model,
        [kind.strip() for kind in types.split(",") if kind.strip()],
        [ModelSpec.parse(other) for other in others],
        first_stage,
        settings,
        speed,
    )
    whole = not queries or all(queries >= len(c.queries) for c in found)
    with displays() as progress:
        page = suite.run(
            [c.first(queries) if queries else c for c in found],
            out,
            command=command_line(),
            whole=whole,
            say=say,
            progress=progress,
        )
    typer.echo(str(page))
