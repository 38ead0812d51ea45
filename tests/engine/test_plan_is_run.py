"""The plan that `erank-lite plan` prints is the plan that the engine gets, and no other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.checkpoints import write_checkpoint
from support.command import run_in_process
from support.machines import CPU, CUDA, METAL, machine

from erank_lite import load as loading
from erank_lite.engines.base import Engine
from erank_lite.machine import hardware as facts
from erank_lite.machine.hardware import Hardware, probe
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelInfo, ModelShape

MACHINES = {
    "a small laptop": machine(4),
    "a workstation without a GPU": machine(256),
    "a MacBook of 64 GB": machine(64, 48, build=METAL),
    "a card of 6 GB, half of it taken": machine(16, 6, busy=3),
    "two cards of 24 GB": machine(64, 24, 24),
    "a card that only torch can use": machine(64, 24, build=CPU, torch="cuda"),
    "a card that both can use": machine(64, 24, build=CUDA, torch="cuda"),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plans")
    plain = write_checkpoint(folder / "plain")
    how = {"quant_method": "gptq", "bits": 4}
    gptq = write_checkpoint(folder / "gptq", quantization_config=how)
    return {
        "gguf": str(tiny_gguf),
        "checkpoint": str(plain),
        "typed": f"{plain}:Q6_K",
        "gptq": str(gptq),
        "bundled": "erank-tiny",
    }


def printed(model: str, *options: str) -> dict[str, Any]:
    done = run_in_process("plan", model, "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("model") == model
    found.pop("forecast")  # of a job, by the plan
    return found


def as_json(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan), default=str))
    return found


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("model", ["gguf", "checkpoint", "typed", "gptq", "bundled"])
def test_on_made_up_machines(
    models: dict[str, str], model: str, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The constructor gets what the command prints; the engine itself cannot run there."""
    given: list[tuple[Path, Plan]] = []

    def engine(path: Path, plan: Plan) -> object:
        given.append((path, plan))
        return SimpleNamespace(names=())

    use(MACHINES[on], monkeypatch)
    monkeypatch.setattr(loading, "engine_class", lambda name: engine)
    monkeypatch.setattr(loading, "prepare", lambda ref, plan, reporter: Path(ref.path or ref.text))
    loading.load(models[model])
    ((_, plan),) = given
    assert as_json(plan) == printed(models[model])
    assert plan.complete and plan.reasons


def use(hardware: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loading, facts):
        monkeypatch.setattr(module, "probe", lambda: hardware)


@pytest.mark.parametrize("options", [{}, {"strict": "true"}, {"sequences": "3", "kv_type": "f32"}])
@pytest.mark.parametrize("model", ["gguf", "typed", "bundled"])
def test_on_this_machine_with_the_engine_loaded(
    models: dict[str, str], model: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(probe(), monkeypatch)  # free memory changes from one moment to the next
    arguments = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
    with loading.load(models[model], options=options) as engine:
        assert as_json(engine.plan) == printed(models[model], *arguments)
        check_run(engine)


def check_run(engine: Engine) -> None:
    """Check that what the engine does is what its plan says."""
    assert engine.context_length == engine.plan.context_length
    assert engine._sequences == engine.plan.sequences  # type: ignore[attr-defined]
    assert engine._threads == engine.plan.threads  # type: ignore[attr-defined]


@pytest.mark.reference
def test_transformers_on_this_machine(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(probe(), monkeypatch)
    with loading.load(models["checkpoint"], "transformers", {"dtype": "float32"}) as engine:
        options = ("--engine", "transformers", "-o", "dtype=float32")
        assert as_json(engine.plan) == printed(models["checkpoint"], *options)


def test_a_shape_that_is_not_known_is_planned_once_the_file_is_here(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on the Hub: its name tells the format, and nothing else before it is downloaded."""
    monkeypatch.setattr(loading, "prepare", lambda ref, plan, reporter: tiny_gguf)
    known: Callable[[Any], ModelInfo] = loading.inspect
    monkeypatch.setattr(
        loading, "inspect", lambda ref: known(ref) if ref.path else ModelInfo("gguf", ref.type)
    )
    plan, path = loading.resolve("OWNER/NAME/file.gguf", options={"sequences": 2})
    assert path == tiny_gguf and plan.complete
    assert (plan.sequences, plan.type) == (2, None)
    plan, _ = loading.resolve("OWNER/NAME:Q6_K")
    assert plan.complete and plan.type == "Q6_K"


def test_a_plan_for_every_published_model_is_the_same_twice() -> None:
    from erank_lite.engines.choose import plan

    info = ModelInfo("checkpoint", None, lambda t: ModelShape.published("ERank-4B", t))
    assert plan(info, MACHINES["two cards of 24 GB"]) == plan(info, MACHINES["two cards of 24 GB"])
