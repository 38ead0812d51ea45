"""`erank-lite plan`: what would run a model on this machine, and why."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import printable
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import counted, gib

_MOST = 1_000_000_000
app = typer.Typer(add_completion=False)


@app.command()
def plan(
    model: Annotated[
        str,
        typer.Argument(help="As --model of rerank; no weights are downloaded.", show_default=False),
    ],
    engine: Annotated[str, typer.Option(help="As --engine of rerank.")] = "auto",
    option: options.EngineOption = None,
    documents: Annotated[
        int,
        typer.Option(min=1, max=_MOST, metavar="N", help="Of the job whose time is foretold."),
    ] = 100,
    document_tokens: Annotated[
        int,
        typer.Option(min=1, max=_MOST, metavar="N", help="Tokens of each of these documents."),
    ] = 300,
    thinking: options.Thinking = "full",
    as_json: options.AsJson = False,
) -> None:
    """Print the plan for `model`, and how long a job takes by it.

    Raises:
        ErankLiteError: the name of the model or of the engine, or an option, cannot be used.
    """
    from erank_lite.cli.inspect import looks_like_erank
    from erank_lite.engines.choose import plan as plan_model
    from erank_lite.families.base import parse_thinking
    from erank_lite.machine.hardware import probe
    from erank_lite.machine.pace import foretell
    from erank_lite.models.gguf import GGUFFile
    from erank_lite.models.inspect import inspect
    from erank_lite.models.ref import ModelRef

    ref = ModelRef.parse(model)
    mode, info = parse_thinking(thinking), inspect(ref)
    found = plan_model(info, probe(), engine, options.engine_options(option))
    forecast = None
    if info.shape is not None:
        shape = info.shape(found.type or "BF16")
        forecast = foretell(shape, found, documents, document_tokens, mode)
    if as_json:
        job = {"documents": documents, "document_tokens": document_tokens, "thinking": mode}
        time = None if forecast is None else dataclasses.asdict(forecast) | job
        facts = {"model": model} | dataclasses.asdict(found) | {"forecast": time}
        typer.echo(json_line(facts, str))
        return
    typer.echo(f"{printable(model)}{f' as {found.type}' if found.type else ''}: {found.engine}")
    for reason in found.reasons:
        typer.echo(f"  {reason}")
    if found.memory is not None:
        memory = f"{gib(found.memory)} of memory"
        if found.gpu_memory:
            memory += f", {gib(found.gpu_memory)} of the GPU's"
        typer.echo(f"  {memory}{'' if found.fits else ': it does not fit'}")
    if forecast is not None:
        work = f"{counted(documents, 'document')} of {counted(document_tokens, 'token')}"
        typer.echo(f"  {work}, --thinking {mode}: {forecast}")
    for line in found.alternatives:
        typer.echo(f"  not {line}")
    if ref.kind == "file" and ref.path is not None:
        typer.echo(f"  looks like ERank: {printable(looks_like_erank(GGUFFile.read(ref.path)))}")
