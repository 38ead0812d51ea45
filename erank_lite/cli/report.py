"""`erank-lite report`: a page with tables and plots of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from erank_lite.cli.output import EXIT_CODES, say
from erank_lite.util.units import counted

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Records (JSON), or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("erank-lite-report"),
) -> None:
    """Write the report of the records in `results` into the folder `out`.

    Raises:
        ErankLiteError: there is no record, one cannot be used, or the folder cannot be written to.
    """
    from erank_lite.benchmarks.report import read_records, write_report

    records = read_records(results)
    page = write_report(records, out)
    plots = len(list(out.glob("*.png")))
    say(f"{page}  {counted(len(records), 'record')}, {counted(plots, 'plot')}, tables in tables.md")
