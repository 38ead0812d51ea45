"""`erank-lite doctor`: what this machine has, what runs on it, and what would make it better."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from erank_lite.cli.terminal import printable
from erank_lite.engines.choosing import Choice, choose
from erank_lite.load import PUBLISHER, offer, this_machine
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.planning import PUBLISHED, gib

_REBUILD = 'CMAKE_ARGS="-DGGML_{}=on" pip install --force-reinstall --no-cache-dir llama-cpp-python'
# What each package does when it is really loaded; a package that is installed may still fail here.
_DEEP = {
    "llama_cpp": "import llama_cpp as l; print('GPU:', l.llama_supports_gpu_offload())",
    "torch": (
        "import torch as t; c = t.cuda; print(t.__version__, 'CUDA:', "
        "[c.get_device_name(i) for i in range(c.device_count())], "
        "'MPS:', t.backends.mps.is_available())"
    ),
    "transformers": "import transformers as t; t.AutoModelForCausalLM; print(t.__version__)",
    "gptqmodel": (
        "import os; os.environ.setdefault('GPTQMODEL_CPU_WORKERS', '2')\n"
        "import gptqmodel as g; g.GPTQModel; print(g.__version__)"
    ),
}
_DEEP_TIMEOUT = 180


def run(as_json: bool, deep: bool) -> None:
    """Print the machine's facts, a plan for each ERank model, and what to do about them."""
    machine = this_machine()
    choices = {name: choose(offer(f"{PUBLISHER}{name}"), machine) for name in PUBLISHED}
    advice = list(_advice(machine, choices))
    loaded = {name: _loaded(code) for name, code in _DEEP.items()} if deep else {}
    if as_json:
        facts: dict[str, Any] = {
            "hardware": dataclasses.asdict(machine),
            "plans": {name: dataclasses.asdict(choice) for name, choice in choices.items()},
            "advice": advice,
        }
        typer.echo(json.dumps(facts | ({"loaded": loaded} if deep else {}), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_facts(machine, loaded))
    console.print(_table(choices))
    for line in advice or ["Nothing to mend."]:
        typer.echo(line)


def _loaded(code: str) -> str:
    """Return what a package says of itself in a process of its own, or why it cannot be loaded."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_DEEP_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"does not load within {_DEEP_TIMEOUT} seconds"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = printable(said[-1]) if said else f"exit code {done.returncode}"
    if done.returncode == 0:
        return f"loads: {last}"
    missing = "No module named" in last
    return "not installed" if missing else f"does not load: {last}"


def _facts(machine: Hardware, loaded: Mapping[str, str]) -> Table:
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
    extras = [f"{name} {version}" for name, version in machine.extras.items()]
    table.add_row("extras", ", ".join(extras) or "none")
    for name, said in loaded.items():
        table.add_row(name, said)
    table.add_row("", "")
    return table


def _table(choices: Mapping[str, Choice]) -> Table:
    table = Table(box=None, pad_edge=False)
    left = ("model", "engine", "as", "fits")
    for name in (*left, "GPU layers", "together", "GPU memory", "memory"):
        justify: Literal["left", "right"] = "left" if name in left else "right"
        table.add_column(name, justify=justify, no_wrap=name in left)
    for name, choice in choices.items():
        plan = choice.plan
        assert plan is not None
        table.add_row(
            name, choice.engine, choice.type or "BF16", "yes" if plan.fits else "no",
            str(plan.gpu_layers), str(plan.documents), gib(plan.gpu_memory), gib(plan.memory),
        )  # fmt: skip
    return table


def _advice(machine: Hardware, choices: Mapping[str, Choice]) -> Iterator[str]:
    if machine.llama is None:
        yield "llama.cpp is not installed: pip install llama-cpp-python"
    built = machine.llama.backends if machine.llama else ()
    for kind, flag in (("cuda", "CUDA"), ("metal", "METAL")):
        gpus = [g.name for g in machine.gpus if g.kind == kind]
        if gpus and built and kind not in built:
            yield (
                f"llama.cpp was built without {flag}, so {', '.join(gpus)} does nothing for it; "
                f"build it again: {_REBUILD.format(flag)}"
            )
    if any(g.kind == "cuda" for g in machine.gpus):
        if "gptqmodel" not in machine.extras:
            yield "to run GPTQ checkpoints on the GPU: pip install 'erank-lite[gptq]'"
        elif not machine.torch_has_cuda:
            yield (
                "the torch that is installed cannot use the GPU: install it again as "
                "https://pytorch.org/get-started says for CUDA"
            )
    name, smallest = next(iter(choices.items()))
    if smallest.plan is not None and not smallest.plan.fits:
        yield (
            f"{name} as {smallest.type} wants {gib(smallest.plan.memory)} of memory, and "
            f"{gib(machine.memory_free)} is free: end other programs, or take erank-tiny"
        )
