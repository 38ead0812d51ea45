"""`erank-lite doctor`: what this machine has, what runs on it, and what would make it better."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from erank_lite.cli.options import AsJson
from erank_lite.cli.output import Terminal, print_table, printable
from erank_lite.util import worker
from erank_lite.util.json_lines import json_line
from erank_lite.util.units import duration, gib

if TYPE_CHECKING:
    from erank_lite.machine.hardware import Hardware
    from erank_lite.machine.pace import Forecast
    from erank_lite.machine.plan import Plan
    from erank_lite.machine.shapes import ModelInfo, ModelShape

app = typer.Typer(add_completion=False)
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
_MODES: tuple[str | int, ...] = ("full", 256, "none")
_PLAN = (
    "model", "engine", "type", "fits", "GPU layers", "documents", "GPU memory", "memory",
)  # fmt: skip


@app.command()
def doctor(
    as_json: AsJson = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Load each package too, in a process of its own.")
    ] = False,
) -> None:
    """Print the machine's facts, a plan for each ERank model, and what to do about them."""
    from erank_lite.engines.choose import plan
    from erank_lite.machine.hardware import probe
    from erank_lite.machine.pace import USUAL_DOCUMENT, USUAL_DOCUMENTS, foretell
    from erank_lite.machine.shapes import PUBLISHED
    from erank_lite.models.inspect import inspect
    from erank_lite.models.ref import PUBLISHER, ModelRef

    machine = probe()
    refs = {name: ModelRef.parse(f"{PUBLISHER}/{name}") for name in PUBLISHED}
    models = {name: inspect(ref) for name, ref in refs.items()}
    plans = {name: plan(info, machine) for name, info in models.items()}
    forecasts = {
        name: {mode: foretell(_shape(models[name], found), found, thinking=mode) for mode in _MODES}
        for name, found in plans.items()
    }
    advice = list(_advice(machine, plans))
    loaded = {name: _loaded(code) for name, code in _DEEP.items()} if deep else {}
    if as_json:
        facts: dict[str, Any] = {
            "hardware": dataclasses.asdict(machine),
            "plans": {name: dataclasses.asdict(found) for name, found in plans.items()},
            "forecasts": {
                name: {str(mode): dataclasses.asdict(f) for mode, f in modes.items()}
                for name, modes in forecasts.items()
            },
            "advice": advice,
        }
        typer.echo(json_line(facts | ({"loaded": loaded} if deep else {}), str))
        return
    Terminal(highlight=False).print(_facts(machine, loaded))
    print_table(_PLAN, [_cells(*item) for item in plans.items()], left=4)
    typer.echo(f"\nTime for {USUAL_DOCUMENTS} documents of {USUAL_DOCUMENT} tokens:\n")
    rows = [(name, *map(_time, modes.values())) for name, modes in forecasts.items()]
    print_table(("model", *(f"--thinking {mode}" for mode in _MODES)), rows, left=1)
    if any(f.assumed for modes in forecasts.values() for f in modes.values()):
        typer.echo("~ assumed: the model has not yet run here\n")
    for line in advice or ["Nothing to fix."]:
        typer.echo(line)


def _loaded(code: str) -> str:
    """Return what a package says of itself in a process of its own, or why it cannot be loaded."""
    try:
        loads, text = worker.call(__name__, {"code": code}, timeout=_DEEP_TIMEOUT)
    except worker.WorkerError as error:
        loads, text = False, error.reason
    if "No module named" in text:
        return "not installed"
    return f"{'loads' if loads else 'does not load'}: {printable(text)}"


def _load(send: worker.Send, code: str) -> tuple[bool, str]:
    """Return whether `code` runs, and the last line that it prints or the error's."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(code, {})
    # Whatever a package that is not whole raises.
    except Exception as error:
        return False, traceback.format_exception_only(error)[-1].strip()
    return True, (output.getvalue().strip().splitlines() or [""])[-1]


def _facts(machine: Hardware, loaded: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("system", machine.system)
    cores = f"{machine.cores} core{'s' * (machine.cores > 1)}"
    table.add_row("CPU", f"{machine.cpu}, {cores}: {' '.join(machine.instructions)}")
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


def _cells(name: str, plan: Plan) -> tuple[str, ...]:
    assert plan.gpu_memory is not None and plan.memory is not None
    return (
        name, plan.engine, plan.type or "BF16", "yes" if plan.fits else "no",
        str(plan.gpu_layers), str(plan.documents), gib(plan.gpu_memory), gib(plan.memory),
    )  # fmt: skip


def _shape(info: ModelInfo, found: Plan) -> ModelShape:
    assert info.shape is not None  # published ones are known
    return info.shape(found.type or "BF16")


def _time(forecast: Forecast) -> str:
    return f"{'~' * forecast.assumed}{duration(forecast.seconds)}"


def _advice(machine: Hardware, plans: Mapping[str, Plan]) -> Iterator[str]:
    if machine.llama is None:
        yield "llama.cpp is not installed: pip install llama-cpp-python"
    built = machine.llama.backends if machine.llama else ()
    for backend, flag in (("cuda", "CUDA"), ("metal", "METAL")):
        gpus = [g.name for g in machine.gpus if g.backend == backend]
        if gpus and built and backend not in built:
            yield (
                f"llama.cpp was built without {flag}, so {', '.join(gpus)} does nothing for it; "
                f"build it again: {_REBUILD.format(flag)}"
            )
    if any(g.backend == "cuda" for g in machine.gpus):
        if "gptqmodel" not in machine.extras:
            yield "to run GPTQ checkpoints on the GPU: pip install 'erank-lite[gptq]'"
        elif not machine.torch_has_cuda:
            yield (
                "the torch that is installed cannot use the GPU: install it again as "
                "https://pytorch.org/get-started says for CUDA"
            )
    name, smallest = next(iter(plans.items()))
    if not smallest.fits and smallest.memory is not None:
        yield (
            f"{name} as {smallest.type} needs {gib(smallest.memory)} of memory, and "
            f"{gib(machine.memory_free)} is free: end other programs, or take erank-tiny"
        )


if __name__ == "__main__":
    worker.serve(_load)
