"""All ways through the same work, in one run on one machine, beside what the machine could do.

The same file, token ids and number of written tokens go through each way, in a process of its own,
in turn and `repeat` times, so that a slow minute meets all of them; the fastest run of each counts.
llama-server and llama-batched-bench bring a llama.cpp of their own: for kernels to be the same,
build one, and let LLAMA_CPP_LIB_PATH point llama-cpp-python to its libraries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import record
from erank_lite.benchmarks.speed.batched_bench import Bench, batched_bench
from erank_lite.benchmarks.speed.ceiling import Costs, roofline
from erank_lite.benchmarks.speed.job import TIMEOUT, Job, Outcome, run_alone
from erank_lite.benchmarks.speed.model import Model
from erank_lite.benchmarks.speed.verdict import verdict
from erank_lite.benchmarks.speed.ways import OURS, RATES, WAYS, Peers, chosen, job_of
from erank_lite.benchmarks.speed.work import Work, ordinary_ids
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.gguf import GGUFFile

_log = logging.getLogger(__name__)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a measurement is run.

    Attributes:
        repeat: how often each way runs; the fastest counts.
        threads: of the processor, for every way; None means the physical cores that may be used.
        timeout: seconds that one run of one way may take.
        say: called with one line as each run ends.
        command: what was typed, for the record.
    """

    repeat: int = 2
    threads: int | None = None
    timeout: float = TIMEOUT
    say: Say = _log.info
    command: str = "erank_lite.benchmarks.speed"

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"repeat must be at least 1, not {self.repeat}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise InputError(f"threads must lie between 1 and 1024, not {self.threads}")

    @property
    def cores(self) -> int:
        """Threads that every way gets."""
        return self.threads or usable_cores()


