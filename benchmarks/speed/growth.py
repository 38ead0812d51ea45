"""How speed and memory go with the number and length of documents, of reasoning, and of sequences.

Each point runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import record
from erank_lite.benchmarks.speed.compare import Settings
from erank_lite.benchmarks.speed.job import Job, Outcome, run_alone
from erank_lite.benchmarks.speed.model import Model
from erank_lite.benchmarks.speed.ways import OURS, Peers, chosen, job_of
from erank_lite.benchmarks.speed.work import Work, ordinary_ids
from erank_lite.errors import InputError, ModelError

AXES = {
    "documents": "documents",
    "document tokens": "own",
    "reasoning tokens": "tokens",
    "sequences": "sequences",
}
"""What may grow, and which part of the work it is."""


def measure_growth(
    model: str | Path,
    axis: str,
    values: Sequence[int],
    work: Work | None = None,
    *,
    way: str = OURS,
    peers: Peers | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Measure one way at each of `values` along `axis`, and return the record.

    Args:
        model: its name, as `erank_lite.models.prepare.model_file` takes it.
        axis: one of `AXES`.
        values: the points, in the order in which they run.
        work: the other parts; None means `Work()`.
        way: a name in `erank_lite.benchmarks.speed.ways.WAYS`.
        peers: where they are.
        settings: how it is run.

    Returns:
        A record of kind "growth": the points' x, documents per second and peak memory in bytes.

    Raises:
        InputError: an option cannot be used.
        ModelError: the model cannot, or a run failed.
    """
    work, peers, settings = work or Work(), peers or Peers(), settings or Settings()
    if axis not in AXES:
        raise InputError(f"there is no axis {axis!r}: there are {', '.join(AXES)}")
    if not values:
        raise InputError("growth wants at least one value")
    chosen([way], False)
    subject = Model.find(model, peers.checkpoint)
    jobs = {}
    for value in dict.fromkeys(values):
        changed = replace(work, **{AXES[axis]: value})
        ordinary = ordinary_ids(subject.check(changed))
        job = job_of(way, subject, peers, Job("", changed, ordinary, settings.cores, ""))
        if isinstance(job, str):
            raise ModelError(f"{way} cannot be run: {job}")
        jobs[value] = job
    runs: dict[int, list[Outcome]] = {value: [] for value in jobs}
    for turn in range(settings.repeat):
        for value, job in jobs.items():
            found = run_alone(job, settings.timeout)
            runs[value].append(found)
            settings.say(f"{turn + 1} of {settings.repeat}, {value} {axis}: {found.last:.2f} s")
    return record(
        "growth",
        settings.command,
        model=subject.name,
        way=way,
        what=runs[values[0]][0].what,
        work=asdict(work),
        threads=settings.cores,
        repeat=settings.repeat,
        axis=axis,
        points=[_point(value, runs[value], jobs[value].work) for value in jobs],
    )


def _point(value: int, outcomes: Sequence[Outcome], work: Work) -> dict[str, Any]:
    seconds = min(o.last for o in outcomes if o.last is not None)
    peaks = [o.peak_memory for o in outcomes if o.peak_memory is not None]
    return {
        "x": value,
        "documents_per_second": work.documents / seconds,
        "tokens_per_second": work.written / seconds,
        "peak_memory": max(peaks, default=None),
    }
