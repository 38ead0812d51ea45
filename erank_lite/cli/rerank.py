"""`erank-lite rerank`: documents in, a table or JSON lines out."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.table import Table
from rich.text import Text

from erank_lite.cli import options
from erank_lite.cli.documents import Record, content_of, read_documents
from erank_lite.cli.output import EXIT_CODES, Terminal, interrupt_when_ended, printable, say
from erank_lite.errors import InputError, ModelError
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import counted

app = typer.Typer(add_completion=False)
_log = logging.getLogger(__name__)
_INTERRUPTED, _ALL_FAILED = 130, 3
_LONGEST_START = 60.0  # seconds that a process can take to come here


def _shares(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


@app.command(epilog=EXIT_CODES)
def rerank(
    docs: Annotated[
        list[str],
        typer.Argument(
            help="Documents: .jsonl or .json (content or text, and optionally id and "
            "first_stage_score), .csv or .tsv with such columns, a folder of text files, .txt (one "
            "document a line), or any other file and - for standard input, read by their look.",
            show_default=False,
        ),
    ],
    query: Annotated[
        str, typer.Option(metavar="TEXT", help="What to look for.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="GGUF file, folder of a BF16 or GPTQ checkpoint, name on the Hugging Face Hub "
            "such as Alibaba-NLP/ERank-4B, with :TYPE and @REVISION if wanted (downloaded and "
            "converted once, then kept), or address of a server, http://…",
            show_default="erank-tiny, the small bundled one",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="auto (what suits the model and machine), llama.cpp, gptq, transformers or remote."
        ),
    ] = "auto",
    family: options.Family = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="What relevance means: free text, or a benchmark's name such as beir, trec-dl, "
            "followir, bright/aops.",
            show_default="beir",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Print only the best K.", show_default="all"),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="A",
            help="Rank by the hybrid with first_stage_score, which has the weight A.",
            show_default=False,
        ),
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="With --alpha, how scores are made comparable: z (z-scores), minmax (from 0 to "
            "1), or plain (as they are).",
            show_default="z",
        ),
    ] = None,
    thinking: options.Thinking = "full",
    depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Read only the first N documents, by --first-pass, else by first_stage_score, "
            "else as they come; the others follow in that order.",
            show_default="all",
        ),
    ] = None,
    first_pass: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model, such as erank-tiny, that orders the documents before --depth or a "
            "budget decides which are read.",
            show_default="none",
        ),
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Print the best order that is found in so many seconds from the start.",
            show_default="no limit",
        ),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="As --within, counted in tokens that the model writes.",
            show_default="no limit",
        ),
    ] = None,
    truncate_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Cut the query and each document to N tokens.",
            show_default="no cut",
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache",
            help="Keep results, and find those of an earlier run: the same document is not read "
            "twice. Kept are scores, under hashes; no text.",
        ),
    ] = False,
    keep_reasoning: Annotated[
        bool, typer.Option("--keep-reasoning", help="With --cache, keep the reasoning too.")
    ] = False,
    show_reasoning: Annotated[
        bool, typer.Option("--show-reasoning", help="Print the model's reasoning.")
    ] = False,
    strict: options.Strict = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object a line, best first (the default when piped)."
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads.", show_default="physical cores"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Of gptq and transformers: cpu, cuda, cuda:1, mps.", show_default="the best"
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json to use instead of the model's; for a server, the checkpoint's "
            "folder or the GGUF file that it serves.",
            show_default=False,
        ),
    ] = None,
    option: options.EngineOption = None,
    # Flags from before -o, which has them all: kept for the scripts that use them.
    sequences: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    context_length: Annotated[int | None, typer.Option(min=256, hidden=True)] = None,
    gpu_layers: Annotated[int | None, typer.Option(min=-1, hidden=True)] = None,
    tensor_split: Annotated[Any, typer.Option(parser=_shares, hidden=True)] = None,
    flash_attention: Annotated[
        bool | None, typer.Option("--flash-attention/--no-flash-attention", hidden=True)
    ] = None,
    kv_type: Annotated[str | None, typer.Option(hidden=True)] = None,
    dtype: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print the documents of `docs`, best first.

    Raises:
        ErankLiteError: the input, an option or the model cannot be used.
        typer.Exit: with one of `EXIT_CODES`.
    """
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.effort import Effort
    from erank_lite.families import DEFAULT, checked_family
    from erank_lite.families.base import parse_thinking
    from erank_lite.forecast import announce
    from erank_lite.hybrid import hybrid_scores
    from erank_lite.load import load
    from erank_lite.models.checkpoint import BUNDLED_MODEL
    from erank_lite.reranker import Reranker, sort_results
    from erank_lite.results.store import ResultStore

    given = options.engine_options(
        option, strict=strict or None, threads=threads, device=device, tokenizer=tokenizer,
        sequences=sequences, context_length=context_length, gpu_layers=gpu_layers,
        tensor_split=tensor_split, flash_attention=flash_attention, kv_type=kv_type, dtype=dtype,
    )  # fmt: skip
    records = read_documents(docs)
    _check(query, records, alpha)
    if hybrid is not None and alpha is None:
        raise InputError("--hybrid is a form of --alpha's hybrid", "give --alpha too")
    hybrid = hybrid or "z"
    hybrid_scores([], alpha or 0.0, hybrid)
    checked_family(family, model, instruction)
    parse_thinking(thinking)
    # The start of the process counts: loading is part of what is waited for.
    end = None if within is None else time.monotonic() - _since_start() + within
    Effort(depth, within, token_budget)
    if keep_reasoning and not cache:
        raise InputError("--keep-reasoning keeps it with the results", "give --cache too")
    if show_reasoning and cache and not keep_reasoning:
        raise InputError(
            "a result that is found again has no reasoning to show", "give --keep-reasoning too"
        )
    if first_pass is not None and depth is None and within is None and token_budget is None:
        raise InputError(
            "--first-pass alone changes nothing: every document is read all the same",
            "say how many are to be, as in --depth 30",
        )
    if first_pass is not None:
        _check_first_pass(first_pass)
    # A job that is ended from outside prints what is finished, as one that is interrupted.
    interrupt_when_ended()
    if model is None:
        say(
            f"no --model: using {BUNDLED_MODEL}, the small bundled model; "
            "--model Alibaba-NLP/ERank-4B is far better"
        )
    results: list[dict[str, Any]] = []
    stopped: KeyboardInterrupt | ModelError | None = None
    with (
        TerminalReporter() as reporter,
        ResultStore(keep_reasoning=keep_reasoning) if cache else nullcontext() as store,
        load(BUNDLED_MODEL if model is None else model, engine, given, reporter) as loaded,
    ):
        reranker = Reranker(
            loaded,
            family=family,
            thinking=thinking,
            first_pass=first_pass,
            results=store,
            reporter=reporter,
        )
        reporter.watch(loaded)
        documents = [r | {"content": content_of(r)} for r in records]
        if within is None:
            announce(
                reranker, [(query, documents)], reporter, instruction, truncate_length, depth=depth
            )
        start = time.monotonic()
        effort = Effort(depth, None if end is None else end - start, token_budget)
        try:
            asked = len(documents[:depth])
            reporter.progress("documents", 0, asked, "documents")
            for result in reranker.iter_rerank(
                query, documents, instruction, truncate_length, effort=effort
            ):
                results.append(result)
                reporter.progress("documents", min(asked, len(results)), asked, "documents")
        except (KeyboardInterrupt, ModelError) as error:
            if isinstance(error, ModelError) and not results:
                raise
            stopped = error
        took, tokens = time.monotonic() - start, loaded.tokens_generated
    results = sort_results(results)
    if alpha is not None:
        results = hybrid_scores(results, alpha, hybrid)
    if as_json or not sys.stdout.isatty():
        spared = effort != Effort()
        _print_lines(results[:top_k], records, alpha is not None, show_reasoning, spared)
    else:
        _print_table(results[:top_k], alpha is not None, show_reasoning)
    sys.stdout.flush()
    failed = sum(r["failure"] is not None for r in results)
    speed = f"{counted(tokens, 'token')} in {took:.1f} s ({tokens / max(took, 1e-3):.0f} tokens/s)"
    summary = f"{counted(len(results), 'document')}, {speed}, by {loaded.description}"
    if reranker.family is not DEFAULT:
        summary += f", asked as {reranker.family.name}"
    if stopped is None:
        summary += _spared(results)
    if failed:
        summary += f"; {failed} could not be scored (see `failure`)"
    if stopped is not None:
        why = "broken off" if isinstance(stopped, ModelError) else "interrupted"
        of = f"{len(records) - len(results):,} of {counted(len(records), 'document')}"
        summary += f"; {why} with {of} unread"
    say(summary)
    if isinstance(stopped, KeyboardInterrupt):
        raise typer.Exit(_INTERRUPTED)
    if stopped is not None:
        raise stopped
    if failed == len(records):
        raise typer.Exit(_ALL_FAILED)


