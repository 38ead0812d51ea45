"""The commands that measure: their options. What they do is loaded when one is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from erank_lite.cli.app import EXIT_CODES, app, output

_COLLECTION = (
    "A folder in BEIR's layout, of BRIGHT or FollowIR as their data sets lie on the hub, or a name "
    "of ir_datasets such as beir/scifact/test or msmarco-passage/trec-dl-2019/judged."
)
_MODEL = (
    "As --model of rerank, with options of its engine after commas: "
    "erank-tiny:Q4_K_M,sequences=8 or FOLDER,engine=transformers,dtype=float32."
)
_Out = Annotated[
    Path,
    typer.Option(help="Folder of what is made; the same command goes on there where it was."),
]
_FirstStage = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="TREC run whose documents are reranked.", show_default="BM25 as in the paper"
    ),
]
_Depth = Annotated[
    int, typer.Option(min=1, help="So many of the first stage's documents are reranked.")
]
_Queries = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Only the collection's first so many.", show_default="all"),
]
_Instruction = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="As for rerank.", show_default="the benchmark's own"),
]
_Thinking = Annotated[
    str, typer.Option(help="full, none, or the most tokens of reasoning before the answer.")
]
_Truncate = Annotated[
    int, typer.Option(min=1, help="Cut the query and each document to so many tokens.")
]
_Strict = Annotated[
    bool, typer.Option("--strict", help="One document at a time: repeatable to the last bit.")
]
_DEFAULT_OUT = Path("erank-lite-results")
_DEPTH, _TRUNCATION = 100, 2048


@app.command("eval", epilog=EXIT_CODES)
def evaluate(
    collections: Annotated[
        list[str], typer.Argument(metavar="COLLECTION...", help=_COLLECTION, show_default=False)
    ],
    model: Annotated[str, typer.Option(help=_MODEL)] = "erank-tiny",
    out: _Out = _DEFAULT_OUT,
    first_stage: _FirstStage = None,
    depth: _Depth = _DEPTH,
    queries: _Queries = None,
    alpha: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Weight of the first stage in the hybrid run.")
    ] = 0.2,
    instruction: _Instruction = None,
    thinking: _Thinking = "full",
    truncate_length: _Truncate = _TRUNCATION,
    strict: _Strict = False,
) -> None:
    """Rerank judged collections and measure the order: nDCG@10, MRR, MAP, recall, p-MRR."""
    from erank_lite.benchmarks.quality.evaluate import FirstStage
    from erank_lite.benchmarks.runner import Settings
    from erank_lite.cli.eval import run

    with output():
        run(
            collections,
            model,
            out,
            Settings(instruction, thinking, truncate_length),
            FirstStage(depth, first_stage),
            queries,
            alpha,
            **_options(strict),
        )


@app.command(epilog=EXIT_CODES)
def compare(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="What the others are compared with, mostly the checkpoint in BF16. " + _MODEL,
            show_default=False,
        ),
    ],
    others: Annotated[
        list[str],
        typer.Argument(metavar="OTHER...", help="As the reference.", show_default=False),
    ],
    collection: Annotated[
        list[str], typer.Option(metavar="COLLECTION", help=_COLLECTION, show_default=False)
    ],
    out: _Out = _DEFAULT_OUT,
    first_stage: _FirstStage = None,
    depth: _Depth = _DEPTH,
    queries: _Queries = None,
    instruction: _Instruction = None,
    thinking: _Thinking = "full",
    truncate_length: _Truncate = _TRUNCATION,
    strict: _Strict = False,
    floor: Annotated[
        bool,
        typer.Option(
            "--floor/--no-floor",
            help="Compare the reference with itself in another batch shape too.",
        ),
    ] = True,
) -> None:
    """Measure how far types, engines or models are from a reference, on scores and order."""
    from erank_lite.benchmarks.quality.evaluate import FirstStage
    from erank_lite.benchmarks.runner import Settings
    from erank_lite.cli.compare import run

    with output():
        run(
            reference,
            others,
            collection,
            out,
            Settings(instruction, thinking, truncate_length),
            FirstStage(depth, first_stage),
            queries,
            floor,
            **_options(strict),
        )


@app.command(epilog=EXIT_CODES)
def benchmark(
    collections: Annotated[
        list[str], typer.Argument(metavar="COLLECTION...", help=_COLLECTION, show_default=False)
    ],
    model: Annotated[
        str, typer.Option(help="A checkpoint: a folder, a name on the hub, or erank-tiny.")
    ] = "erank-tiny",
    types: Annotated[
        str,
        typer.Option(
            help="GGUF types, with commas; +imatrix behind one quantizes it with an importance "
            "matrix."
        ),
    ] = "BF16,Q8_0,Q4_K_M,Q4_K_M+imatrix",
    other: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="MODEL",
            help="Compare this too, such as a GPTQ checkpoint: FOLDER,engine=gptq.",
            show_default=False,
        ),
    ] = None,
    out: _Out = _DEFAULT_OUT,
    first_stage: _FirstStage = None,
    depth: _Depth = 20,
    queries: Annotated[
        int, typer.Option(min=0, help="Only each collection's first so many; 0 means all.")
    ] = 20,
    thinking: _Thinking = "full",
    truncate_length: _Truncate = _TRUNCATION,
    speed: Annotated[bool, typer.Option(help="Measure speed too.")] = True,
) -> None:
    """Measure quality, fidelity and speed of a model's types, and write the report."""
    from erank_lite.benchmarks.quality.evaluate import FirstStage
    from erank_lite.benchmarks.runner import Settings
    from erank_lite.cli.benchmark import run

    with output():
        run(
            collections,
            model,
            types,
            other or [],
            out,
            FirstStage(depth, first_stage),
            Settings(None, thinking, truncate_length),
            queries,
            speed,
        )


@app.command(epilog=EXIT_CODES)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Records (JSON), or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("erank-lite-report"),
) -> None:
    """Make a page, plots and tables of what eval, compare and benchmark measured."""
    from erank_lite.cli.report import run

    with output():
        run(results, out)


def _options(strict: bool) -> dict[str, Any]:
    return {"strict": True} if strict else {}
