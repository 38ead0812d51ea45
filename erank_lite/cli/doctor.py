"""`erank-lite doctor`: what this machine has, what runs on it, and what would make it better."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from erank_lite.choosing import usable_by_llama
from erank_lite.hardware import Hardware
from erank_lite.loading import this_machine
from erank_lite.planning import PUBLISHED, ModelFacts, Plan, Wishes, gib, plan

_TYPES = ("Q4_K_M", "Q8_0")
_REBUILD = 'CMAKE_ARGS="-DGGML_{}=on" pip install --force-reinstall --no-cache-dir llama-cpp-python'


def run(as_json: bool) -> None:
    """Print the machine's facts, a plan for each ERank model, and what to do about them."""
    machine = this_machine()
    usable = usable_by_llama(machine)
    plans = {
        f"{name}:{kind}": plan(ModelFacts.published(name, kind), usable, Wishes())
        for name in PUBLISHED
        for kind in _TYPES
    }
    advice = list(_advice(machine, plans))
    if as_json:
        facts: dict[str, Any] = {
            "hardware": dataclasses.asdict(machine),
            "plans": {name: dataclasses.asdict(p) for name, p in plans.items()},
            "advice": advice,
        }
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_facts(machine))
    console.print(_table(plans))
    for line in advice or ["Nothing to mend."]:
        typer.echo(line)


def _facts(machine: Hardware) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("system", machine.system)
    cores = f"{machine.cores} core{'s' * (machine.cores > 1)}"
    table.add_row("processor", f"{machine.processor}, {cores}: {' '.join(machine.instructions)}")
    table.add_row("memory", f"{gib(machine.memory_free)} free of {gib(machine.memory_total)}")
    for gpu in machine.gpus:
        facts = [f"{gib(gpu.free)} free of {gib(gpu.total)}"]
        if gpu.compute_capability:
            facts.append("compute capability {}.{}".format(*gpu.compute_capability))
        if gpu.driver:
            facts.append(f"driver {gpu.driver}")
        table.add_row("GPU", f"{gpu.name}, {', '.join(facts)}")
    if not machine.gpus:
        table.add_row("GPU", "none that NVIDIA's driver, macOS or llama.cpp names")
    built = machine.llama
    table.add_row(
        "llama.cpp",
        f"llama-cpp-python {built.version}, built for {', '.join(built.backends) or '?'}"
        if built
        else "not installed",
    )
    extras = ", ".join(f"{name} {version}" for name, version in machine.extras.items())
    table.add_row("extras", f"{extras or 'none'}\n")
    return table


def _table(plans: dict[str, Plan]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("model", "fits", "layers on GPU", "together", "GPU memory", "memory"):
        table.add_column(name, justify="left" if name in ("model", "fits") else "right")
    for name, found in plans.items():
        table.add_row(
            name, "yes" if found.fits else "no", str(found.gpu_layers), str(found.documents),
            gib(found.gpu_memory), gib(found.memory),
        )  # fmt: skip
    return table


def _advice(machine: Hardware, plans: dict[str, Plan]) -> Iterator[str]:
    if machine.llama is None:
        yield "llama.cpp is not installed: pip install llama-cpp-python"
    built = machine.llama.backends if machine.llama else ()
    for kind, flag in (("cuda", "CUDA"), ("metal", "METAL")):
        gpus = [g.name for g in machine.gpus if g.kind == kind]
        if gpus and built and kind not in built:
            yield (
                f"llama.cpp was built without {flag}, so {', '.join(gpus)} does nothing; build it "
                f"again: {_REBUILD.format(flag)}"
            )
    smallest = f"{next(iter(PUBLISHED))}:{_TYPES[0]}"
    if not plans[smallest].fits:
        yield (
            f"{smallest} wants {gib(plans[smallest].memory)} of memory, and "
            f"{gib(machine.memory_free)} is free: end other programs, or take erank-tiny"
        )
