"""The whole recipe, from texts to the checkpoint that ships.

    python -m training WORK [--texts TEXTS] [--start CHECKPOINT] [--short]

Each step is a command of its own (`training.corpus`, `.documents`, `.queries`, `.pairs`, `.sets`,
`.initialize`, `.train`, `.mean`), and one that is done is not done again: what `training.written`
makes, or a record of edition-2/, is put into WORK before. TEXTS are described in `training.texts`;
without them the texts are the packages' alone. `--start` takes a checkpoint in place of SmolLM2's
weights and the first phase, as the second edition did with the first. `--short` takes one
source and few queries: in half an hour it shows that the recipe works, not what it gives. The
result is WORK/erank-tiny.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class _Phase(NamedTuple):
    """A run of `training.train`, which begins where what stands before it ended."""

    name: str
    phase: str
    queries: int
    short: int
    """Queries in the short form; none leaves the phase out."""
    rate: float
    fall: float
    sets: int = 3
    """How many queries of a step are written sets."""
    plain: int = 0
    """How many more are sets with plain answers."""


class _Mean(NamedTuple):
    """A mean of checkpoints' weights; the short form has none."""

    name: str
    parts: dict[str, float]


_GRADED, _GRADED_SHORT = 3_400, 1_500  # queries
_RECIPE = (
    _Phase("match", "match", 3_000, 900, 3e-4, 0.3),
    _Phase("rank-1", "rank", 1_800, 0, 2e-4, 0.35, 0),
    _Phase("rank-2", "rank", 4_104, 600, 3e-4, 0.5, 4),
    _Phase("rank-3", "rank", 4_200, 0, 2e-4, 0.6),
    _Mean("mean-1", {"rank-1": 0.3, "rank-2": 0.28, "rank-3": 0.42}),
    _Phase("rank-4", "rank", 2_400, 0, 1.5e-4, 0.6),
    _Mean("mean-2", {"rank-1": 0.2, "mean-1": 0.3, "rank-4": 0.5}),
    _Phase("rank-5", "rank", 1_500, 0, 1.5e-4, 0.6, 1, 2),
    _Mean("mean-3", {"mean-2": 0.3, "rank-5": 0.7}),
    _Phase("settle", "settle", 960, 90, 1e-4, 0.5, 2, 1),
)
# glibc would give the memory of large tensors back to the system and get it anew at every step.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def _step(made: Path, *options: object) -> None:
    """Run `training.OPTIONS`, unless `made` is there and whole."""
    arguments = [str(option) for option in options]
    begun = made.with_name(f"{made.name}.begun")  # there as long as `made` may be half written
    if made.exists() and not begun.exists():
        return
    begun.touch()
    print(f"training.{' '.join(arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"training.{arguments[0]}", *arguments[1:]],
        env=os.environ | _KEEP_MEMORY,
    )
    if done.returncode:
        sys.exit(f"training.{arguments[0]} failed; the same command goes on from there")
    begun.unlink()


def main(work: Path, texts: Path | None, start: Path | None, short: bool) -> None:
    sources = ["--sources", "wordnet-base", "--most", 6_000] if short else []
    from_texts = ["--texts", texts] if texts else []
    graded = ["--queries", _GRADED_SHORT] if short else ["--queries", _GRADED, "--also-mpnet"]
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    _step(work / "corpus.jsonl", "corpus", work, *sources)
    _step(work / "documents.jsonl", "documents", work, *from_texts)
    _step(work / "queries.jsonl", "queries", work, *from_texts)
    _step(work / "set-documents.npy", "sets", work)
    _step(work / "graded.jsonl", "pairs", work, *graded)
    _step(work / "queries.npy", "pairs", work, "--vectors")  # where graded.jsonl was brought
    before = start.resolve() if start else work / "initial"
    if not start:
        _step(before, "initialize", work)
    for made in _RECIPE:
        end = work / made.name
        if isinstance(made, _Mean):
            if short:
                continue
            parts = (f"{work / name}:{part}" for name, part in made.parts.items())
            _step(end, "mean", end, *parts)
        else:
            queries = made.short if short else made.queries
            if not queries or (start and made.phase == "match"):
                continue
            _step(
                end, "train", work, "--phase", made.phase, "--start", before, "--end", end,
                "--queries", queries, "--rate", made.rate, "--fall", made.fall,
                "--sets", made.sets, "--plain", made.plain,
            )  # fmt: skip
        before = end
    shutil.copytree(before, work / "erank-tiny", dirs_exist_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    main(arguments.work, arguments.texts, arguments.start, arguments.short)