def _check_first_pass(model: str) -> None:
    """Find a name that is wrong before the other model is downloaded and loaded."""
    from erank_lite.load import check

    try:
        check(model)
    except (InputError, ModelError) as error:
        raise type(error)(f"--first-pass: {error.message}", error.hint) from None


def _check(query: str, records: Sequence[Record], alpha: float | None) -> None:
    """Find what would fail later, before the model is loaded."""
    if not records:
        raise InputError("there are no documents in the input")
    if not query.strip():
        raise InputError("the query is empty", "give the words to look for")
    if alpha is not None:
        missing = [i for i, r in enumerate(records) if r.get("first_stage_score") is None]
        if missing:
            more = f", nor have {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                "--alpha needs a first_stage_score for every document; the one at index "
                f"{missing[0]} has none{more}"
            )
    ids = Counter(str(r["id"]) for r in records if r.get("id") is not None)
    for name, count in ids.most_common(1):
        if count > 1:
            _log.warning("%d documents have the id %r; `index` tells them apart", count, name)


def _since_start() -> float:
    """Return the seconds since this process began; 0 where the clock was set since."""
    began = time.time() - psutil.Process().create_time()
    return began if 0 < began < _LONGEST_START else 0.0


def _spared(results: Sequence[dict[str, Any]]) -> str:
    """Return how many documents were not read to the end, in words; nothing where all were."""
    unread = sum(r["level"] is None for r in results)
    stopped = sum(isinstance(r["level"], int) for r in results)
    if not unread and not stopped:
        return ""
    if unread == len(results):
        return "; no document could be read: they are as they came, or as the first stage has them"
    read = sum(r["level"] == "full" and r["failure"] is None for r in results)
    parts = [f"{read} read through"]
    parts += [f"{stopped} stopped"] if stopped else []
    return f"; {', '.join([*parts, f'{unread} unread'])}"


