"""`erank-lite demo`: five queries over bundled documents, by the bundled model."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from erank_lite.cli.output import EXIT_CODES, Terminal, interrupt_when_ended, printable
from erank_lite.util.units import counted

app = typer.Typer(add_completion=False)
_SHOWN = 4
_INDENT = 9  # what stands before a document: its mark and its rank score
_BEFORE = """\
{model} reads each document with the query and scores it from 0 to 10. The number is
score × Pr(score), which makes the order; {mark} marks the text that answers, in the query's
words or in others. A model this small is wrong now and then, and it does not reason; a
larger one says why.
"""
_NEXT = """\
Your own documents, one a line, or as .jsonl, .csv, a folder of text files:

  erank-lite rerank --query "your question" documents.txt

ERank-4B, which reasons at length and judges far better (8 GB, downloaded once):

  erank-lite rerank --model Alibaba-NLP/ERank-4B --query "your question" documents.txt
"""


def queries() -> list[dict[str, Any]]:
    """Return the demo's queries, each with its `documents` and whether they are `answers`."""
    file = Path(__file__).with_name("demo.json")
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return found


@app.command(epilog=EXIT_CODES)
def demo() -> None:
    """Rerank the demo's documents and print the best of each query.

    Raises:
        ModelError: the model cannot be converted or loaded.
    """
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.models.checkpoint import BUNDLED_MODEL
    from erank_lite.models.prepare import gguf_file
    from erank_lite.models.ref import ModelRef
    from erank_lite.reranker import Reranker, sort_results

    # Ended from outside, a conversion tidies up as when it is interrupted.
    interrupt_when_ended()
    console = Terminal(highlight=False)
    mark = "✓" if console.encoding.lower().startswith("utf") else "*"
    console.print(_BEFORE.format(model=BUNDLED_MODEL, mark=mark), soft_wrap=True)
    begun = time.monotonic()
    with TerminalReporter() as reporter:
        path = gguf_file(ModelRef.parse(BUNDLED_MODEL), reporter=reporter)
        ready = time.monotonic()
        count = 0
        with Reranker(path) as reranker:
            reporter.watch(reranker.engine)
            for query in queries():
                documents, results = query["documents"], []
                reporter.progress("documents", 0, len(documents), "documents")
                for result in reranker.iter_rerank(query["query"], documents):
                    results.append(result)
                    reporter.progress("documents", len(results), len(documents), "documents")
                count += len(results)
                _print(console, query["query"], sort_results(results), mark)
    took = time.monotonic() - ready
    console.print(
        f"{BUNDLED_MODEL}: made ready in {ready - begun:.1f} s; "
        f"{count} documents in {took:.1f} s, {count / took:.0f} a second\n",
        soft_wrap=True,
    )
    console.print(Text(_NEXT), soft_wrap=True)  # lines to be copied are not broken


def _print(console: Terminal, query: str, results: list[dict[str, Any]], mark: str) -> None:
    # Only a terminal has a width; what goes to a file or another program is not wrapped.
    width = max(console.width, 2 * _INDENT) if console.is_terminal else 10_000
    console.print(
        Text(query, style="bold") + f"  ({counted(len(results), 'document')})", soft_wrap=True
    )
    for result in results[:_SHOWN]:
        head = f" {mark if result['answers'] else ' '} {_number(result):>5}"
        for line in textwrap.wrap(result["content"], width - _INDENT):
            console.print(Text(f"{head:{_INDENT}}{line}"), soft_wrap=True)
            head = ""
        if result["failure"]:
            console.print(Text(" " * _INDENT + printable(result["failure"]), style="dim"))
    rest = ", ".join(map(_number, results[_SHOWN:]))
    console.print(f"   the others: {rest}\n", soft_wrap=True)


def _number(result: dict[str, Any]) -> str:
    return "-" if result["rank_score"] is None else f"{result['rank_score']:.2f}"
