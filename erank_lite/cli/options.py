"""Options that several commands have, with the same words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erank_lite.cli.output import interrupt_when_ended
from erank_lite.engines import ENGINES
from erank_lite.engines.options import EngineOptions
from erank_lite.errors import InputError
from erank_lite.util.options import parse_assignments

if TYPE_CHECKING:
    from erank_lite.benchmarks.runner import Settings

MODEL = (
    "As --model of rerank, with its engine and options of it after commas: "
    "erank-tiny,sequences=8 or FOLDER,engine=gptq."
)
COLLECTION = (
    "A folder in BEIR's layout, of BRIGHT or FollowIR as their data sets lie on the Hub, or a name "
    "of ir_datasets such as beir/scifact/test or msmarco-passage/trec-dl-2019/judged."
)
RESULTS = Path("erank-lite-results")
DEPTH = 100

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Collections = Annotated[
    list[str], typer.Argument(metavar="COLLECTION...", help=COLLECTION, show_default=False)
]
Out = Annotated[Path, typer.Option(help="Folder of the results; the same command resumes there.")]
FirstStage = Annotated[
    Path | None,
    typer.Option(
        "--first-stage",
        help="Saved run whose documents are reranked: a TREC run, or BRIGHT's score.json.",
        show_default="BM25 as in the paper",
    ),
]
Depth = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="How many of the first stage's documents are reranked."),
]
Queries = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Only the collection's first N.", show_default="all"),
]
Instruction = Annotated[
    str | None, typer.Option(help="As for rerank.", show_default="the benchmark's own")
]
Thinking = Annotated[
    str, typer.Option(help="full, none, or the maximum tokens of reasoning before the answer.")
]
Truncation = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Cut the query and each document to N tokens.",
        show_default="the family's own: 2048 for erank",
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the model is asked, and how its answer is read: one of `erank-lite families`.",
        show_default="what the model's name tells, else erank",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="One document at a time: a score never depends on the others. Slower."
    ),
]


def _engines_options() -> str:
    """Return the names of all options: those of every engine, then each engine's own."""
    common = [field.name for field in fields(EngineOptions)]
    parts = [f"All engines: {', '.join(common)}."]
    for name, spec in ENGINES.items():
        own = [f.name for f in fields(spec.load_options()) if f.name not in common]
        parts.append(f"{name}: {', '.join(own)}.")
    return " ".join(parts)


EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--option",
        metavar="NAME=VALUE",
        help=f"An option of the engine; may be repeated. {_engines_options()}",
        show_default=False,
    ),
]


def engine_options(assignments: Iterable[str] | None, **flags: Any) -> dict[str, Any]:
    """Return the engine's options: those of -o, and of flags those that are not None.

    Raises:
        InputError: one of -o is not NAME=VALUE, or an option is given twice.

    Example:
        >>> engine_options(["sequences=4"], threads=2, device=None)
        {'sequences': '4', 'threads': 2}
    """
    options: dict[str, Any] = parse_assignments(assignments or ())
    for name, value in flags.items():
        if value is None:
            continue
        if name in options:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"both {flag} and -o {name} are given", "give one of them")
        options[name] = value
    return options


def prepared(settings: Settings, out: Path) -> Settings:
    """Return `settings`, once they are known to be usable.

    Raises:
        InputError: a setting cannot be used, or the folder cannot be written.
    """
    from erank_lite.families.base import parse_thinking

    # A job that is ended from outside says what is kept, as one that is interrupted.
    interrupt_when_ended()
    parse_thinking(settings.thinking)
    # Made with its first file: what is refused before leaves no empty folder.
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"`{out}` cannot be written", "give another folder by --out")
    return settings
