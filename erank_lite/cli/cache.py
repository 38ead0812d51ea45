"""`erank-lite cache`: the downloads, conversions and results that are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from erank_lite.cli.output import printable, say
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import file_size

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list", help="List what is kept.")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print what the cache holds."""
    from erank_lite.models.cache import list_cache
    from erank_lite.results.store import kept_results
    from erank_lite.search.file import kept_index
    from erank_lite.util.cache_folder import cache_folder

    entries = [*list_cache(), *kept_results(), *kept_index()]
    if as_json:
        for entry in entries:
            typer.echo(json_line({**vars(entry), "path": str(entry.path)}))
        return
    name_width = max((len(entry.name) for entry in entries), default=0)
    what_width = max((len(entry.what) for entry in entries), default=0)
    for entry in entries:
        head = f"{entry.name:{name_width}}  {entry.what:{what_width}}"
        typer.echo(printable(f"{head}  {file_size(entry.size):>8}  {entry.path}"))
    say(f"{file_size(sum(entry.size for entry in entries))} in {cache_folder()}")


@app.command("clear", help="Remove what is kept; it is downloaded or made again when needed.")
def remove(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One model, or results or search, as the list has it.", show_default="all"
        ),
    ] = None,
) -> None:
    """Remove what the cache holds of `name`, or all of it.

    Raises:
        ErankLiteError: it holds nothing of that name, or it cannot be removed.
    """
    from erank_lite.models.cache import clear_cache
    from erank_lite.results.store import KEPT_AS, clear_results
    from erank_lite.search.file import KEPT_AS as INDEX
    from erank_lite.search.file import clear_index
    from erank_lite.util.cache_folder import cache_folder

    removed = clear_results() if name in (None, KEPT_AS) else 0
    removed += clear_index() if name in (None, INDEX) else 0
    if name not in (KEPT_AS, INDEX):
        removed += clear_cache(name)
    say(f"{file_size(removed)} removed from {cache_folder()}")
