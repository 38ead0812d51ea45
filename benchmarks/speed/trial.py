"""One run of one system on one workload: what is to be run, and what was measured.

Loading the model and a short warm-up are not timed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from erank_lite.benchmarks.speed.workload import Workload


@dataclass(frozen=True)
class Trial:
    """What is to be run.

    Attributes:
        system: its name in `systems.SYSTEMS` or `systems.CEILINGS`.
        workload: what is to be done.
        ordinary: ids that prompts are drawn from: (first, one past the last).
        threads: CPU threads.
        path: the file or folder of the model.
        options: the system's own.
    """

    system: str
    workload: Workload
    ordinary: tuple[int, int]
    threads: int
    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def prompts(self) -> list[tuple[int, ...]]:
        """Return the prompts that are timed."""
        return self.workload.prompts(self.ordinary)

    def warm_up(self, documents: int = 1) -> list[tuple[int, ...]]:
        """Return short prompts of other tokens, to be run before the clock starts."""
        shared, own = min(16, self.workload.shared), min(8, self.workload.own)
        return Workload(documents, shared, own, 1, documents).prompts(self.ordinary, seed=8)


@dataclass(frozen=True)
class Measurement:
    """What one run gave.

    Attributes:
        what: one line: what exactly ran.
        first: seconds until the first document was finished.
        last: seconds until all were.
        tokens: generated for all documents.
        peak_memory: bytes; None where the system does not tell.
        extra: what else was measured.
    """

    what: str
    first: float | None = None
    last: float | None = None
    tokens: int | None = None
    peak_memory: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
