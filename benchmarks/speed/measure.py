"""A grid of workloads and systems, on one machine, beside what the machine could do.

The same file, token ids and number of generated tokens go through each system, in a process of its
own, in turn and `repeat` times, so that a slow minute meets all of them; the fastest run of each
counts. llama-server and llama-batched-bench bring a llama.cpp of their own: for kernels to be the
same, build one, and let LLAMA_CPP_LIB_PATH point llama-cpp-python to its libraries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import Record, record
from erank_lite.benchmarks.speed.alone import TIMEOUT, run_alone
from erank_lite.benchmarks.speed.batched_bench import Bench
from erank_lite.benchmarks.speed.roofline import Costs, roofline
from erank_lite.benchmarks.speed.subject import Subject, find_subject
from erank_lite.benchmarks.speed.summary import summarize
from erank_lite.benchmarks.speed.systems import (
    BATCHED_BENCH,
    CEILINGS,
    OURS,
    PEAKS,
    SYSTEMS,
    Peers,
    check_systems,
    make_trial,
    select_systems,
)
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.benchmarks.speed.workload import AXES, Workload, ordinary_ids
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.gguf import GGUFFile
from erank_lite.util.reporter import SILENT, Reporter

Cell = tuple[Workload, str]
"""A place of the grid: a workload and the name of a system."""

_SMALL = Workload(documents=16, shared=61, own=100, tokens=16, sequences=16)
_SMALL_AXES = {
    "documents": (16, 64),
    "document tokens": (50, 200),
    "reasoning tokens": (8, 32),
    "sequences": (1, 4, 16),
}


@dataclass(frozen=True)
class SpeedOptions:
    """How a measurement is run.

    Attributes:
        repeat: how often each system runs; the fastest counts.
        threads: CPU threads, for every system; None means the physical cores that may be used.
        timeout: seconds that one run of one system may take.
        peers: where the peers are that are not packages.
        command: what was typed, for the record.
    """

    repeat: int = 2
    threads: int | None = None
    timeout: float = TIMEOUT
    peers: Peers = field(default_factory=Peers)
    command: str = "erank_lite.benchmarks.speed"

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"repeat must be at least 1, not {self.repeat}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise InputError(f"threads must lie between 1 and 1024, not {self.threads}")

    @property
    def cores(self) -> int:
        """Threads that every system gets."""
        return self.threads or usable_cores()


@dataclass(frozen=True)
class _Grid:
    """What the runs of a grid gave, by cell; what could not be run, with the reason."""

    subject: Subject
    gguf: GGUFFile
    options: SpeedOptions
    runs: dict[Cell, list[Measurement]]
    skipped: dict[Cell, str]

    def record(self, kind: str, **payload: Any) -> Record:
        """Return a record with what all have in common."""
        options = self.options
        common = {"model": self.subject.name, "threads": options.cores, "repeat": options.repeat}
        return record(kind, options.command, **common, **payload)


def measure_speed(
    model: str | Path,
    workloads: Sequence[Workload] = (Workload(),),
    *,
    systems: Sequence[str] | None = None,
    flash_attention: bool = False,
    ceilings: bool = True,
    options: SpeedOptions | None = None,
    reporter: Reporter = SILENT,
) -> list[Record]:
    """Measure this project, its peers and the ceilings on each workload.

    Args:
        model: its name, as `erank_lite.load.load` takes it.
        workloads: what is to be done.
        systems: names in `erank_lite.benchmarks.speed.systems.SYSTEMS`, to which one of ours is
            added; None means all that can run here.
        flash_attention: run this project's engine once more with flash attention.
        ceilings: measure the machine's rates and llama-batched-bench too.
        options: how it is run.
        reporter: shows how far it is.

    Returns:
        A record of kind "speed" for each workload. What could not be run is under "skipped", with
        the reason. Rates are per second, times in seconds, memory in bytes; loading is not timed.

    Raises:
        InputError: an option cannot be used.
        ModelError: the model cannot, or this project's own engine failed.
    """
    names = select_systems(systems, flash_attention) + [*CEILINGS] * ceilings
    options = options or SpeedOptions()
    grid = _run(model, workloads, names, [OURS], options, reporter)
    return [_speed_record(grid, workload, ceilings) for workload in dict.fromkeys(workloads)]


def measure_scaling(
    model: str | Path,
    axis: str,
    values: Sequence[int],
    workload: Workload | None = None,
    *,
    systems: Sequence[str] = (OURS,),
    options: SpeedOptions | None = None,
    reporter: Reporter = SILENT,
) -> list[Record]:
    """Measure how speed and memory of each system change along one axis.

    Args:
        model: its name, as `erank_lite.load.load` takes it.
        axis: one of `erank_lite.benchmarks.speed.workload.AXES`.
        values: the points, in the order in which they run.
        workload: the other parts; None means `Workload()`.
        systems: names in `erank_lite.benchmarks.speed.systems.SYSTEMS`.
        options: how it is run.
        reporter: shows how far it is.

    Returns:
        A record of kind "growth" for each system: the points' x, documents per second and peak
        memory in bytes.

    Raises:
        InputError: an option cannot be used.
        ModelError: the model cannot, or a run failed.
    """
    if axis not in AXES:
        raise InputError(f"there is no axis `{axis}`", f"there are {', '.join(AXES)}")
    if not values:
        raise InputError(f"`{axis}` needs at least one value")
    check_systems(systems)
    workload, options = workload or Workload(), options or SpeedOptions()
    points = workload.vary(axis, values)
    grid = _run(model, points, systems, systems, options, reporter)
    return [_scaling_record(grid, workload, axis, system) for system in systems]


def measure_small(
    model: str | Path, options: SpeedOptions | None = None, reporter: Reporter = SILENT
) -> Iterator[Record]:
    """Measure a small workload in all systems that are here, then how ours scales.

    It takes at most three minutes on two cores with erank-tiny.

    Args:
        model: its name.
        options: how it is run; None runs everything once.
        reporter: shows how far it is.

    Yields:
        The record of speed, which names the peers that are missing under "skipped"; then those of
        growth along four axes.

    Raises:
        InputError: an option cannot be used.
        ModelError: the model cannot, or this project's own engine failed.
    """
    options = options or SpeedOptions(repeat=1)
    yield from measure_speed(
        model, [_SMALL], flash_attention=True, options=options, reporter=reporter
    )
    for axis, values in _SMALL_AXES.items():
        yield from measure_scaling(model, axis, values, _SMALL, options=options, reporter=reporter)


def _run(
    model: str | Path,
    workloads: Sequence[Workload],
    systems: Sequence[str],
    required: Sequence[str],
    options: SpeedOptions,
    reporter: Reporter,
) -> _Grid:
    """Run every system on every workload in turn, and again.

    What fails is taken out and explained in `skipped`, unless it is `required`.
    """
    subject = find_subject(model, options.peers.checkpoint, reporter)
    gguf = GGUFFile.read(subject.path)
    ordinary, path = ordinary_ids(gguf), str(subject.path)
    trials: dict[Cell, Trial] = {}
    grid = _Grid(subject, gguf, options, {}, {})

    def skip(cell: Cell, error: ModelError) -> None:
        if cell[1] in required:
            raise error
        trials.pop(cell, None)
        grid.runs.pop(cell, None)
        reason = "; ".join(str(error).splitlines())
        if (cell[1], reason) not in ((name, r) for (_, name), r in grid.skipped.items()):
            reporter.message(f"{cell[1]} is skipped: {reason}")
        grid.skipped[cell] = reason

    for workload, name in product(dict.fromkeys(workloads), systems):
        _check_context(subject.name, gguf, workload)
        cell = workload, name
        if name == PEAKS and any(n == PEAKS for _, n in trials):
            continue  # the machine's rates are the same for all workloads
        try:
            trial = Trial(name, workload, ordinary, options.cores, path)
            trials[cell] = make_trial(name, trial, subject.checkpoint, options.peers)
        except ModelError as error:
            skip(cell, error)
    for turn in range(options.repeat):
        for cell, trial in list(trials.items()):
            try:
                found = run_alone(trial, options.timeout)
            except ModelError as error:
                skip(cell, error)
                continue
            grid.runs.setdefault(cell, []).append(found)
            seconds = "" if found.last is None else f": {found.last:.2f} s"
            name = f"{trial.system}{_differences(trial.workload, workloads)}"
            reporter.message(f"{turn + 1} of {options.repeat}, {name}{seconds}")
    return grid


def _check_context(name: str, gguf: GGUFFile, workload: Workload) -> None:
    """Refuse a workload that does not fit into the model's context."""
    length = int(gguf.hparam("context_length", 0) or 0)
    if length and workload.context_length > length:
        raise InputError(
            f"{name} has a context of {length} tokens, and a document would need "
            f"{workload.context_length}",
            "ask for fewer shared, document or generated tokens",
        )


