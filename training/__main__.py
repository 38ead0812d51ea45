"""The whole recipe, from texts to the checkpoint that ships.

    python -m training WORK [--texts TEXTS] [--start CHECKPOINT] [--short]

Each step is a command of its own (`training.corpus`, `.documents`, `.queries`, `.pairs`, `.sets`,
`.initialize`, `.train`), and one that is done is not done again: what `training.written` makes, or
a record of edition-2/, is put into WORK before. TEXTS are described in `training.texts`; without
them the texts are the packages' alone. `--start` takes a
checkpoint in place of SmolLM2's weights and the first phase, as the second edition did with the
first. `--short` takes one source and few queries: in half an hour it shows that the recipe works,
not what it gives. The result is WORK/erank-tiny.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

_FULL = {"graded": 3_400, "match": 3_000, "rank": 5_904, "settle": 360}
_SHORT = {"graded": 1_500, "match": 900, "rank": 600, "settle": 90}
_RATES = {"match": 3e-4, "rank": 3e-4, "settle": 1e-4}
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


def main(work: Path, texts: Path | None, start: Path | None, short: bool) -> None:
    sizes = _SHORT if short else _FULL
    sources = ["--sources", "wordnet-base", "--most", "6000"] if short else []
    from_texts = ["--texts", str(texts)] if texts else []
    work.mkdir(parents=True, exist_ok=True)
    _step(work / "corpus.jsonl", "corpus", str(work), *sources)
    _step(work / "documents.jsonl", "documents", str(work), *from_texts)
    _step(work / "queries.jsonl", "queries", str(work), *from_texts)
    _step(work / "set-documents.npy", "sets", str(work))
    both = [] if short else ["--also-mpnet"]
    _step(work / "graded.jsonl", "pairs", str(work), "--queries", str(sizes["graded"]), *both)
    phases = list(_RATES)
    before = str(start.resolve()) if start else "initial"
    if start:
        phases.remove("match")
    else:
        _step(work / "initial", "initialize", str(work))
    for phase in phases:
        _step(
            work / phase, "train", str(work), "--phase", phase, "--start", before, "--end", phase,
            "--queries", str(sizes[phase]), "--rate", str(_RATES[phase]),
        )  # fmt: skip
        before = phase
    shutil.copytree(work / before, work / "erank-tiny", dirs_exist_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    main(arguments.work, arguments.texts, arguments.start, arguments.short)