def measure_speed(
    model: str | Path,
    work: Work | None = None,
    *,
    ways: Sequence[str] | None = None,
    peers: Peers | None = None,
    flash_attention: bool = False,
    ceiling: bool = True,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Measure this project, its peers and the ceiling, and return the record.

    Args:
        model: its name, as `erank_lite.models.prepare.model_file` takes it.
        work: what is to be done; None means `Work()`.
        ways: names in `erank_lite.benchmarks.speed.ways.WAYS`; None means all that can run here.
        peers: where they are.
        flash_attention: run this project's engine once more with flash attention.
        ceiling: measure the machine's rates and llama-batched-bench too.
        settings: how it is run.

    Returns:
        A record of kind "speed". What could not be run is under "skipped", with the reason. Rates
        are per second, times in seconds, memory in bytes; loading is not timed.

    Raises:
        InputError: an option cannot be used.
        ModelError: the model cannot, or this project's own engine failed.
    """
    work, peers, settings = work or Work(), peers or Peers(), settings or Settings()
    names = chosen(ways, flash_attention)
    subject = Model.find(model, peers.checkpoint)
    gguf = subject.check(work)
    base = Job("", work, ordinary_ids(gguf), settings.cores, str(subject.gguf))
    jobs: dict[str, Job] = {}
    skipped: dict[str, str] = {}
    for name in names:
        job = job_of(name, subject, peers, base)
        if isinstance(job, Job):
            jobs[name] = job
        else:
            skipped[name] = job
    if ceiling:
        jobs[RATES] = replace(base, way=RATES)
    runs, benches = _run(jobs, skipped, base, peers if ceiling else None, settings)
    rates = _rates(runs.pop(RATES, []))
    if not runs:
        raise ModelError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    told = [_way(name, runs[name], work) for name in WAYS if name in runs]
    roof = practical = None
    if OURS in runs:
        ours = told[0]["documents_per_second"]
        practical = _practical(benches, work, ours)
        if runs[OURS][0].beside["on_processor"]:
            roof = _roofline(gguf, work, rates, ours) if rates else None
        elif ceiling:
            skipped["ceiling"] = "the model runs on a GPU; the rates measured are the processor's"
    return record(
        "speed",
        settings.command,
        model=subject.name,
        work=asdict(work),
        threads=settings.cores,
        repeat=settings.repeat,
        ways=told,
        ceiling=roof,
        practical_ceiling=practical,
        machine_rates=rates,
        skipped=skipped,
        notes=verdict(told, roof, practical),
    )


def _run(
    jobs: dict[str, Job],
    skipped: dict[str, str],
    base: Job,
    peers: Peers | None,
    settings: Settings,
) -> tuple[dict[str, list[Outcome]], list[Bench]]:
    """Run every job in turn, and again; what fails is taken out and told in `skipped`."""
    runs: dict[str, list[Outcome]] = {}
    benches: list[Bench] = []
    bench = "llama-batched-bench"
    program = None
    if peers is not None:
        program, reason = peers.program(bench)
        if program is None:
            skipped[bench] = reason
    for name, reason in skipped.items():
        settings.say(f"{name} is skipped: {reason}")
    for turn in range(settings.repeat):
        for name, job in list(jobs.items()):
            try:
                found = run_alone(job, settings.timeout)
            except ModelError as error:
                if name == OURS:
                    raise
                skipped[name] = str(error)
                settings.say(f"{name} is skipped: {error}")
                del jobs[name]
                runs.pop(name, None)
                continue
            runs.setdefault(name, []).append(found)
            took = f": {found.last:.2f} s" if found.last is not None else ""
            settings.say(f"{turn + 1} of {settings.repeat}, {name}{took}")
        if program is not None:
            try:
                benches.append(
                    batched_bench(
                        program, Path(base.path), base.work, base.threads, settings.timeout
                    )
                )
                settings.say(f"{turn + 1} of {settings.repeat}, {bench}")
            except ModelError as error:
                program, skipped[bench] = None, str(error)
                settings.say(f"{bench} is skipped: {error}")
    return runs, benches


def _way(name: str, outcomes: Sequence[Outcome], work: Work) -> dict[str, Any]:
    """Return what is told of a way: its fastest run, and the most memory of all."""
    fastest = min(outcomes, key=lambda o: o.last or 0.0)
    seconds = fastest.last
    assert seconds is not None
    peaks = [o.peak_memory for o in outcomes if o.peak_memory is not None]
    told = {
        "name": name,
        "what": fastest.what,
        "documents_per_second": work.documents / seconds,
        "tokens_per_second": None if fastest.tokens is None else fastest.tokens / seconds,
        "first_result": fastest.first,
        "last_result": seconds,
        "peak_memory": max(peaks, default=None),
        "seconds": [o.last for o in outcomes],
    }
    if "outside_decode" in fastest.beside:
        told["outside_decode"] = fastest.beside["outside_decode"]
    return told


def _rates(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return the best of each of the machine's rates; `gflops` is the better of the two ways."""
    if not outcomes:
        return None
    best = {name: max(o.beside[name] for o in outcomes) for name in outcomes[0].beside}
    return {"gflops": max(best["matmul_gflops"], best["model_gflops"])} | best


def _roofline(gguf: GGUFFile, work: Work, rates: dict[str, Any], ours: float) -> dict[str, Any]:
    found = roofline(Costs.of(gguf), work, rates["gflops"], rates["gigabytes_per_second"])
    return {
        "what": f"by {rates['gflops']:.0f} GFLOPS and {rates['gigabytes_per_second']:.1f} GB/s, "
        "measured in this run",
        "documents_per_second": found.rate(work),
        "reading": found.reading,
        "decoding": found.decoding,
        "reached": ours / found.rate(work),
    }


def _practical(benches: Sequence[Bench], work: Work, ours: float) -> dict[str, Any] | None:
    if not benches:
        return None
    best = Bench(max(b.reading for b in benches), max(b.decoding for b in benches))
    return {
        "what": "llama-batched-bench: these shapes read and decoded at full width",
        "documents_per_second": best.rate(work),
        "reading_tokens_per_second": best.reading,
        "decoding_tokens_per_second": best.decoding,
        "reached": ours / best.rate(work),
    }
