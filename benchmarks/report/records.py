"""The records that the report reads, typed: a frozen dataclass for each kind of record.

The fields are the keys of the JSON object. One with a default may be null or missing there; what an
object holds beside these keys is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from erank_lite.benchmarks.record import Variant


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where something was measured; `memory` in bytes."""

    system: str
    processor: str | None = None
    cores: int | None = None
    memory: float | None = None
    gpus: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A measurement, with what it needs to be judged; two are equal where they are the same.

    Attributes:
        file: the name of the file that it was read from, without folders.
        data: all that the file holds.
    """

    kind: ClassVar[str] = ""
    file: str
    data: Mapping[str, Any]
    metrics_version: int
    command: str
    commit: str
    date: str
    machine: Machine
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Measures of a ranking, by name; of the hybrids, by alpha first."""

    first_stage: Mapping[str, float] = field(default_factory=dict, metadata={"key": "first stage"})
    reranked: Mapping[str, float]
    hybrid: Mapping[float, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality(Record):
    """How well a model ranks a judged collection; `size` in bytes, None for a server."""

    kind: ClassVar[str] = "quality"
    model: str
    variant: Variant
    ran: str
    size: float | None = None
    collection: str
    queries: int
    documents: int
    depth: int | None = None
    first_stage: str | None = None
    thinking: object = None
    truncate_length: int | None = None
    strict: bool = False
    measures: Measures
    published: Mapping[str, float] = field(default_factory=dict)
    failed: float | None = None
    forced: float | None = None
    tokens: float | None = None
    documents_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the files of a fidelity record are compared with."""

    name: str
    variant: Variant
    ran: str
    size: float | None = None
    ndcg: float = field(metadata={"key": "nDCG@10"})
    documents_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A file compared with the reference, or the reference itself in another batch shape (floor).

    Attributes:
        same, top_10, same_answer, forced, failed: shares.
        difference: mean absolute difference of rank scores, from 0 to 10.
        change: of nDCG@10 from the reference's, with the `interval` of a paired bootstrap.
        kl: in nats.
        scatter: the reference's rank score and this one's, of some documents.
    """

    name: str
    variant: Variant
    ran: str
    size: float | None = None
    floor: bool = False
    same: float
    difference: float
    difference_95: float | None = None
    tau: float | None = None
    rbo: float | None = None
    top_10: float | None = None
    ndcg: float = field(metadata={"key": "nDCG@10"})
    change: float
    interval: tuple[float, float]
    forced: float | None = None
    failed: float | None = None
    tokens: float | None = None
    kl: float | None = None
    kl_95: float | None = None
    same_answer: float | None = None
    documents_per_second: float | None = None
    scatter: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fidelity(Record):
    """How near a model's files come to their reference, on the same documents."""

    kind: ClassVar[str] = "fidelity"
    collection: str
    queries: int
    documents: int
    thinking: object = None
    reference: Reference
    runs: tuple[Run, ...]

    @property
    def files(self) -> list[Run]:
        """The files that were compared, the largest first."""
        return sorted((r for r in self.runs if not r.floor), key=lambda r: -(r.size or 0))

    @property
    def floors(self) -> list[Run]:
        """The reference against itself."""
        return [run for run in self.runs if run.floor]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The documents of a speed record; `shared`, `own` and `tokens` (written) of each."""

    documents: int
    shared: int
    own: int
    tokens: int
    sequences: int | None = None


@dataclass(frozen=True, kw_only=True)
class System:
    """One of the ways that the documents went; times in seconds, `peak_memory` in bytes."""

    name: str
    what: str = ""
    documents_per_second: float | None = None
    tokens_per_second: float | None = None
    first_result: float | None = None
    last_result: float | None = None
    peak_memory: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What no system can pass, and why."""

    what: str = ""
    documents_per_second: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the machine itself can do."""

    gflops: float | None = None
    gigabytes_per_second: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Speed(Record):
    """The same documents by several systems."""

    kind: ClassVar[str] = "speed"
    model: str
    work: Workload
    systems: tuple[System, ...] = field(metadata={"key": "ways"})
    ceiling: Ceiling | None = None
    practical_ceiling: Ceiling | None = None
    notes: tuple[str, ...] = ()
    machine_rates: Rates = field(default_factory=Rates)

    @property
    def ours(self) -> float | None:
        """erank-lite's own documents per second."""
        rates = (s.documents_per_second for s in self.systems if s.name == "erank-lite")
        return next((rate for rate in rates if rate), None)

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """The ceilings by their names."""
        found = {"ceiling": self.ceiling, "practical ceiling": self.practical_ceiling}
        return {name: ceiling for name, ceiling in found.items() if ceiling}


@dataclass(frozen=True, kw_only=True)
class Point:
    """Speed and memory (bytes) at one value of what grows."""

    x: float
    documents_per_second: float
    peak_memory: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth(Record):
    """How speed and memory change as the work grows along `axis`."""

    kind: ClassVar[str] = "growth"
    model: str
    axis: str
    points: tuple[Point, ...]

    @property
    def in_order(self) -> list[Point]:
        """The points by what grows."""
        return sorted(self.points, key=lambda point: point.x)


KINDS: dict[str, type[Record]] = {each.kind: each for each in (Quality, Fidelity, Speed, Growth)}
"""The class of each kind of record."""
WITHOUT_SECTION = (
    "noise", "forecasts", "effort", "within", "load", "thresholds", "search-index", "known-items",
    "families",
)  # fmt: skip
"""Kinds of records that no report shows."""
