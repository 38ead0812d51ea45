"""Plans for machines of every size, and llama.cpp's own figures of memory beside the estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erank_lite.engines.llama_cpp import dry_run
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.plan import plan
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import Gpu, Hardware
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import PUBLISHED, ModelShape

GIB = 1 << 30
MIB = 1 << 20
B4, B14, B32 = PUBLISHED


def machine(memory: float, *gpus: float, cores: int = 8) -> Hardware:
    """Return a machine by its free memory and that of each of its GPUs, in GiB."""
    return Hardware(
        system="Linux x86_64", cpu="made up", cores=cores, instructions=(),
        memory_total=int(memory * GIB), memory_free=int(memory * GIB),
        gpus=tuple(Gpu(f"GPU {i}", "cuda", int(g * GIB), int(g * GIB)) for i, g in enumerate(gpus)),
        llama=None, extras={},
    )  # fmt: skip


def planned(name: str, kind: str, hardware: Hardware, **options: object) -> Plan:
    return plan(ModelShape.published(name, kind), hardware, LlamaCppOptions(**options))  # type: ignore[arg-type]


ALL, SOME, NONE = "all", "some", "none"


@pytest.mark.parametrize(
    ("what", "hardware", "name", "kind", "on_gpu", "fits"),
    [
        ("a small laptop, half of its memory taken", machine(4), B4, "Q4_K_M", NONE, True),
        ("it is too small for more", machine(4), B4, "Q8_0", NONE, False),
        ("a laptop of 16 GB", machine(12), B4, "Q8_0", NONE, True),
        ("a laptop of 16 GB, the middle model", machine(12), B14, "Q4_K_M", NONE, True),
        ("a desktop of 32 GB", machine(28), B14, "Q8_0", NONE, True),
        ("a desktop of 32 GB, the large model", machine(28), B32, "Q4_K_M", NONE, True),
        ("it is too small for the large model as published", machine(28), B32, "BF16", NONE, False),
        ("a workstation without a GPU", machine(120), B32, "BF16", NONE, True),
        ("6 GB card", machine(12, 5.4), B4, "Q4_K_M", ALL, True),
        ("6 GB card, not all of it", machine(12, 5.4), B4, "Q8_0", SOME, True),
        ("6 GB card, too small to help", machine(12, 5.4), B14, "Q4_K_M", NONE, True),
        ("8 GB card", machine(28, 7.2), B4, "Q8_0", ALL, True),
        ("8 GB card, the middle model in part", machine(28, 7.2), B14, "Q4_K_M", SOME, True),
        ("8 GB card that a game fills", machine(28, 1.5), B4, "Q4_K_M", NONE, True),
        ("8 GB card, little memory beside it", machine(3, 7.2), B4, "Q4_K_M", ALL, True),
        ("12 GB card", machine(28, 11.2), B14, "Q4_K_M", ALL, True),
        ("16 GB card, the large model in part", machine(28, 15), B32, "Q4_K_M", SOME, True),
        ("24 GB card", machine(60, 22.8), B14, "Q8_0", ALL, True),
        ("24 GB card, the large model", machine(60, 22.8), B32, "Q4_K_M", ALL, True),
        ("24 GB card, the large model as published", machine(60, 22.8), B32, "BF16", SOME, True),
        ("two cards of 24 GB", machine(60, 22.8, 22.8), B32, "Q8_0", ALL, True),
        ("80 GB", machine(120, 78), B32, "Q8_0", ALL, True),
        ("141 GB, the large model as published", machine(120, 139), B32, "BF16", ALL, True),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_machines(
    what: str, hardware: Hardware, name: str, kind: str, on_gpu: str, fits: bool
) -> None:
    model = ModelShape.published(name, kind)
    found = plan(model, hardware, LlamaCppOptions())
    layers = {0: NONE, model.layers + 1: ALL}.get(found.gpu_layers, SOME)
    assert (layers, found.fits) == (on_gpu, fits), found
    assert found.threads == hardware.cores
    if fits:
        assert found.documents >= 1 and found.memory <= hardware.memory_free
        assert found.gpu_memory <= sum(g.free for g in hardware.gpus)
    else:
        assert any("does not fit" in reason for reason in found.reasons)


def test_more_memory_is_never_worse() -> None:
    for name in PUBLISHED:
        plans = [planned(name, "Q4_K_M", machine(28, size / 2)) for size in range(1, 80)]
        layers = [p.gpu_layers for p in plans]
        assert layers == sorted(layers)
        whole = [p.documents for p in plans if p.gpu_layers > PUBLISHED[name].layers]
        assert whole == sorted(whole)


def test_the_same_facts_give_the_same_plan() -> None:
    assert planned(B4, "Q4_K_M", machine(12, 8)) == planned(B4, "Q4_K_M", machine(12, 8))


def test_a_smaller_cache_type_holds_more_documents() -> None:
    plain = planned(B4, "Q4_K_M", machine(28, 7.2))
    small = planned(B4, "Q4_K_M", machine(28, 7.2), kv_type="q8_0")
    assert small.documents > 1.5 * plain.documents


def test_wishes_are_kept() -> None:
    found = planned(
        B4, "Q4_K_M", machine(28, 22.8), gpu_layers=10, sequences=3, threads=5, memory=GIB,
        flash_attention=True,
    )  # fmt: skip
    assert (found.gpu_layers, found.sequences, found.threads) == (10, 3, 5)
    assert (found.cache, found.flash_attention) == (GIB, True)
    assert "as asked for" in found.reasons[0]
    assert planned(B4, "Q4_K_M", machine(28, 22.8), gpu_layers=-1).gpu_layers == 37
    assert planned(B4, "Q4_K_M", machine(28, 22.8), gpu_layers=0).gpu_layers == 0


def test_a_wish_that_cannot_be_kept_is_an_error() -> None:
    with pytest.raises(ModelError, match="has no GPU support"):
        planned(B4, "Q4_K_M", machine(28), gpu_layers=5)
    with pytest.raises(InputError, match="main_gpu must be between 0 and 0, not 1"):
        planned(B4, "Q4_K_M", machine(28, 8), main_gpu=1)


def test_what_was_asked_for_is_tried_even_where_it_should_not_fit() -> None:
    found = planned(B14, "Q4_K_M", machine(28, 7.2), gpu_layers=-1)
    assert found.gpu_layers == 41 and not found.fits
    assert "7.2 GiB is free" in found.reasons[-1]


def test_the_output_goes_first_as_in_llama_cpp() -> None:
    model = ModelShape.published(B14, "Q4_K_M")
    assert model.on_gpu(1) == model.output_size and model.cache_share(1) == 0
    assert model.on_gpu(2) == model.output_size + model.layer_sizes[-1]
    assert planned(B14, "Q4_K_M", machine(28, 22.8), gpu_layers=1).fits


def test_layers_that_differ_are_counted_as_they_are() -> None:
    sizes = tuple(range(1, 37))
    model = replace(ModelShape.published(B4, "Q4_K_M"), layer_sizes=sizes, output_size=100)
    assert model.on_gpu(3) == 100 + 36 + 35 and model.on_gpu(37) == 100 + sum(sizes)


def test_a_split_that_fits_is_better_than_a_processor_that_is_too_small() -> None:
    found = planned(B32, "Q8_0", machine(28, 15))
    assert found.fits and 0 < found.gpu_layers < 33


def test_memory_that_is_shared_counts_once() -> None:
    shared = machine(12)
    shared = replace(shared, gpus=(Gpu("M2", "metal", 12 * GIB, 12 * GIB, shared=True),))
    for name in PUBLISHED:
        for kind in PUBLISHED[name].sizes:
            found = planned(name, kind, shared)
            assert not found.fits or found.memory + found.gpu_memory <= 12 * GIB
    assert planned(B4, "Q4_K_M", shared).gpu_layers == 37
    assert not planned(B14, "Q8_0", shared).fits


def test_a_gpu_that_does_not_know_its_memory_takes_the_processors() -> None:
    unknown = replace(machine(28), gpus=(Gpu("iGPU", "llama.cpp", 0, 0),))
    assert planned(B4, "Q4_K_M", unknown).gpu_layers == 37


def test_a_split_is_full_where_the_first_gpu_is() -> None:
    two = machine(28, 20, 7)
    even, one = (
        planned(B4, "Q4_K_M", two, tensor_split=split) for split in ((1.0, 1.0), (0.0, 1.0))
    )
    alone = planned(B4, "Q4_K_M", machine(28, 7))
    assert (one.documents, one.cache) == (alone.documents, alone.cache)
    assert alone.documents < even.documents < planned(B4, "Q4_K_M", two).documents


def test_flash_attention_is_left_out_on_a_processor_only_where_it_can_be() -> None:
    assert planned(B4, "Q4_K_M", machine(28)).flash_attention is False
    assert planned(B4, "Q4_K_M", machine(28), kv_type="q8_0").flash_attention is None
    assert planned(B4, "Q4_K_M", machine(28, 22.8)).flash_attention is None


_4B = ModelShape.published(B4, "Q4_K_M")
_14B = ModelShape.published(B14, "Q4_K_M")
_06B = replace(
    _4B, layer_sizes=(1,) * 28, width=1024, inner_width=3072, heads=16, cache_size=28 * 4096
)
_ODD = replace(
    _4B, layer_sizes=(1,) * 12, width=1536, inner_width=4096, heads=12, cache_size=12 * 1024
)
_TINY = replace(
    _4B, layer_sizes=(1,) * 17, width=512, inner_width=768, heads=12, head_size=64,
    cache_size=17 * 768, vocabulary=23_552,
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "sequences", "cells", "rows", "flash", "reported"),
    [
        (_4B, 16, 1024, 512, False, 101.01), (_4B, 16, 4096, 512, False, 299.01),
        (_4B, 16, 4096, 512, True, 84.01), (_4B, 16, 1024, 256, True, 40.51),
        (_14B, 16, 4096, 512, False, 382.01), (_14B, 16, 4096, 512, True, 146.01),
        (_06B, 4, 4096, 512, False, 154.01), (_06B, 64, 1024, 512, True, 39.60),
        (_ODD, 16, 4096, 512, False, 120.01), (_ODD, 64, 1024, 512, True, 40.85),
        (_TINY, 16, 4096, 512, False, 110.76), (_TINY, 16, 1024, 512, True, 8.51),
    ],
)  # fmt: skip
def test_buffers_are_as_large_as_llama_cpp_says(
    model: ModelShape, sequences: int, cells: int, rows: int, flash: bool, reported: float
) -> None:
    """MiB by the log of llama.cpp (llama-cpp-python 0.3.36), on the processor."""
    logits = 4 * sequences * model.vocabulary
    estimate = model.buffer_size(sequences, cells, rows, flash) - logits
    assert estimate == pytest.approx(reported * MIB, rel=0.12)


def test_sizes_of_the_published_checkpoints_add_up() -> None:
    for name in PUBLISHED:
        for kind in PUBLISHED[name].sizes:
            model = ModelShape.published(name, kind)
            assert model.on_cpu(0) == model.size
            everything = model.layers + 1
            both = model.on_gpu(everything) + model.on_cpu(everything)
            copy = model.output_size if model.tied else 0
            assert both == pytest.approx(model.size + copy, rel=0.001)


def test_a_tight_plan_is_tried_and_steps_down_once(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shape = ModelShape.published(B14, "Q4_K_M")
    card = machine(28, 11.2)
    tight = plan(shape, card, LlamaCppOptions())
    assert tight.tight and not plan(shape, machine(28, 78), LlamaCppOptions()).tight
    tried = []

    def fails(path: Path, found: Plan, cells: int) -> str:
        tried.append(found.gpu_layers)
        return "CUDA error: out of memory"

    monkeypatch.setattr(dry_run, "failure", fails)
    found = dry_run.tried(tiny_gguf, shape, card, tight)
    assert tried == [41] and found.gpu_layers is not None and 20 < found.gpu_layers < 41
    assert "out of memory" in caplog.text and "41 layers" in caplog.text
    asked_for = plan(shape, card, LlamaCppOptions(gpu_layers=-1))
    with pytest.raises(ModelError, match="as were asked for"):
        dry_run.tried(tiny_gguf, shape, card, asked_for)
    monkeypatch.setattr(dry_run, "failure", lambda *arguments: None)
    assert dry_run.tried(tiny_gguf, shape, card, tight) is tight


def test_a_dry_run_is_a_process_of_its_own(tiny_gguf: Path, tmp_path: Path) -> None:
    found = replace(planned(B4, "Q4_K_M", machine(28)), documents=2, threads=1)
    assert dry_run.failure(tiny_gguf, found, 512) is None
    reason = dry_run.failure(tmp_path / "missing.gguf", found, 512)
    assert reason is not None and "cannot load" in reason
