"""The whole recipe, from packages to the checkpoint that ships.

    python -m training WORK [--short]

Each step is a command of its own (`training.corpus`, `.initialize`, `.pairs`, `.train`,
`.evaluate`), and one that is done is not done again. `--short` takes one source and few pairs: in
ten minutes it shows that the recipe works, not what it gives. WORK/erank-tiny is the result.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

_FULL = {"queries": 50_000, "match": 110_000, "reason": 40_000, "settle": 12_000}
_SHORT = {"queries": 2_500, "match": 3_000, "reason": 2_000, "settle": 640}
_RATES = {"match": 4e-4, "reason": 2e-4, "settle": 5e-5}


def _step(made: Path, *arguments: str) -> None:
    if not made.exists():
        print(f"training.{' '.join(arguments)}", flush=True)
        subprocess.run(
            [sys.executable, "-m", f"training.{arguments[0]}", *arguments[1:]], check=True
        )


def main(work: Path, short: bool) -> None:
    sizes = _SHORT if short else _FULL
    sources = ["--sources", "wordnet-base", "--most", "6000"] if short else []
    work.mkdir(parents=True, exist_ok=True)
    _step(work / "corpus.jsonl", "corpus", str(work), *sources)
    _step(work / "initial", "initialize", str(work))
    _step(work / "pairs.npz", "pairs", str(work), "--queries", str(sizes["queries"]))
    start = "initial"
    for phase, rate in _RATES.items():
        _step(
            work / phase, "train", str(work), "--phase", phase, "--start", start, "--end", phase,
            "--pairs", str(sizes[phase]), "--rate", str(rate),
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
