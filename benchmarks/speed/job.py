"""A job, what comes of it, and its run in a process of its own.

A process of its own has a peak of memory of its own, and cannot take down or slow what is measured
after it. Loading the model and a short warm-up are not timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.speed.work import Work
from erank_lite.errors import ErankLiteError, ModelError

TIMEOUT = 3600.0
"""Seconds that one run of one way may take, loading included."""


@dataclass(frozen=True)
class Job:
    """One way to be run once.

    Attributes:
        way: its name in `ways.WAYS`.
        work: what is to be done.
        ordinary: ids that prompts are drawn from: (first, one past the last).
        threads: of the processor.
        path: the file, folder or program's model that it runs.
        options: the way's own.
    """

    way: str
    work: Work
    ordinary: tuple[int, int]
    threads: int
    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def prompts(self) -> list[tuple[int, ...]]:
        """Return the prompts that are timed."""
        return self.work.prompts(self.ordinary)

    def warm_up(self, documents: int = 1) -> list[tuple[int, ...]]:
        """Return short prompts of other tokens, to be run before the clock starts."""
        shared = min(16, self.work.shared)
        work = Work(documents, shared, min(8, self.work.own), 1, documents)
        return work.prompts(self.ordinary, seed=8)


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Attributes:
        what: one line: what exactly ran.
        first: seconds until the first document was finished.
        last: seconds until all were.
        tokens: written.
        peak_memory: bytes; None where the system does not tell.
        beside: what else was measured.
    """

    what: str
    first: float | None = None
    last: float | None = None
    tokens: int | None = None
    peak_memory: int | None = None
    beside: dict[str, Any] = field(default_factory=dict)


def run_alone(job: Job, timeout: float = TIMEOUT) -> Outcome:
    """Run `job` in a process of its own.

    Raises:
        ModelError: it could not be done, or wrote another number of tokens than asked for.
    """
    # The thread pools of numpy and of what it calls are made when they are loaded.
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(job.threads))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child", str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=os.name == "posix",
        )
        try:
            _, said = child.communicate(json.dumps(asdict(job)), timeout)
        except subprocess.TimeoutExpired:
            raise ModelError(f"{job.way} was not done after {timeout:.0f} seconds") from None
        finally:
            _end(child)
        if answer.is_file():
            found = json.loads(answer.read_text())
            if "error" in found:
                raise ModelError(found["error"])
            outcome = Outcome(**found)
            if outcome.tokens not in (None, job.work.written):
                raise ModelError(f"{job.way} wrote {outcome.tokens} tokens, not {job.work.written}")
            return outcome
    lines = said.strip().splitlines()
    reason = lines[-1][:300] if lines else f"its process ended with code {child.returncode}"
    raise ModelError(f"{job.way} failed: {reason}")


def _end(child: subprocess.Popen[str]) -> None:
    """End what is left of a child and of what it started, such as a server."""
    if child.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL) if os.name == "posix" else child.kill()
        child.wait()


def answer(job: Job, place: Path) -> None:
    """Do `job` in this process and write what came of it, or the user's mistake, to `place`."""
    from erank_lite.benchmarks.speed.ways import runner

    try:
        found = asdict(runner(job.way)(job))
    except ErankLiteError as error:
        found = {"error": str(error)}
    place.write_text(json.dumps(found))
