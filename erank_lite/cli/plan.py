"""`erank-lite plan`: what would run a model on this machine, and why."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from erank_lite.cli import options
from erank_lite.cli.output import printable
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import gib

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    model: Annotated[
        str,
        typer.Argument(help="As --model of rerank; no weights are downloaded.", show_default=False),
    ],
    engine: Annotated[str, typer.Option(help="As --engine of rerank.")] = "auto",
    option: options.EngineOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the plan for `model`.

    Raises:
        ErankLiteError: the name of the model or of the engine, or an option, cannot be used.
    """
    from erank_lite.cli.inspect import looks_like_erank
    from erank_lite.engines.choose import plan as plan_model
    from erank_lite.machine.hardware import probe
    from erank_lite.models.gguf import GGUFFile
    from erank_lite.models.inspect import inspect
    from erank_lite.models.ref import ModelRef

    ref = ModelRef.parse(model)
    found = plan_model(inspect(ref), probe(), engine, options.engine_options(option))
    if as_json:
        facts = {"model": model} | dataclasses.asdict(found)
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
    for line in found.alternatives:
        typer.echo(f"  not {line}")
    if ref.kind == "file" and ref.path is not None:
        typer.echo(f"  looks like ERank: {printable(looks_like_erank(GGUFFile.read(ref.path)))}")
