"""`erank-lite plan`: what would run a model on this machine, and why."""

from __future__ import annotations

import dataclasses
import json

import typer

from erank_lite.cli.terminal import printable
from erank_lite.engines import check_name
from erank_lite.engines.choosing import choose
from erank_lite.load import offer, this_machine
from erank_lite.machine.planning import gib


def run(model: str, engine: str, as_json: bool) -> None:
    """Print the plan for `model`.

    Raises:
        ErankLiteError: the name of the model or of the engine cannot be used.
    """
    if engine != "auto":
        check_name(engine)
    choice = choose(offer(model), this_machine(), engine)
    if as_json:
        typer.echo(json.dumps({"model": model} | dataclasses.asdict(choice), ensure_ascii=False))
        return
    typer.echo(f"{printable(model)}{f' as {choice.type}' if choice.type else ''}: {choice.engine}")
    for reason in choice.reasons:
        typer.echo(f"  {reason}")
    if choice.plan is not None:
        memory = f"{gib(choice.plan.memory)} of memory"
        if choice.plan.gpu_memory:
            memory += f", {gib(choice.plan.gpu_memory)} of the GPU's"
        typer.echo(f"  {memory}{'' if choice.plan.fits else ': it does not fit'}")
    for line in choice.refused:
        typer.echo(f"  not {line}")
