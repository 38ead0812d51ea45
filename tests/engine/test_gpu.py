"""The llama.cpp engine on a GPU, or on what a build for Vulkan takes for one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from support.recording import random_prompts, run, same

from erank_lite import InputError
from erank_lite.engines.base import Engine
from erank_lite.engines.llama_cpp.dry_run import failure
from erank_lite.load import load
from erank_lite.machine.llama_library import gpu_devices

pytestmark = pytest.mark.gpu

LAYERS = 3  # of the tiny model, its output counted as one
NOISE = 0.05  # of 16-bit keys and values, and of other kernels
OF_THE_GPU = ("using device", "offloaded", "Vulkan0", "CUDA0", "MTL0")


@pytest.fixture(scope="module", autouse=True)
def gpus() -> int:
    """How many there are."""
    found = len(gpu_devices())
    if not found:
        pytest.skip("llama.cpp finds no GPU")
    return found


def load_on(path: Path, layers: int | None, **options: object) -> Engine:
    if layers is not None:
        options["gpu_layers"] = layers
    return load(path, "llama.cpp", {"threads": 1} | options)


@pytest.mark.parametrize("layers", [-1, 2, 1, 0])
def test_documents_are_scored_as_on_the_cpu(tiny_gguf: Path, layers: int) -> None:
    prompts, counts = random_prompts(24, seed=3), [8] * 24
    with load_on(tiny_gguf, 0, strict=True) as engine:
        alone = run(engine, prompts, counts)
    with load_on(tiny_gguf, layers, sequences=8) as engine:
        assert engine.plan.gpu_layers == (LAYERS if layers < 0 else layers)
        together = run(engine, prompts, counts)
    assert all(same(alone[i], together[i], NOISE) for i in alone)


def test_a_gpu_is_taken_where_nothing_is_said(tiny_gguf: Path) -> None:
    with load_on(tiny_gguf, None) as engine:
        assert engine.plan.gpu_layers == LAYERS and engine.plan.device != "cpu"
        assert engine.plan.device in engine.description


def test_with_no_layers_no_gpu_is_opened(tiny_gguf: Path, caplog: pytest.LogCaptureFixture) -> None:
    def told_of(layers: int) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.DEBUG), load_on(tiny_gguf, layers) as engine:
            run(engine, random_prompts(40, seed=5), [2] * 40)
        return [line for line in caplog.messages if any(word in line for word in OF_THE_GPU)]

    assert told_of(-1)
    assert not [line for line in told_of(0) if "offloaded 0/" not in line]


def test_strict_is_the_same_each_time(tiny_gguf: Path) -> None:
    prompts, counts = random_prompts(6, seed=7), [10] * 6
    with load_on(tiny_gguf, -1, strict=True) as engine:
        first = run(engine, prompts, counts)
        again = run(engine, prompts[::-1], counts)
    assert all(same(first[i], again[5 - i], 0) for i in range(6))


def test_a_plan_is_tried_in_a_process_of_its_own(tiny_gguf: Path) -> None:
    with load_on(tiny_gguf, -1) as engine:
        plan = engine.plan
    assert failure(tiny_gguf, plan, 256) is None
    too_many = replace(plan, documents=200)
    assert failure(tiny_gguf, too_many, 40_000_000) is not None


def test_gpus_are_chosen_by_their_number(tiny_gguf: Path, gpus: int) -> None:
    with load_on(tiny_gguf, -1, main_gpu=gpus - 1) as engine:
        run(engine, random_prompts(4, seed=1), [2] * 4)
    with pytest.raises(InputError, match="main_gpu"):
        load_on(tiny_gguf, -1, main_gpu=gpus)


def test_a_share_for_each_gpu(tiny_gguf: Path, gpus: int) -> None:
    if gpus < 2:
        pytest.skip("there is one GPU")
    with load_on(tiny_gguf, -1, tensor_split="2,1") as engine:
        assert engine.plan.device is not None and ", " in engine.plan.device
        run(engine, random_prompts(4, seed=1), [2] * 4)
