"""Prompts are read with flash attention where that was measured to be faster here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erank_lite.engines.llama_cpp import attention
from erank_lite.engines.llama_cpp.attention import Attention, measured
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.plan import plan
from erank_lite.machine.hardware import Gpu, Hardware, probe
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelShape

SHAPE = ModelShape.published("ERank-4B", "Q4_K_M")
TILES, SCORES = Attention(2.0, 1.0), Attention(1.0, 1.1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hardware:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))
    return replace(probe(), gpus=())


def chosen(found: Attention | None, machine: Hardware, **options: object) -> bool | None:
    given = LlamaCppOptions.from_values(options, "llama.cpp")
    planned = plan(SHAPE, machine, given, lambda *_: found)
    if not planned.gpu_layers:
        assert planned.flash_attention is options.get("flash_attention", False)
    assert bool(planned.flash_reading) == ("prompts are read" in " ".join(planned.reasons))
    return planned.flash_reading


def test_the_faster_way_is_taken(here: Hardware) -> None:
    assert chosen(TILES, here) is True
    assert chosen(SCORES, here) is False
    assert chosen(None, here) is False


def test_what_is_asked_for_or_strict_or_on_a_gpu_is_not_tried(here: Hardware) -> None:
    assert chosen(TILES, here, flash_attention=True) is False
    assert chosen(TILES, here, flash_attention=False) is False
    assert chosen(TILES, here, strict=True) is False
    assert chosen(TILES, here, kv_type="f32") is False  # of which tiles would round
    gpu = replace(here, gpus=(Gpu("GPU", "cuda", 24 << 30, 23 << 30),))
    assert chosen(TILES, gpu) is None


def test_the_second_context_is_counted(here: Hardware) -> None:
    def planned(found: Attention) -> Plan:
        eight = replace(here, memory_total=8 << 30, memory_free=7 << 30)
        return plan(SHAPE, eight, LlamaCppOptions(), lambda *_: found)

    both, one = planned(TILES), planned(SCORES)
    document = SHAPE.document_cells * SHAPE.cell_size("f16")
    assert both.cache is not None and one.cache is not None
    assert both.cache < one.cache - document / 2


def test_it_is_tried_once(here: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SHAPE, heads=4, cache_size=SHAPE.layers * 4 * 2 * 64, head_size=64)
    found = measured(small, here, 1)
    assert found is not None and min(found.scores, found.tiles) > 0

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
