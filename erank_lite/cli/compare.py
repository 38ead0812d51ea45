"""`erank-lite compare`: how far models, types and engines are from a reference."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES, print_table, printable, say
from erank_lite.util.units import counted

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def compare(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="What the others are compared with, mostly the checkpoint in BF16. "
            + options.MODEL,
            show_default=False,
        ),
    ],
    others: Annotated[
        list[str],
        typer.Argument(metavar="OTHER...", help="As the reference.", show_default=False),
    ],
    collection: Annotated[
        list[str], typer.Option(metavar="COLLECTION", help=options.COLLECTION, show_default=False)
    ],
    out: options.Out = options.RESULTS,
    first_stage: options.FirstStage = None,
    depth: options.Depth = options.DEPTH,
    queries: options.Queries = None,
    instruction: options.Instruction = None,
    thinking: options.Thinking = "full",
    truncate_length: options.Truncation = None,
    strict: options.Strict = False,
    floor: Annotated[
        bool,
        typer.Option(
            "--floor/--no-floor",
            help="Compare the reference with itself in another batch shape too.",
        ),
    ] = True,
    option: options.EngineOption = None,
) -> None:
    """Compare, and print a table for each collection.

    Raises:
        ErankLiteError: something that was given cannot be used, or a model cannot go on.
    """
    from erank_lite.benchmarks.fidelity import compare as fidelity
    from erank_lite.benchmarks.quality.datasets import open_collections
    from erank_lite.benchmarks.quality.evaluate import FirstStage
    from erank_lite.benchmarks.record import RECORDS, command_line
    from erank_lite.benchmarks.runner import Job, Settings
    from erank_lite.benchmarks.spec import ModelSpec
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.families import checked_family

    settings = options.prepared(Settings(instruction, thinking, truncate_length), out)
    given = options.engine_options(option, strict=strict or None)
    base, *specs = (ModelSpec.parse(text, **given) for text in (reference, *others))
    for spec in (base, *specs):
        checked_family(spec.family, spec.model, instruction)
    with TerminalReporter() as reporter:
        for spec in (base, *specs):
            spec.resolve(reporter)  # a name that is wrong is reported before hours of work
        for judged in [c for name in collection for c in open_collections(name)]:
            part = judged if queries is None else judged.first(queries)
            candidates, _ = FirstStage(depth, first_stage).retrieve(part, out, reporter)
            found = fidelity.compare(
                base, specs, Job.from_candidates(part, candidates, settings), out,
                command=command_line(), floor=floor, reporter=reporter,
            )  # fmt: skip
            _show(found)
            print_table(*fidelity.table(found))
    say(f"the records are in {out / RECORDS}")


def _show(found: dict[str, Any]) -> None:
    reference = found["reference"]
    title = f"{found['collection']}: {counted(found['queries'], 'query')}, "
    title += f"{counted(found['documents'], 'document')}; "
    title += f"reference {reference['name']} ({reference['ran']}), "
    typer.echo(printable(f"{title}nDCG@10 {reference['nDCG@10']:.4f}"))
