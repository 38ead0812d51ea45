"""Which file the report advises: the rule, its sentences, and the type for each machine."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import fidelity, fidelity_run, one_comparison, records

from erank_lite.benchmarks.record import Variant
from erank_lite.benchmarks.report.format import short_names
from erank_lite.benchmarks.report.machines import LARGEST_TYPE, USABLE, USABLE_GPU, machine_rows
from erank_lite.benchmarks.report.rule import comparisons
from erank_lite.benchmarks.report.summary import advice
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.plan import plan
from erank_lite.machine.hardware import Gpu, Hardware
from erank_lite.machine.shapes import PUBLISHED, ModelShape


def test_the_smallest_file_that_keeps_the_scores_is_taken() -> None:
    floor = fidelity_run("tiny, 5", 10**9, floor=True, same=0.98)
    found = one_comparison(
        floor,
        fidelity_run("tiny:BF16", 10**9, same=0.99),
        fidelity_run("tiny:Q8_0", 500, same=0.95),
        fidelity_run("tiny:Q6_K", 400, same=0.89),
        fidelity_run("tiny:Q4_K_M", 300, same=0.7),
        fidelity_run("tiny:Q2_K", 200, same=0.4, change=-0.1, interval=[-0.2, -0.05]),
    )
    assert found.best is not None and found.best.short == "Q6_K"
    assert found.smallest is not None and found.smallest.short == "Q4_K_M"
    assert [(part.lead, part.file) for part in advice(found)] == [
        ("Take ", "Q6_K"),
        ("Short of memory? ", "Q4_K_M"),
    ]


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, "scores"),
        ({"same": 0.85}, "ranking"),
        ({"change": -0.019, "interval": [-0.03, -0.009]}, "scores"),
        ({"change": -0.015, "interval": [-0.02, -0.011]}, "neither"),
        ({"change": -0.021, "interval": [-0.08, 0.04]}, "neither"),
        ({"failed": 0.02}, "neither"),
    ],
)
def test_the_rule(changes: dict[str, Any], keeps: str) -> None:
    (file,) = one_comparison(fidelity_run("tiny:Q8_0", 500, **changes)).files
    assert file.keeps == keeps


def test_a_file_is_judged_by_its_worst_run() -> None:
    good, bad = fidelity_run("tiny:Q8_0", 5), fidelity_run("tiny:Q8_0", 5, same=0.5)
    (found,) = comparisons(records(fidelity(good), fidelity(bad)))
    assert [file.keeps for file in found.files] == ["ranking"]
    assert found.best is None and found.smallest is not None


def test_without_a_file_that_keeps_anything_the_reference_stays() -> None:
    found = one_comparison(fidelity_run("tiny:Q2_K", 5, change=-0.2, interval=[-0.3, -0.1]))
    assert [(part.lead, part.file) for part in advice(found)] == [("Stay with ", "BF16")]


def test_a_server_and_a_larger_file_are_not_taken() -> None:
    found = one_comparison(fidelity_run("http://x:1", None), fidelity_run("tiny:F32", 2 * 10**9))
    assert found.best is None and found.smallest is None


def test_machines_get_the_largest_type_that_fits_and_is_needed() -> None:
    free = machine_rows([])
    assert [row.memory for row in free] == 2 * [4, 8, 16, 24, 48]
    for row in free:
        for fit in filter(None, row.fits):
            assert fit.size < row.memory * 2**30 and fit.keeps is None
    assert free[4].fits[0] is not None and free[4].fits[0].type == "BF16"
    measured = machine_rows(
        [one_comparison(fidelity_run("tiny:Q6_K", 5), fidelity_run("tiny:Q8_0", 6))]
    )
    for row, before in zip(measured, free, strict=True):
        for fit, other, model in zip(row.fits, before.fits, PUBLISHED.values(), strict=True):
            assert (fit is None) == (other is None)
            if fit is not None and other is not None:
                assert fit.size == min(other.size, model.sizes["Q6_K"])
    last = measured[4].fits[0]
    assert last is not None and (last.type, last.keeps) == ("Q6_K", "scores")


@pytest.mark.parametrize(("where", "memory"), LARGEST_TYPE)
def test_the_largest_types_are_those_the_planner_has_room_for(where: str, memory: int) -> None:
    total = memory << 30
    gpus = (Gpu("GPU", "cuda", total, int(USABLE_GPU * total)),) if where == "GPU" else ()
    # With a GPU, the computer's own memory is taken to be no hindrance.
    free = int(USABLE * (48 << 30 if gpus else total))
    machine = Hardware("", "", 8, (), free, free, gpus, None, {})

    def fits(model: str, kind: str) -> bool:
        shape = ModelShape.published(model, kind)
        found = plan(shape, machine, LlamaCppOptions())
        whole = not gpus or found.gpu_layers > shape.layers
        return found.fits and whole and found.documents > 0

    for (model, shape), largest in zip(PUBLISHED.items(), LARGEST_TYPE[where, memory], strict=True):
        limit = shape.sizes[largest] if largest else 0
        assert [fits(model, kind) for kind in shape.sizes] == [
            size <= limit for size in shape.sizes.values()
        ]


def test_a_model_of_erank_is_judged_by_its_own_measurement() -> None:
    tiny = fidelity(fidelity_run("tiny:Q8_0", 5))
    large = fidelity(fidelity_run("x/ERank-4B:Q4_K_M", 5), name="x/ERank-4B")
    small, other, _ = machine_rows(comparisons(records(tiny, large)))[4].fits
    assert small is not None and (small.type, small.keeps) == ("Q4_K_M", "scores")
    assert other is not None and other.type == "Q8_0"


def test_a_file_is_judged_where_it_was_measured_on_enough() -> None:
    few = fidelity(fidelity_run("tiny:Q8_0", 5, same=0.2), queries=2, collection="small")
    (found,) = comparisons(records(few, fidelity(fidelity_run("tiny:Q8_0", 5))))
    assert [file.keeps for file in found.files] == ["scores"]
    assert found.queries == 50


def test_the_headline_tells_how_much_was_compared() -> None:
    (take, _, text), short = advice(
        one_comparison(fidelity_run("tiny:Q8_0", 9), fidelity_run("tiny:Q4_K_M", 5, same=0.5))
    )
    assert take == "Take "
    assert "95.0 % of 800 documents" in text and text.endswith("over 50 queries.")
    assert "50.0 % of 800 documents" in short.text
    (stay,) = advice(one_comparison(fidelity_run("tiny:Q8_0", 5, change=-0.5, interval=[-1, -0.3])))
    assert "800 documents of 50 queries" in stay.text
    a, b = fidelity(fidelity_run("tiny:Q8_0", 5)), fidelity(collection="d", queries=60)
    (both,) = comparisons(records(a, b))
    assert advice(both)[0].text.endswith("over 50 queries of c-50.")


@pytest.mark.parametrize(
    ("name", "model", "rest", "kind"),
    [
        ("x/ERank-4B:Q4_K_M", "ERank-4B", "Q4_K_M", "Q4_K_M"),
        ("tiny, BF16 as published", "tiny", "BF16 as published", "BF16"),
        ("tiny:Q8_0, sequences=5", "tiny", "Q8_0, sequences=5", "Q8_0"),
        ("erank-tiny-Q4_K_M+own.gguf", "erank-tiny", "Q4_K_M+own", "Q4_K_M+own"),
        ("matrices/erank-tiny-IQ4_XS+own.gguf", "erank-tiny", "IQ4_XS+own", "IQ4_XS+own"),
        ("tiny:Q2_K+imatrix", "tiny", "Q2_K+imatrix", "Q2_K+imatrix"),
        ("erank-tiny-GPTQ-4bit", "erank-tiny", "GPTQ-4bit", None),
        ("x/gptq/erank-tiny-GPTQ-4bit/, strict=True", "erank-tiny", "GPTQ-4bit, strict=True", None),
        ("Qwen3-Q8", "Qwen3", "Q8", "Q8"),
        ("SmolLM2-135M", "SmolLM2-135M", "", None),
        ("http://x:1/a,b", "http://x:1/a,b", "", None),
    ],
)
def test_names_come_apart(name: str, model: str, rest: str, kind: str | None) -> None:
    found = Variant.from_label(name)
    shown = "+".join(filter(None, (found.type, found.imatrix))) or None
    assert (found.model, found.name, shown) == (model, rest, kind)


def test_only_names_that_would_be_the_same_stay_long() -> None:
    names = ("tiny:Q8_0", "tiny-Q8_0.gguf", "tiny-Q2_K.gguf", "other:Q8_0")
    files = {name: Variant.from_label(name) for name in names}
    assert [*short_names(files, "tiny").values()] == [*names[:2], "Q2_K", "other:Q8_0"]


def test_of_files_of_one_size_the_nearer_is_taken_and_machines_get_plain_types() -> None:
    runs = [
        fidelity_run("tiny:Q4_K_M", 100_000, same=0.91),
        fidelity_run("tiny-Q4_K_M+own.gguf", 100_900, same=0.93),
        fidelity_run("tiny-Q2_K+own.gguf", 50_000, same=0.92),
    ]
    found = one_comparison(*runs, name="tiny:BF16")
    assert found.best is not None and found.best.short == "Q2_K+own"
    fits = [fit for row in machine_rows([found]) for fit in row.fits if fit is not None]
    assert {fit.type: fit.keeps for fit in fits}["Q4_K_M"] == "scores"
    assert all(fit.keeps is None for fit in fits if fit.type == "Q2_K")
    found = one_comparison(*(run for run in runs if run["size"] > 60_000))
    assert found.best is not None and found.best.short == "Q4_K_M+own"
