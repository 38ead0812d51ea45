"""The whole recipe, from packages to the checkpoint that ships.

    python -m training WORK [--short]

Each step is a command of its own (`training.corpus`, `.initialize`, `.pairs`, `.train`,
`.evaluate`), and one that is done is not done again. `--short` takes one source and few pairs: in
a quarter of an hour it shows that the recipe works, not what it gives. The result is
WORK/erank-tiny.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

_FULL = {"queries": 36_000, "match": 56_000, "reason": 24_000, "settle": 6_000}
_SHORT = {"queries": 2_500, "match": 6_000, "reason": 4_500, "settle": 640}
_RATES = {"match": 3e-4, "reason": 2e-4, "settle": 5e-5}
_MATCH_SCHEDULE = 1.65  # the rate is still a third of its highest when `reason` takes over
# glibc would give the memory of large tensors back to the system and get it anew at every step.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def _step(made: Path, *arguments: str) -> None:
    if not made.exists():
        print(f"training.{' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"training.{arguments[0]}", *arguments[1:]],
            env=os.environ | _KEEP_MEMORY,
        )
        if done.returncode:
            sys.exit(f"training.{arguments[0]} failed; the same command goes on from there")


def main(work: Path, short: bool) -> None:
    sizes = _SHORT if short else _FULL
    sources = ["--sources", "wordnet-base", "--most", "6000"] if short else []
    work.mkdir(parents=True, exist_ok=True)
    _step(work / "corpus.jsonl", "corpus", str(work), *sources)
    _step(work / "initial", "initialize", str(work))
    _step(work / "pairs.npz", "pairs", str(work), "--queries", str(sizes["queries"]))
    start = "initial"
    for phase, rate in _RATES.items():
        schedule = _MATCH_SCHEDULE if phase == "match" else 1
        _step(
            work / phase, "train", str(work), "--phase", phase, "--start", start, "--end", phase,
            "--pairs", str(sizes[phase]), "--schedule", str(round(schedule * sizes[phase])),
            "--rate", str(rate),
        )  # fmt: skip
        start = phase
    shutil.copytree(
        work / start, work / "erank-tiny", ignore=shutil.ignore_patterns("heads.pt"),
        dirs_exist_ok=True,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    main(arguments.work, arguments.short)