def _differences(workload: Workload, workloads: Sequence[Workload]) -> str:
    """Return what sets a workload apart from the others, for people."""
    return "".join(
        f", {getattr(workload, name)} {axis}"
        for axis, name in AXES.items()
        if len({getattr(w, name) for w in workloads}) > 1
    )


def _speed_record(grid: _Grid, workload: Workload, ceilings: bool) -> Record:
    runs = {name: found for (w, name), found in grid.runs.items() if w == workload}
    skipped = {name: reason for (w, name), reason in grid.skipped.items() if w == workload}
    ways = [_way(name, runs[name], workload) for name in SYSTEMS if name in runs]
    if not ways:
        raise ModelError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    rates = _rates([m for (_, name), found in grid.runs.items() if name == PEAKS for m in found])
    roof = practical = None
    if OURS in runs:
        ours = ways[0]["documents_per_second"]
        practical = _practical(runs.get(BATCHED_BENCH, []), workload, ours)
        if runs[OURS][0].extra["on_cpu"]:
            roof = _roofline(grid.gguf, workload, rates, ours) if rates else None
        elif ceilings:
            skipped["ceiling"] = "the model runs on a GPU; the rates measured are the CPU's"
    return grid.record(
        "speed",
        work=asdict(workload),
        ways=ways,
        ceiling=roof,
        practical_ceiling=practical,
        machine_rates=rates,
        skipped=skipped,
        notes=summarize(ways, roof, practical),
    )


