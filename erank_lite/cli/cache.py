"""`erank-lite cache`: what is kept of downloads and conversions."""

from __future__ import annotations

import json

import typer

from erank_lite.cli.terminal import printable
from erank_lite.models.prepare import cache_folder, cached, clear


def show(as_json: bool) -> None:
    """Print what the cache holds."""
    entries = cached()
    if as_json:
        for entry in entries:
            typer.echo(json.dumps({**vars(entry), "path": str(entry.path)}, ensure_ascii=False))
        return
    width = max((len(entry.name) for entry in entries), default=0)
    what = max((len(entry.what) for entry in entries), default=0)
    for entry in entries:
        line = (
            f"{entry.name:{width}}  {entry.what:{what}}  {entry.size / 1e9:7.2f} GB  {entry.path}"
        )
        typer.echo(printable(line))
    total = sum(entry.size for entry in entries)
    typer.echo(f"{total / 1e9:.2f} GB in {cache_folder()}", err=True)


def remove(name: str | None) -> None:
    """Remove what the cache holds of `name`, or all of it.

    Raises:
        ErankLiteError: it holds nothing of that name, or it cannot be removed.
    """
    typer.echo(f"{clear(name) / 1e9:.2f} GB removed from {cache_folder()}", err=True)
