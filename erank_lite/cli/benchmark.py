"""`erank-lite benchmark`: everything at once, and the report."""

from __future__ import annotations

from typing import Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import EXIT_CODES

app = typer.Typer(add_completion=False)


@app.command(epilog=EXIT_CODES)
def benchmark(
    collections: options.Collections,
    model: Annotated[
        str, typer.Option(help="A checkpoint: a folder, a name on the Hub, or erank-tiny.")
    ] = "erank-tiny",
    types: Annotated[
        str,
        typer.Option(
            help="GGUF types, with commas; +imatrix behind one quantizes it with an importance "
            "matrix."
        ),
    ] = "BF16,Q8_0,Q4_K_M,Q4_K_M+imatrix",
    other: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Compare this too, such as a GPTQ checkpoint: FOLDER,engine=gptq.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = options.RESULTS,
    first_stage: options.FirstStage = None,
    depth: options.Depth = 20,
    queries: Annotated[
        int, typer.Option(min=0, help="Only each collection's first N; 0 means all.")
    ] = 20,
    thinking: options.Thinking = "full",
    truncate_length: options.Truncation = None,
    speed: Annotated[bool, typer.Option(help="Measure speed too.")] = True,
) -> None:
    """Measure, write the report, and print where its page is.

    Raises:
        ErankLiteError: something that was given cannot be used, or a model cannot go on.
    """
    from erank_lite.benchmarks.quality.datasets import open_collections
    from erank_lite.benchmarks.quality.evaluate import FirstStage
    from erank_lite.benchmarks.record import command_line
    from erank_lite.benchmarks.runner import Settings
    from erank_lite.benchmarks.spec import ModelSpec
    from erank_lite.benchmarks.suite import Suite
    from erank_lite.cli.progress import TerminalReporter

    settings = options.prepared(Settings(None, thinking, truncate_length), out)
    found = [c for name in collections for c in open_collections(name)]
    suite = Suite(
        model,
        [quant_type.strip() for quant_type in types.split(",") if quant_type.strip()],
        [ModelSpec.parse(text) for text in other or ()],
        FirstStage(depth, first_stage),
        settings,
        speed,
    )
    with TerminalReporter() as reporter:
        page = suite.run(
            [c.first(queries) if queries else c for c in found],
            out,
            command=command_line(),
            whole=not queries or all(queries >= len(c.queries) for c in found),
            reporter=reporter,
        )
    typer.echo(str(page))
