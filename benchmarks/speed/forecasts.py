"""Forecasts beside what jobs took, and the time left that was shown while they ran.

    python -m erank_lite.benchmarks.speed.forecasts MODEL 8x100:none 40x300:256 --json FILE

Jobs are DOCUMENTSxWORDS:THINKING, and run in that order: the first is foretold by assumed rates,
where nothing is kept of the model, and the others by what was learnt.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite import Reranker
from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.benchmarks.speed.batch_invariance import NOTES
from erank_lite.engines.base import Engine
from erank_lite.errors import ErankLiteError, InputError
from erank_lite.util.time_left import TimeLeft

_JOB = re.compile(r"(\d+)x(\d+)(?::(\w+))?\Z")
_QUERY = "Which of these notes praises a river?"
_EVERY = 1.0  # seconds between two looks at the time left


@dataclass(frozen=True)
class Job:
    """What is reranked.

    Attributes:
        documents: how many.
        words: of each.
        thinking: as `Reranker` takes it.

    Example:
        >>> Job.parse("40x300:none")
        Job(documents=40, words=300, thinking='none')
    """

    documents: int
    words: int
    thinking: str | int = "full"

    @classmethod
    def parse(cls, text: str) -> Job:
        """Take DOCUMENTSxWORDS:THINKING apart.

        Raises:
            InputError: it does not look so.
        """
        found = _JOB.match(text)
        if found is None or not int(found[1]):
            raise InputError(
                f"`{text}` is no job", "write DOCUMENTSxWORDS:THINKING, as in 40x300:none"
            )
        thinking = found[3] or "full"
        return cls(
            int(found[1]), int(found[2]), int(thinking) if thinking.isdecimal() else thinking
        )

    def texts(self) -> list[str]:
        """Return the documents."""
        draw = random.Random(self.words)
        return [
            f"{i}. " + " ".join(" ".join(draw.choices(NOTES, k=self.words)).split()[: self.words])
            for i in range(self.documents)
        ]


class _Watch:
    """Keeps every second how many documents are done, those under way counted, and the end told."""

    def __init__(self, engine: Engine, total: int) -> None:
        self.finished = 0
        self.seen: list[tuple[float, float]] = []  # documents, seconds at which the end was seen
        self._engine, self._begun, self._stop = engine, time.monotonic(), threading.Event()
        self._left, self._total = TimeLeft(0), total

    def __call__(self) -> None:
        while not self._stop.wait(_EVERY):
            done = self.finished + self._engine.under_way
            self._left.update(done, self._total)
            if self._left.end is not None:
                self.seen.append((done, self._left.end - self._begun))

    def end(self) -> float:
        """Look no more; return the seconds since the beginning."""
        self._stop.set()
        return time.monotonic() - self._begun


def measure_forecasts(
    model: str, jobs: Sequence[Job], command: str = "erank_lite.benchmarks.speed.forecasts"
) -> Record:
    """Run jobs, each foretold before it begins.

    Args:
        model: as `Reranker` takes it.
        jobs: in the order in which they run.
        command: what was typed, for the record.

    Returns:
        A record of kind "forecasts". `forecast` and `took` in seconds; `left` is how far the end
        that the time left led to was off, at the worst, after the first tenth of the documents: a
        share of what the job took.

    Raises:
        InputError: a mode cannot be used.
        ModelError: the model cannot.
    """
    rows = []
    for job in jobs:
        # Each loads the model anew, as a command does: what was learnt is kept at its end.
        with Reranker(model, thinking=job.thinking) as reranker:
            texts = job.texts()
            foretold = reranker.forecast([(_QUERY, texts)])
            assert foretold is not None
            watch = _Watch(reranker.engine, job.documents)
            threading.Thread(target=watch, daemon=True).start()
            for _ in reranker.iter_rerank(_QUERY, texts):
                watch.finished += 1
            took = watch.end()
        ends = [end for done, end in watch.seen if done > job.documents / 10]
        rows.append(
            {
                "documents": job.documents,
                "words": job.words,
                "thinking": job.thinking,
                "assumed": foretold.assumed,
                "forecast": foretold.seconds,
                "took": took,
                "left": max((abs(end / took - 1) for end in ends), default=None),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return record("forecasts", command, model=Path(model).name, jobs=rows)


def main() -> int:
    """Run the command and return its exit code."""
    module = "erank_lite.benchmarks.speed.forecasts"
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model")
    parser.add_argument("jobs", nargs="+", metavar="DOCUMENTSxWORDS:THINKING")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        jobs = [Job.parse(text) for text in arguments.jobs]
        command = command_line(["python", "-m", module, *sys.argv[1:]])
        found: dict[str, Any] = measure_forecasts(arguments.model, jobs, command)
        if arguments.json:
            write_json(arguments.json, found)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
