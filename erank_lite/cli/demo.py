"""`erank-lite demo`: five queries over documents that come along, by the model that does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from erank_lite.cli.convert import shown_progress
from erank_lite.cli.rerank import document_progress
from erank_lite.cli.terminal import printable
from erank_lite.models import PACKAGED, model_file
from erank_lite.reranker import Reranker, ranked

_SHOWN = 4
_NEXT = """\
[bold]Your own documents[/bold], one a line, or as .jsonl, .csv, a folder of text files:

  erank-lite rerank --query "your question" documents.txt

[bold]ERank-4B[/bold], which reasons at length and judges far better (8 GB, downloaded once):

  erank-lite rerank --model Alibaba-NLP/ERank-4B --query "your question" documents.txt
"""


def queries() -> list[dict[str, Any]]:
    """Return the demo's queries, each with its `documents` and whether they are `answers`."""
    file = Path(__file__).with_name("demo.json")
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return found


def run() -> None:
    """Rerank the demo's documents and print the best of each query.

    Raises:
        ModelError: the model cannot be converted or loaded.
    """
    console = Console(highlight=False)
    begun = time.monotonic()
    with shown_progress() as progress:
        path = model_file(PACKAGED, progress)
    ready = time.monotonic()
    count = 0
    with Reranker(path) as reranker:
        for query in queries():
            documents = query["documents"]
            with document_progress(reranker.engine) as bar:
                results = ranked(
                    list(bar.track(reranker.iter_rerank(query["query"], documents),
                                   total=len(documents)))
                )  # fmt: skip
            count += len(results)
            _print(console, query["query"], results)
    took = time.monotonic() - ready
    console.print(
        f"{PACKAGED}: made ready in {ready - begun:.1f} s; "
        f"{count} documents in {took:.1f} s, {count / took:.0f} a second\n"
    )
    console.print(_NEXT)


def _print(console: Console, query: str, results: list[dict[str, Any]]) -> None:
    console.print(Text(f"{query}", style="bold") + Text(f"  ({len(results)} documents)"))
    for result in results[:_SHOWN]:
        mark = "✓" if result["answers"] else " "
        head = Text(f"{mark} {result['rank_score']:5.2f}  {result['content']}")
        console.print(Padding(head, (0, 0, 0, 1)))
        console.print(Padding(Text(printable(result["reasoning"]), style="dim"), (0, 0, 0, 10)))
    rest = [f"{r['rank_score']:.2f}" for r in results[_SHOWN:]]
    console.print(Padding(Text(f"  the others: {', '.join(rest)}\n"), (0, 0, 0, 1)))
