"""`erank-lite report`: a page with tables and plots of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from erank_lite.benchmarks.report import read_records, write_report
from erank_lite.cli.terminal import printable


def run(sources: Sequence[str | Path], out: Path) -> None:
    """Write the report of the records in `sources` into the folder `out`.

    Raises:
        ErankLiteError: there is no record, one cannot be used, or the folder cannot be written to.
    """
    records = read_records(sources)
    page = write_report(records, out)
    plots = len(list(out.glob("*.png")))
    told = f"{printable(str(page))}  {len(records)} records, {plots} plots, tables in tables.md"
    typer.echo(told, err=True)