def _print_lines(
    results: Sequence[dict[str, Any]],
    records: Sequence[Record],
    hybrid: bool,
    reasoning: bool,
    spared: bool,
) -> None:
    """Print a line of JSON for each result: its record's own keys as they came, and ours."""
    for result in results:
        names = ["rank", "index", "score", "probability", "rank_score"]
        names += ["level", "estimate"] * spared
        names += ["hybrid_score"] * hybrid + ["reasoning"] * reasoning
        names += ["forced", "truncated", "failure", "engine"]
        names += ["completion"] * (result["failure"] is not None)
        line = json_line(records[result["index"]] | {name: result[name] for name in names})
        # A lone surrogate has no UTF-8; as an escape, which is what this makes, JSON has it.
        sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _print_table(results: Sequence[dict[str, Any]], hybrid: bool, reasoning: bool) -> None:
    console = Terminal()
    console.print(_table(results, hybrid))
    if reasoning:
        for result in results:
            text = result["reasoning"] or result["completion"]
            console.print(
                Text(f"\n{result['rank']}. ", style="bold")
                + Text("\n".join(map(printable, text.split("\n"))))
            )


def _table(results: Sequence[dict[str, Any]], hybrid: bool) -> Table:
    columns = {
        "rank": [str(r["rank"]) for r in results],
        "rank score": [_rank_score(r) for r in results],
        "score": ["-" if r["score"] is None else str(r["score"]) for r in results],
        "probability": [_number(r["probability"]) for r in results],
    }
    if hybrid:
        columns["hybrid"] = [_number(r["hybrid_score"]) for r in results]
    if any(r.get("first_stage_score") is not None for r in results):
        columns["first stage"] = [_number(r.get("first_stage_score")) for r in results]
    table = Table(box=None, pad_edge=False)
    for name, cells in columns.items():
        # On a narrow terminal a column's name is cut, never its numbers.
        head = Text(name, no_wrap=True, overflow="ellipsis")
        table.add_column(head, justify="right", min_width=max(map(len, cells), default=0))
    table.add_column("document", ratio=1, min_width=12)
    for row in zip(*columns.values(), map(_snippet, results), strict=True):
        table.add_row(*row)
    return table


def _snippet(result: dict[str, Any]) -> Text:
    """Return the document's beginning, with what is to be said of it, for one line."""
    snippet = Text(printable(" ".join(result["content"][:500].split())))
    level = result["level"]
    read = "unread" if level is None else "stopped" * (level != "full")
    marks = [read, result["failure"] or "", "forced" * (result["forced"] and not read)]
    note = ", ".join(filter(None, (*marks, "truncated" * result["truncated"])))
    if note:
        snippet = Text(f"[{printable(note)}] ", style="yellow") + snippet
    snippet.no_wrap, snippet.overflow = True, "ellipsis"
    return snippet


def _rank_score(result: dict[str, Any]) -> str:
    """Return what a document is placed by; an estimate with a mark."""
    if result["estimate"] is not None:
        return f"~{_number(result['estimate'])}"
    return _number(result["rank_score"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