def _scaling_record(grid: _Grid, workload: Workload, axis: str, system: str) -> Record:
    runs = {w: found for (w, name), found in grid.runs.items() if name == system}
    points = []
    for point, found in runs.items():
        way = _way(system, found, point)
        keys = ("documents_per_second", "tokens_per_second", "peak_memory")
        points.append({"x": getattr(point, AXES[axis])} | {key: way[key] for key in keys})
    what = next(iter(runs.values()))[0].what
    return grid.record(
        "growth", way=system, what=what, work=asdict(workload), axis=axis, points=points
    )


def _way(name: str, runs: Sequence[Measurement], workload: Workload) -> dict[str, Any]:
    """Return what a record says of a system: its fastest run, and the most memory of all."""
    fastest = min(runs, key=lambda run: run.last or 0.0)
    seconds = fastest.last
    assert seconds is not None
    way = {
        "name": name,
        "what": fastest.what,
        "documents_per_second": workload.documents / seconds,
        "tokens_per_second": None if fastest.tokens is None else fastest.tokens / seconds,
        "first_result": fastest.first,
        "last_result": seconds,
        "peak_memory": max((r.peak_memory for r in runs if r.peak_memory), default=None),
        "seconds": [run.last for run in runs],
    }
    if "outside_decode" in fastest.extra:
        way["outside_decode"] = fastest.extra["outside_decode"]
    return way


def _rates(runs: Sequence[Measurement]) -> dict[str, Any] | None:
    """Return the best of each of the machine's rates; `gflops` is the better of the two ways."""
    if not runs:
        return None
    best = {name: max(run.extra[name] for run in runs) for name in runs[0].extra}
    return {"gflops": max(best["matmul_gflops"], best["model_gflops"])} | best


def _roofline(gguf: GGUFFile, workload: Workload, rates: dict[str, Any], ours: float) -> Record:
    costs = Costs.from_gguf(gguf)
    found = roofline(costs, workload, rates["gflops"], rates["gigabytes_per_second"])
    return {
        "what": f"by {rates['gflops']:.0f} GFLOPS and {rates['gigabytes_per_second']:.1f} GB/s, "
        "measured in this run",
        "documents_per_second": found.rate(workload),
        "reading": found.reading,
        "decoding": found.decoding,
        "reached": ours / found.rate(workload),
    }


def _practical(runs: Sequence[Measurement], workload: Workload, ours: float) -> Record | None:
    if not runs:
        return None
    best = Bench(*(max(run.extra[name] for run in runs) for name in ("reading", "decoding")))
    return {
        "what": "llama-batched-bench: these shapes read and decoded at full width",
        "documents_per_second": best.rate(workload),
        "reading_tokens_per_second": best.reading,
        "decoding_tokens_per_second": best.decoding,
        "reached": ours / best.rate(workload),
    }
