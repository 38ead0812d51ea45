"""Engines × types × sequences × reasoning lengths, and a preset that takes minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import write_json
from erank_lite.benchmarks.speed.compare import Settings, measure_speed
from erank_lite.benchmarks.speed.growth import measure_growth
from erank_lite.benchmarks.speed.ways import OURS, OURS_BF16, Peers
from erank_lite.benchmarks.speed.work import Work
from erank_lite.errors import InputError

ENGINES = {"llama.cpp": OURS, "transformers": OURS_BF16}
"""Engines that a sweep compares, and their ways."""
_SMALL = Work(documents=16, shared=61, own=100, tokens=16, sequences=16)
_SMALL_GROWTH = {
    "documents": (16, 64),
    "document tokens": (50, 200),
    "reasoning tokens": (8, 32),
    "sequences": (1, 4, 16),
}


def sweep(
    models: Sequence[str],
    *,
    engines: Sequence[str] = tuple(ENGINES),
    sequences: Sequence[int] = (1, 4, 16),
    tokens: Sequence[int] = (16, 64),
    work: Work | None = None,
    peers: Peers | None = None,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Measure this project's engines over a grid; each place of it gives a record.

    Args:
        models: names with their types, such as "erank-tiny:Q4_K_M".
        engines: "llama.cpp", which runs each type, and "transformers", which runs the checkpoint
            behind a model in BF16, once for each checkpoint.
        sequences: documents under way at once.
        tokens: written for each document.
        work: the other parts; None means `Work()`.
        peers: where the checkpoint is, if the names do not tell.
        settings: how it is run.

    Raises:
        InputError: an option cannot be used.
        ModelError: a model cannot.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise InputError(f"there is no engine {engine!r} to sweep: {', '.join(ENGINES)}")
    if not (models and sequences and tokens and engines):
        raise InputError("a sweep wants a model, an engine, sequences and tokens")
    records = []
    for count, length in product(sequences, tokens):
        place = replace(work or Work(), sequences=count, tokens=length)
        seen: set[str] = set()
        for model in models:
            checkpoint = model.partition(":")[0]
            ways = [
                way
                for engine, way in ENGINES.items()
                if engine in engines and not (way == OURS_BF16 and checkpoint in seen)
            ]
            seen.add(checkpoint)
            if not ways:
                continue
            records.append(
                measure_speed(
                    model, place, ways=ways, peers=peers, ceiling=False, settings=settings
                )
            )
    return records


def small(
    model: str, out: Path, peers: Peers | None = None, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Measure a small work in all ways that are here, and growth at a few points.

    It takes at most three minutes on two cores with erank-tiny. The records are also written as
    files into `out`; of the peers that are missing, the first record says so under "skipped".

    Args:
        model: its name.
        out: a folder, which is made.
        peers: where they are; None asks the environment.
        settings: how it is run; None runs everything once.

    Raises:
        InputError: the folder or an option cannot be used.
        ModelError: the model cannot, or this project's own engine failed.
    """
    settings = settings or Settings(repeat=1)
    records = [measure_speed(model, _SMALL, peers=peers, flash_attention=True, settings=settings)]
    write_json(out / "speed.json", records[0])
    for axis, values in _SMALL_GROWTH.items():
        grown = measure_growth(model, axis, values, _SMALL, peers=peers, settings=settings)
        write_json(out / f"growth-{axis.replace(' ', '-')}.json", grown)
        records.append(grown)
    return records
