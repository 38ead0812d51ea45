"""Invented records of benchmarks, as their JSON files hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.report import Record, from_dict
from erank_lite.benchmarks.report.rule import Comparison, comparisons

EVIL = "<script>alert('x')</script> a|b $\\frac{1$ `c` [d](e)\n&amp; é ✓"

MEASURED = {"nDCG@10": 0.39, "RR": 0.6}


def record(kind: str, **payload: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metrics_version": 1,
        "command": f"erank-lite {kind} erank-tiny",
        "commit": "a51ed40c0d+",
        "date": "2026-10-04T09:12:33+00:00",
        "machine": {
            "system": "Linux x86_64", "processor": "A CPU", "cores": 2, "memory": 8 << 30,
            "gpus": [],
        },
        "versions": {"llama-cpp-python": "0.3.36"},
        **payload,
    }  # fmt: skip


def fidelity_run(name: str, size: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "ran": "llama.cpp", "size": size, "floor": False, "same": 0.95,
        "difference": 0.06, "difference_95": 0.2, "tau": 0.9, "rbo": 0.9, "top_10": 0.9,
        "nDCG@10": 0.39, "change": 0.0, "interval": [-0.01, 0.01], "forced": 0.0, "failed": 0.0,
        "tokens": 30.0, "kl": None, "kl_95": None, "same_answer": None,
        "documents_per_second": 2.0, "scatter": [[0, 0], [5.1, 5.0], [9.5, 8]],
    } | changes  # fmt: skip


def fidelity(
    *runs: dict[str, Any], name: str = "tiny, engine=transformers", **changes: Any
) -> dict[str, Any]:
    reference = {
        "name": name, "ran": "transformers in bfloat16", "size": 1000_000_000, "nDCG@10": 0.39,
        "documents_per_second": 1.7,
    }  # fmt: skip
    payload = {
        "collection": "c-50", "queries": 50, "documents": 800, "thinking": "full",
        "reference": reference, "runs": list(runs),
    } | changes  # fmt: skip
    return record("fidelity", **payload)


def quality(model: str = "tiny:Q8_0", **changes: Any) -> dict[str, Any]:
    measures = {
        "first stage": MEASURED, "reranked": MEASURED,
        "hybrid": {"0.0": MEASURED, "0.5": MEASURED, "1.0": MEASURED},
    }  # fmt: skip
    payload = {
        "model": model, "ran": "llama.cpp", "size": 52_000_000, "collection": "c-50",
        "queries": 50, "documents": 1000, "depth": 20, "first_stage": "BM25", "instruction": "x",
        "thinking": "full", "truncate_length": 2048, "strict": False, "measures": measures,
        "published": None, "failed": 0, "forced": 2, "tokens": 31.2, "documents_per_second": 16.9,
    } | changes  # fmt: skip
    return record("quality", **payload)


def speed() -> dict[str, Any]:
    def way(name: str, rate: float | None) -> dict[str, Any]:
        return {
            "name": name, "what": "a way", "documents_per_second": rate, "tokens_per_second": None,
            "first_result": 1.0, "last_result": 9.0, "peak_memory": 400 << 20,
        }  # fmt: skip

    work = {"documents": 32, "shared": 61, "own": 164, "tokens": 60, "sequences": 16}
    ways = [way("erank-lite", 2.0), way("loop", 0.5), way("bi-encoder", 500.0), way("gone", None)]
    return record(
        "speed", model="tiny:Q8_0", work=work, ways=ways,
        ceiling={"what": "roofline", "documents_per_second": 4.0},
        machine_rates={"gflops": 300.0, "gigabytes_per_second": 20.0},
    )  # fmt: skip


def growth(
    model: str = "tiny:Q8_0",
    axis: str = "documents",
    paces: tuple[float, ...] = (9.0, 9.0, 9.0),
    memory: tuple[int, ...] = (350, 350, 350),
) -> dict[str, Any]:
    points = [
        {"x": x, "documents_per_second": pace, "peak_memory": peak << 20}
        for x, pace, peak in zip((32, 250, 1000), paces, memory, strict=True)
    ]
    return record("growth", model=model, axis=axis, points=points)


def everything() -> list[dict[str, Any]]:
    floor = fidelity_run("tiny, engine=transformers, 5 documents together", 10**9, floor=True)
    runs = (
        floor | {"same": 0.99},
        fidelity_run("tiny:Q8_0", 500_000_000),
        fidelity_run("tiny:Q4_K_M", 300_000_000, same=0.7),
        fidelity_run(EVIL, None),
    )
    follow = {"reranked": {"p-MRR": 0.1}, "first stage": {"p-MRR": 0.0}}
    return [
        fidelity(*runs),
        quality(), quality("tiny:BF16", size=98_000_000, published={"nDCG@10": 0.448}),
        quality(EVIL, thinking="none", size=None),
        quality(collection=EVIL, measures=follow),
        speed(), growth(), growth(EVIL, "document tokens"),
    ]  # fmt: skip


TYPES = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")

FILES = [
    *((f"tiny:{kind}", 10**8 // n) for n, kind in enumerate(TYPES, 1)),
    *((f"tiny-{kind}{matrix}.gguf", 10**8 // n + 900) for n, kind in enumerate(TYPES, 1)
      for matrix in ("+own", "+generic") if n > 4),
    ("tiny-GPTQ-8bit", 55_000_000), ("gptq/tiny-GPTQ-4bit", 23_000_000),
]  # fmt: skip


def qualities(files: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return a quality record of each file; their figures lie near each other."""
    made = []
    for n, (name, size) in enumerate(files):
        value = 0.4 - 0.02 * (10**7 / size) + 0.003 * (n % 3)
        hybrid = {f"{a / 10:g}": {"nDCG@10": value + a * (5 - a) / 900} for a in range(11)}
        measures = {"first stage": {"nDCG@10": 0.36}, "reranked": {"nDCG@10": value}}
        made.append(quality(name, size=size, measures=measures | {"hybrid": hybrid}))
    return made


def records(*data: dict[str, Any]) -> list[Record]:
    """Return these records as if they had been read from files."""
    return [from_dict(found, f"{n}-{found['kind']}.json") for n, found in enumerate(data)]


def one_comparison(*runs: dict[str, Any], **changes: Any) -> Comparison:
    """Return what one fidelity record of these runs says."""
    (found,) = comparisons(records(fidelity(*runs, **changes)))
    return found


def written(folder: Path, name: str, data: Any) -> Path:
    """Write a file, of JSON unless `data` is text, and return its path."""
    file = folder / name
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file
