"""`erank-lite search`: passages of one's own files that answer a query."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES, Terminal, interrupt_when_ended, printable, say
from erank_lite.errors import InputError, ModelError
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import counted

if TYPE_CHECKING:
    from erank_lite.reranker import Reranker
    from erank_lite.search import Index, Passage, Update

app = typer.Typer(add_completion=False)
_INTERRUPTED = 130
_SHOWN = 10
_AROUND, _EXCERPT = 60, 320  # characters before the marked sentence, and of all that is shown


@app.command(epilog=EXIT_CODES)
def search(
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER...",
            help="Where: folders, with all below them that is neither hidden nor ignored by "
            ".gitignore, or files. Text, Markdown, code, HTML, PDF, docx, e-mail (.eml, .mbox) and "
            "notebooks are read.",
            show_default="the current folder",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="What judges the passages, as for rerank.")
    ] = "erank-tiny",
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passages that the model reads, the first of BM25's.",
            show_default="20, or as many as it reads in 10 seconds here",
        ),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="Have the model judge; else BM25's order.")
    ] = True,
    within: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Show the best order that is found in so many seconds of reading.",
            show_default="no limit",
        ),
    ] = None,
    family: options.Family = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="What relevance means, as for rerank.", show_default="beir"),
    ] = None,
    thinking: options.Thinking = "full",
    top_k: Annotated[int, typer.Option(min=1, metavar="K", help="Show the best K.")] = _SHOWN,
    every_passage: Annotated[
        bool, typer.Option("--all", help="Show every passage, not the best of each file.")
    ] = False,
    unread: Annotated[
        bool, typer.Option("--unread", help="List every file that could not be read, and why.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object a line, best first: path, line, heading, text, score (the "
            "default when piped).",
        ),
    ] = False,
    option: options.EngineOption = None,
) -> None:
    """Bring the index of the folders up to date, and print the passages that answer the query.

    Raises:
        ErankLiteError: a folder, an option or the model cannot be used.
        typer.Exit: with one of `EXIT_CODES`.
    """
    from erank_lite.effort import Effort
    from erank_lite.families import checked_family
    from erank_lite.families.base import parse_thinking
    from erank_lite.load import check
    from erank_lite.search import Index
    from erank_lite.search.search import (
        CANDIDATES,
        as_many_as_fit,
        best_of_each_file,
        documents,
        judged,
    )

    if not query.strip():
        raise InputError("the query is empty", "give the words to look for")
    given = options.engine_options(option)
    effort = Effort(within=within)
    if within is not None and not rerank:
        raise InputError("--within is for what the model reads", "leave --no-rerank out")
    parse_thinking(thinking)
    if rerank:
        checked_family(family, model, instruction)
        check(model, options=given)
    interrupt_when_ended()
    where = folders or [Path()]
    as_lines = as_json or not sys.stdout.isatty()
    with ExitStack() as stack:
        index = stack.enter_context(Index())
        _tell(_updated(index, where), unread)
        found = index.search(query, where, candidates or CANDIDATES)
        reranker = None
        if rerank and found:
            reranker = stack.enter_context(_loaded(model, family, thinking, given))
            if candidates is None and within is None:
                found = found[: as_many_as_fit(query, found, reranker)]
            forecast = reranker.forecast([(query, documents(found))], instruction)
            if forecast is not None and within is None:
                say(f"{counted(len(found), 'passage')}, {forecast}")
        passages: list[Passage] = []
        stopped: KeyboardInterrupt | ModelError | None = None
        began = time.monotonic()
        with _shown(as_lines, len(found), top_k) as show:
            try:
                for passages in judged(query, found, reranker, index.stemmer, effort, instruction):
                    order = passages if every_passage else best_of_each_file(passages)
                    show(passages, order)
            except (KeyboardInterrupt, ModelError) as error:
                stopped = error
        took = time.monotonic() - began
    order = (passages if every_passage else best_of_each_file(passages))[:top_k]
    if as_lines:
        _print_lines(order)
    else:
        _print(order)
    sys.stdout.flush()
    read = sum(each.score is not None for each in passages)
    if not passages:
        say("nothing was found")
    elif reranker is not None:
        say(f"{read} of {counted(len(passages), 'passage')} read in {took:.1f} s")
    if isinstance(stopped, KeyboardInterrupt):
        raise typer.Exit(_INTERRUPTED)
    if stopped is not None:
        raise stopped


def _updated(index: Index, where: Sequence[Path]) -> Update:
    from erank_lite.cli.progress import TerminalReporter

    with TerminalReporter() as reporter:
        return index.update(where, reporter)


@contextmanager
def _loaded(
    model: str, family: str | None, thinking: str, given: dict[str, Any]
) -> Iterator[Reranker]:
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.load import load
    from erank_lite.reranker import Reranker
    from erank_lite.results.store import ResultStore

    with TerminalReporter() as reporter:
        loaded = load(model, options=given, reporter=reporter)
    with loaded, ResultStore() as store:
        yield Reranker(loaded, family=family, thinking=thinking, results=store)


def _tell(update: Update, everything: bool) -> None:
    """Say what is searched, and what could not be read."""
    parts = [counted(update.files, "file"), counted(update.passages, "passage")]
    new = f" ({update.read:,} new or changed)" if update.read else ""
    other = f"; {update.other:,} without text" if update.other else ""
    failed = f"; {len(update.failures):,} could not be read" if update.failures else ""
    hint = ", see --unread" if update.failures and not everything else ""
    say(f"{', '.join(parts)}{new}{other}{failed}{hint}")
    for path, why in sorted(update.failures.items()) if everything else ():
        say(f"  {_name(path)}: {why}")


@contextmanager
def _shown(as_lines: bool, count: int, top_k: int) -> Iterator[Any]:
    """Give what shows the order as it settles, on a terminal; it is gone at the end."""
    console = Terminal(stderr=True)
    if as_lines or not console.is_terminal:
        yield lambda passages, order: None
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(passages: Sequence[Passage], order: Sequence[Passage]) -> None:
            read = sum(each.result is not None for each in passages)
            lines = [_head(place, each) for place, each in enumerate(order[:top_k], 1)]
            live.update(
                Text("\n").join([*lines, Text(f"{read} of {count} read", "dim")]), refresh=True
            )

        yield show


def _print(order: Iterable[Passage]) -> None:
    console = Terminal(highlight=False, soft_wrap=False)
    for place, passage in enumerate(order, 1):
        console.print(_head(place, passage))
        console.print(Padding(_excerpt(passage), (0, 0, 1, 4)))


def _head(place: int, passage: Passage) -> Text:
    """Return a line that says where a passage is, under what, and its score."""
    found = passage.found
    head = Text(f"{place:2}  ", no_wrap=True, overflow="ellipsis")
    link = f"link {found.path.as_uri()}" if _is_text(found.path) else ""
    head.append(_where(passage), style=f"bold {link}".strip())
    if passage.score is not None:
        head.append(f"  {passage.score:.1f}", style="cyan")
    if found.heading:
        head.append(f"  {printable(found.heading)}", style="dim")
    return head


def _where(passage: Passage) -> str:
    name, number = printable(_name(passage.found.path)), passage.number
    if number is None:
        return name
    unit = passage.found.unit
    return f"{name}:{number}" if unit == "line" else f"{name}, {unit} {number}"


def _excerpt(passage: Passage) -> Text:
    """Return the marked sentences, and what stands around them."""
    text, marks = passage.found.text, passage.marks
    begin = max(0, marks[0][0] - _AROUND) if marks else 0
    if begin:  # at a word
        begin = text.find(" ", begin, marks[0][0]) + 1 or begin
    end = min(len(text), max(begin + _EXCERPT, marks[-1][1] if len(marks) == 1 else 0))
    shown = Text("\u2026 " if begin else "")
    at = begin
    for start, stop in marks:
        if start >= end:
            break
        shown.append(_plain(text[at:start]), style="dim")
        shown.append(_plain(text[start : min(stop, end)]), style="bold")
        at = min(stop, end)
    shown.append(_plain(text[at:end]), style="dim")
    if end < len(text):
        shown.append(" \u2026", style="dim")
    return shown


def _plain(text: str) -> str:
    space = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() and text.strip() else ""
    return printable(space + " ".join(text.split()) + after)


def _name(path: Path) -> str:
    """Return a path as people know it: from the current folder, where it lies below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _is_text(path: Path) -> bool:
    try:
        os.fspath(path).encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


def _print_lines(order: Iterable[Passage]) -> None:
    for passage in order:
        found = passage.found
        unit = found.unit or "line"
        result = passage.result or {}
        line: dict[str, Any] = {
            "path": _name(found.path),
            "line": passage.number if unit == "line" else None,
            **({} if unit == "line" else {unit: passage.number}),
            "heading": found.heading,
            "text": found.text,
            "score": passage.score if result else found.score,
            "sentences": [found.text[start:end] for start, end in passage.marks],
            **{
                name: result[name] for name in ("probability", "level", "failure") if name in result
            },
            "first_stage_score": found.score,
        }
        sys.stdout.buffer.write(json_line(line).encode("utf-8", "backslashreplace") + b"\n")
