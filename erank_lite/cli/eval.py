"""`erank-lite eval`: a model on judged collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES, print_table, printable, say
from erank_lite.util.units import counted

if TYPE_CHECKING:
    from erank_lite.benchmarks.record import Record

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def evaluate(
    collections: options.Collections,
    model: Annotated[str, typer.Option(help=options.MODEL)] = "erank-tiny",
    out: options.Out = options.RESULTS,
    first_stage: options.FirstStage = None,
    depth: options.Depth = options.DEPTH,
    queries: options.Queries = None,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, metavar="A", help="Weight of the first stage in the hybrid run."
        ),
    ] = 0.2,
    family: options.Family = None,
    instruction: options.Instruction = None,
    thinking: options.Thinking = "full",
    truncate_length: options.Truncation = None,
    strict: options.Strict = False,
    option: options.EngineOption = None,
) -> None:
    """Evaluate one model and print the measures.

    Raises:
        ErankLiteError: something that was given cannot be used, or the model cannot go on.
    """
    from erank_lite.benchmarks.quality import evaluate as quality
    from erank_lite.benchmarks.quality.datasets import open_collections
    from erank_lite.benchmarks.record import RECORDS, command_line
    from erank_lite.benchmarks.runner import Job, Settings
    from erank_lite.benchmarks.spec import ModelSpec
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.families import checked_family

    settings = options.prepared(Settings(instruction, thinking, truncate_length), out)
    given = options.engine_options(option, strict=strict or None)
    spec = ModelSpec.parse(model, family=family, **given)
    checked_family(spec.family, spec.model, instruction)
    found = [c for name in collections for c in open_collections(name)]
    source = quality.FirstStage(depth, first_stage)
    records = []
    with TerminalReporter() as reporter:
        spec.resolve(reporter)  # a name that is wrong is reported before BM25 reads
        for collection in found:
            whole = queries is None or queries >= len(collection.queries)
            part = collection if whole or queries is None else collection.first(queries)
            candidates, found_by = source.retrieve(part, out, reporter)
            result = quality.evaluate(
                spec, Job.from_candidates(part, candidates, settings), found_by, depth, out,
                command=command_line(), alpha=alpha, whole=whole, reporter=reporter,
            )  # fmt: skip
            _show(result, alpha)
            records.append(result)
    mean = quality.bright(records)
    if mean is not None:
        typer.echo("BRIGHT, mean of nDCG@10: " + _line(mean))
    say(f"the runs are in {out / 'runs'}, the records in {out / RECORDS}")


def _show(result: Record, alpha: float) -> None:
    measures = result["measures"]
    rows = {"first stage": measures["first stage"], "reranked": measures["reranked"]}
    if "hybrid" in measures:
        best = max(measures["hybrid"], key=lambda a: measures["hybrid"][a]["nDCG@10"])
        for a in dict.fromkeys((str(alpha), best)):
            rows[f"hybrid, alpha {a}" + " (the best here)" * (a == best)] = measures["hybrid"][a]
    title = f"{result['model']} on {result['collection']}: {counted(result['queries'], 'query')}, "
    title += f"{counted(result['documents'], 'document')}, first stage {result['first_stage']}"
    typer.echo(printable(title))
    print_table(
        ("", *rows["reranked"]),
        [(name, *(f"{value:.4f}" for value in rows[name].values())) for name in rows],
    )
    if result["published"]:
        typer.echo("published, BF16: " + _line(result["published"]))
    if result["failed"]:
        say(f"not scored, and last in the order: {counted(result['failed'], 'document')}")


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
