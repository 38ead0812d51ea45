"""`erank-lite rerank`: documents in, a table or JSON lines out."""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from erank_lite.cli.convert import shown_progress
from erank_lite.cli.documents import Record, content_of, read_documents
from erank_lite.cli.terminal import Terminal, printable
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.families.erank.prompt import instruction_text
from erank_lite.families.erank.score import parse_thinking
from erank_lite.hybrid import hybrid_scores
from erank_lite.load import load
from erank_lite.models.prepare import BUNDLED_MODEL
from erank_lite.reranker import Reranker, sort_results

_log = logging.getLogger(__name__)
_FIELDS = ("score", "probability", "rank_score")
_MARKS = ("forced", "truncated", "failure", "engine")
_INTERRUPTED, _ALL_FAILED = 130, 3


@dataclass(frozen=True)
class Display:
    """What to print: how many, ranked by which score, with what, and how."""

    top_k: int | None
    alpha: float | None
    reasoning: bool
    json: bool


def run(
    sources: Sequence[str],
    model: str | None,
    query: str,
    instruction: str | None,
    truncate_length: int | None,
    display: Display,
    *,
    engine: str,
    thinking: str,
    **options: Any,
) -> None:
    """Rerank the documents of `sources` and print them.

    Raises:
        ErankLiteError: the input, an option or the model cannot be used.
        typer.Exit: with one of `erank_lite.cli.app.EXIT_CODES`.
    """
    records = read_documents(sources)
    if not records:
        raise InputError("there are no documents in the input")
    _check(query, records, display.alpha)
    instruction_text(instruction)
    parse_thinking(thinking)
    # A job that is ended from outside prints what is finished, as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    docs = [record | {"content": content_of(record)} for record in records]
    results: list[dict[str, Any]] = []
    interrupted, broken = False, None
    if model is None:
        typer.echo(
            f"no --model: {BUNDLED_MODEL} reads them, the small model that comes with erank-lite; "
            "--model Alibaba-NLP/ERank-4B is far better",
            err=True,
        )
    with shown_progress() as progress:
        loaded = load(BUNDLED_MODEL if model is None else model, engine, options, progress)
    with loaded:
        reranker = Reranker(loaded, thinking=thinking)
        start = time.monotonic()
        try:
            with document_progress(reranker.engine) as progress:
                task = progress.add_task("", total=len(docs))
                for result in reranker.iter_rerank(query, docs, instruction, truncate_length):
                    results.append(result)
                    progress.advance(task)
        except KeyboardInterrupt:
            interrupted = True
        except ModelError as error:
            if not results:
                raise
            broken = error
        took, tokens = time.monotonic() - start, reranker.engine.tokens_generated
    results = sort_results(results)
    if display.alpha is not None:
        results = hybrid_scores(results, display.alpha)
    failed = sum(r["failure"] is not None for r in results)
    speed = f"{tokens} tokens in {took:.1f} s ({tokens / max(took, 1e-3):.0f} tokens/s)"
    summary = f"{len(results)} documents, {speed}, by {loaded.description}"
    if failed:
        summary += f"; {failed} could not be scored (see `failure`)"
    if interrupted or broken:
        why = "interrupted" if interrupted else "broken off"
        summary += f"; {why}, {len(docs) - len(results)} documents were not read"
    _print(results[: display.top_k], records, display)
    sys.stdout.flush()
    typer.echo(summary, err=True)
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if broken:
        raise broken
    if failed == len(docs):
        raise typer.Exit(_ALL_FAILED)


def _check(query: str, records: Sequence[Record], alpha: float | None) -> None:
    """Find what would fail later, before the model is loaded."""
    if not query.strip():
        raise InputError("the query is empty: give the words to look for")
    if alpha is not None:
        missing = [i for i, r in enumerate(records) if r.get("first_stage_score") is None]
        if missing:
            raise InputError(
                f"--alpha needs a first_stage_score for every document; {len(missing)} have none, "
                f"the first of them at index {missing[0]}"
            )
    ids = Counter(str(r["id"]) for r in records if r.get("id") is not None)
    for name, count in ids.most_common(1):
        if count > 1:
            _log.warning("%d documents have the id %r; `index` tells them apart", count, name)


class _Speed(ProgressColumn):
    """Tokens generated per second, of all documents together."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def render(self, task: Task) -> Text:
        return Text(f"{self._engine.tokens_generated / max(task.elapsed or 0, 1e-3):.0f} tokens/s")


def document_progress(engine: Engine) -> Progress:
    """Return a bar of documents, shown on a terminal and gone at its end."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), _Speed(engine), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print(results: Sequence[dict[str, Any]], records: Sequence[Record], display: Display) -> None:
    if display.json or not sys.stdout.isatty():
        for result in results:
            line = _json(_line(result, records[result["index"]], display))
            # A lone surrogate has no UTF-8; as an escape, which is what this makes, JSON has it.
            sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        return
    console = Terminal()
    console.print(_table(results, display))
    if display.reasoning:
        for result in results:
            text = result["reasoning"] or result["completion"]
            console.print(
                Text(f"\n{result['rank']}. ", style="bold")
                + Text("\n".join(map(printable, text.split("\n"))))
            )


def _json(value: Any) -> str:
    """Return one line of JSON; NaN and infinities, which Python reads but JSON lacks, are null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value


def _line(result: dict[str, Any], record: Record, display: Display) -> dict[str, Any]:
    """Return the input's own keys and ours."""
    added = {"rank": result["rank"], "index": result["index"]}
    added |= {name: result[name] for name in _FIELDS}
    if display.alpha is not None:
        added["hybrid_score"] = result["hybrid_score"]
    if display.reasoning:
        added["reasoning"] = result["reasoning"]
    added |= {name: result[name] for name in _MARKS}
    if result["failure"] is not None:
        added["completion"] = result["completion"]
    return record | added


def _table(results: Sequence[dict[str, Any]], display: Display) -> Table:
    table = Table(box=None, pad_edge=False)
    numbers = ["rank", "rank score", "score", "probability"]
    first_stage = any(r.get("first_stage_score") is not None for r in results)
    numbers += ["hybrid"] * (display.alpha is not None) + ["first stage"] * first_stage
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=" " not in name)
    # A column that may wrap is narrowed first; its cells do not wrap all the same.
    table.add_column("document", ratio=1, min_width=12)
    for r in results:
        score = "-" if r["score"] is None else str(r["score"])
        cells = [str(r["rank"]), _number(r["rank_score"]), score, _number(r["probability"])]
        if display.alpha is not None:
            cells.append(_number(r["hybrid_score"]))
        if first_stage:
            cells.append(_number(r.get("first_stage_score")))
        snippet = Text(printable(" ".join(r["content"][:500].split())))
        marks = [r["failure"] or "", "forced" * r["forced"], "truncated" * r["truncated"]]
        note = ", ".join(m for m in marks if m)
        if note:
            snippet = Text(f"[{printable(note)}] ", style="yellow") + snippet
        snippet.no_wrap, snippet.overflow = True, "ellipsis"
        table.add_row(*cells, snippet)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
