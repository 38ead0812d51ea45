"""`erank-lite batch`: a file of many queries in, a file of their rankings out."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES, interrupt_when_ended, say
from erank_lite.errors import InputError
from erank_lite.util.files import locked
from erank_lite.util.units import counted, duration

if TYPE_CHECKING:
    from erank_lite.jobs.inputs import Queries
    from erank_lite.jobs.run import Summary
    from erank_lite.reranker import Reranker

app = typer.Typer(add_completion=False)
_INTERRUPTED, _ALL_FAILED = 130, 3
_SHOWN = 10  # mistakes
_SHARD = re.compile(r"(\d+)/(\d+)\Z")


@app.command(epilog=EXIT_CODES)
def batch(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Lines of JSON, each with id, query, documents (or candidates) and perhaps "
            "instruction; Parquet with such columns; or, with --collection, a saved run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .jsonl (a line for each query), .parquet, or .trec for a TREC "
            "run. If the same job left it unfinished, it is continued.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="As for rerank. Several servers are given with commas between their addresses."
        ),
    ] = "erank-tiny",
    engine: Annotated[str, typer.Option(help="As for rerank.")] = "auto",
    family: options.Family = None,
    collection: Annotated[
        str | None, typer.Option(help=f"Whose queries a run is of. {options.COLLECTION}")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="As for rerank, of queries that bring none.", show_default="beir"),
    ] = None,
    thinking: options.Thinking = "full",
    depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Read only the first N documents of each query.",
            show_default="all",
        ),
    ] = None,
    truncate_length: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Cut queries and documents to N tokens.", show_default="no cut"
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Write only the best K.", show_default="all"),
    ] = None,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Write the model's reasoning, too.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, from 0: for several machines, each with its own OUT.",
            show_default="all",
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            metavar="stop|skip",
            help="What to do about a query that cannot be used: stop before anything is computed, "
            "or do the others and tell.",
        ),
    ] = "stop",
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, and replace OUT if it is there.")
    ] = False,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Keep every document's result, so that nothing is read twice.",
        ),
    ] = True,
    ray: Annotated[
        bool, typer.Option("--ray", help="Have the workers of a Ray cluster do it.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of the cluster.", show_default="the one here, or a new one"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --ray: how many load the model.",
            show_default="one for each GPU, else one",
        ),
    ] = None,
    strict: options.Strict = False,
    option: options.EngineOption = None,
) -> None:
    """Rank the documents of every query of IN, and write OUT.

    Raises:
        ErankLiteError: the input, an option or the model cannot be used; what is finished is kept.
        typer.Exit: with one of `EXIT_CODES`.
    """
    from erank_lite.families import checked_family
    from erank_lite.families.base import parse_thinking
    from erank_lite.jobs import outputs
    from erank_lite.jobs.run import Settings, facts
    from erank_lite.jobs.run import shard as part_of
    from erank_lite.load import check

    given = options.engine_options(option, strict=strict or None)
    checked_family(family, model, instruction)
    parse_thinking(thinking)
    part = _shard(shard)
    if on_error not in ("stop", "skip"):
        raise InputError(f"--on-error is stop or skip, not {on_error!r}")
    if (ray_address is not None or workers is not None) and not ray:
        raise InputError("--ray-address and --workers are for --ray", "give --ray too")
    outputs.check(out, force)
    if out.exists() and path.exists() and out.samefile(path):
        raise InputError(f"`{out}` is the input itself", "give another --out")
    check(model, engine, given)
    queries = _opened(path, collection, instruction)
    _tell_mistakes(queries, path, skip=on_error == "skip")
    entries = queries.entries if part is None else part_of(queries.entries, *part)
    if not entries:
        raise InputError("there are no queries to do", f"check `{path}`" if part is None else None)
    settings = Settings(instruction, truncate_length, depth, top_k, reasoning)
    interrupt_when_ended()
    job: dict[str, Any] = facts(queries, settings, part) | {"thinking": thinking}
    job |= {"model": model, "family": family, "engine": engine}
    job["options"] = {k: str(v) for k, v in given.items()}
    if not ray:
        job["weights"] = _weights(model, engine, given)
    skip = on_error == "skip"
    with locked(out, wait=False), outputs.Journal(out, job, force) as journal:
        if len(journal):
            say(f"{len(journal):,} of {counted(len(entries), 'query')} were finished before")
        try:
            if ray:
                summary = _by_ray(
                    queries, entries, journal, settings, skip,
                    {"model": model, "engine": engine, "family": family, "thinking": thinking}
                    | given,
                    ray_address, workers,
                )  # fmt: skip
            else:
                summary = _here(
                    queries,
                    entries,
                    journal,
                    settings,
                    skip,
                    model,
                    engine,
                    family,
                    thinking,
                    given,
                    cache,
                )
        except KeyboardInterrupt:
            say(
                f"interrupted: {len(journal):,} of {counted(len(entries), 'query')} are finished, "
                "and the same command goes on from there"
            )
            raise typer.Exit(_INTERRUPTED) from None
        journal.finish(out)
    _tell(summary, out, len(queries.mistakes))
    if summary.documents and summary.failures == summary.documents:
        raise typer.Exit(_ALL_FAILED)


def _weights(model: str, engine: str, given: dict[str, Any]) -> str:
    """Return what tells the model's weights from others; they are downloaded and converted."""
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.load import resolve
    from erank_lite.models.weights import weights_digest

    with TerminalReporter() as reporter:
        return weights_digest(resolve(model, engine, given, reporter)[1])


