"""Where flash attention would be faster on this machine, as measured, the plan says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erank_lite.engines.llama_cpp import attention
from erank_lite.engines.llama_cpp.attention import Attention, measured
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.plan import plan
from erank_lite.machine.hardware import Gpu, Hardware, probe
from erank_lite.machine.shapes import ModelShape

SHAPE = ModelShape.published("ERank-4B", "Q4_K_M")
TILES, SCORES = Attention((2.0, 1.0), (1.0, 0.9)), Attention((1.0, 1.1), (1.0, 2.0))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hardware:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))
    return replace(probe(), gpus=())


def told(found: Attention | None, machine: Hardware, **options: object) -> bool:
    given = LlamaCppOptions.from_values(options, "llama.cpp")
    planned = plan(SHAPE, machine, given, lambda *_: found)
    if not planned.gpu_layers:
        assert planned.flash_attention is options.get("flash_attention", False)
    return "flash_attention=true" in " ".join(planned.reasons)


def test_what_would_be_faster_is_told_and_not_taken(here: Hardware) -> None:
    assert told(TILES, here)
    assert not told(SCORES, here)
    assert not told(None, here)


def test_what_is_asked_for_or_strict_or_on_a_gpu_is_not_tried(here: Hardware) -> None:
    assert not told(TILES, here, flash_attention=True)
    assert not told(TILES, here, flash_attention=False)
    assert not told(TILES, here, strict=True)
    gpu = replace(here, gpus=(Gpu("GPU", "cuda", 24 << 30, 23 << 30),))
    assert not told(TILES, gpu)


def test_long_answers_and_long_prompts_may_want_different_ways() -> None:
    reads_faster = Attention((1.0, 0.5), (1.0, 1.5))
    assert reads_faster.speedup(prompt=2000, answer=10) > 1
    assert reads_faster.speedup(prompt=100, answer=400) < 1


def test_it_is_tried_once(here: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SHAPE, heads=4, cache_size=SHAPE.layers * 4 * 2 * 64, head_size=64)
    found = measured(small, here, 1)
    assert found is not None and min(*found.read, *found.write) > 0

    def again(*_: int) -> Attention:
        raise AssertionError("it is kept")

    monkeypatch.setattr(attention, "_tried", again)
    assert measured(small, here, 1) == found
    with pytest.raises(AssertionError):
        measured(small, here, 2)  # other threads are another fact


@pytest.mark.parametrize("numbers", [(0, 64), (4, 0), (7, 64), (4, 3), (10**9, 128)])
def test_heads_that_no_model_has_are_not_tried(here: Hardware, numbers: tuple[int, int]) -> None:
    heads, head_size = numbers
    odd = replace(SHAPE, heads=heads, head_size=head_size, cache_size=SHAPE.layers * 4 * 2 * 64)
    assert measured(odd, here, 1) is None


def test_of_another_machine_nothing_is_tried(here: Hardware) -> None:
    assert measured(SHAPE, replace(here, cpu="another"), 1) is None
    assert measured(SHAPE, replace(here, llama=None), 1) is None
