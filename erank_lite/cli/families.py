"""`erank-lite families`: which rerankers run here, and where each was taken from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from erank_lite.cli.output import EXIT_CODES, Terminal
from erank_lite.util.json_lines import json_line

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def families(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print the families."""
    from erank_lite.families import FAMILIES

    console = Terminal(highlight=False)
    for family in FAMILIES.values():
        row = {
            "name": family.name, "models": list(family.models), "asked_about": family.unit,
            "highest_rank_score": int(family.best), "source": family.source,
            "licence": family.licence, "verified": family.verified,
        }  # fmt: skip
        if as_json:
            typer.echo(json_line(row))
            continue
        console.print(Text(family.name, style="bold"))
        for name, value in row.items():
            if name != "name":
                shown = ", ".join(value) if isinstance(value, list) else str(value)
                console.print(Text(f"  {name.replace('_', ' ')}: {shown}"), soft_wrap=True)