def _here(
    queries: Queries, entries: Any, journal: Any, settings: Any, skip: bool,
    model: str, engine: str, family: str | None, thinking: str, given: dict[str, Any],
    cache: bool,
) -> Summary:  # fmt: skip
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.jobs.run import run
    from erank_lite.load import load
    from erank_lite.reranker import Reranker
    from erank_lite.results.store import ResultStore

    with ExitStack() as stack:
        reporter = stack.enter_context(TerminalReporter())
        loaded = stack.enter_context(load(model, engine, given, reporter))
        store = stack.enter_context(ResultStore()) if cache else None
        reranker = Reranker(loaded, family=family, thinking=thinking, results=store)
        _announce(reranker, queries, entries, journal, settings)
        return run(reranker, queries, entries, journal, settings, skip, reporter)


def _by_ray(
    queries: Queries, entries: Any, journal: Any, settings: Any, skip: bool,
    reranker: dict[str, Any], address: str | None, workers: int | None,
) -> Summary:  # fmt: skip
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.jobs.ray import run_on_ray

    with TerminalReporter() as reporter:
        return run_on_ray(
            reranker, queries, entries, journal, settings, skip, reporter,
            address=address, workers=workers,
        )  # fmt: skip


def _announce(
    reranker: Reranker, queries: Queries, entries: Any, journal: Any, settings: Any
) -> None:
    """Say how long it will take, judged by some of the queries."""
    left = [entry for entry in entries if entry.number not in journal]
    some = left[:: max(1, len(left) // 16)]
    asked = [queries.read(entry) for entry in some]
    found = reranker.forecast(
        [(q.text, q.documents, q.instruction) for q in asked],
        settings.instruction, settings.truncate_length, depth=settings.depth,
    )  # fmt: skip
    if found is None or not left:
        return

    def size(those: Any) -> int:
        return sum(min(entry.documents, settings.depth or entry.documents) for entry in those)

    seconds = found.seconds * size(left) / max(1, size(some))
    whole = replace(found, seconds=seconds)
    say(f"{counted(len(left), 'query')}, {counted(size(left), 'document')}: {whole}")


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _SHARD.match(text)
    if found is None:
        raise InputError(f"--shard is I/N, not {text!r}", "for example 0/3, 1/3 and 2/3")
    if not int(found[1]) < int(found[2]):
        raise InputError(
            f"--shard {text} does not exist",
            f"parts are numbered from 0: give 0/{found[2]} for the first"
            if int(found[2])
            else "give at least one part: 0/1",
        )
    return int(found[1]), int(found[2])


def _opened(path: Path, collection: str | None, instruction: str | None) -> Queries:
    from erank_lite.jobs.inputs import Run, open_queries

    if collection is None:
        return open_queries(path)
    from erank_lite.benchmarks.quality.datasets import open_collections
    from erank_lite.benchmarks.quality.first_stage import candidates_from_run

    found = open_collections(collection)
    if len(found) > 1:
        raise InputError(
            f"`{collection}` has {len(found)} parts", "give one of them, FOLDER/SUBSET"
        )
    candidates = candidates_from_run(path, found[0], sys.maxsize)
    wanted = {name for documents in candidates.values() for name, _ in documents}
    relevance = instruction or found[0].benchmark
    return Run(found[0].queries, candidates, found[0].texts(wanted), relevance)


def _tell_mistakes(queries: Queries, path: Path, skip: bool) -> None:
    """Say which queries cannot be used.

    Raises:
        InputError: there are some, and they are not to be skipped.
    """
    if not queries.mistakes:
        return
    count = len(queries.mistakes)
    (where, why), *others = queries.mistakes
    if not skip:
        more = f", and {counted(len(others), 'other')}" if others else ""
        raise InputError(f"`{path}`, {where}: {why}{more}", "mend it, or give --on-error skip")
    for where, why in queries.mistakes[:_SHOWN]:
        say(f"skipped: `{path}`, {where}: {why}")
    if count > _SHOWN:
        say(f"skipped: {count - _SHOWN:,} more")


def _tell(summary: Summary, out: Path, mistakes: int) -> None:
    for name, why in summary.skipped[:_SHOWN]:
        say(f"skipped: query {name}: {why}")
    skipped = len(summary.skipped) + mistakes
    parts = [counted(summary.queries, "query")]
    parts += [f"{summary.before:,} of them before"] if summary.before else []
    parts += [f"{counted(summary.documents, 'document')} in {duration(summary.seconds)}"]
    parts += [f"{summary.failures:,} could not be scored"] if summary.failures else []
    parts += [f"{counted(skipped, 'query')} skipped"] if skipped else []
    say(f"{', '.join(parts)}; written to {out}")
