"""A job: many queries, in an order that saves work, finished once each, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from erank_lite.effort import Effort
from erank_lite.errors import InputError
from erank_lite.jobs.inputs import Entry, Queries
from erank_lite.jobs.outputs import Journal
from erank_lite.reranker import Reranker, sort_results
from erank_lite.util.reporter import SILENT, Reporter

_KEYS = ("score", "probability", "rank_score")


@dataclass(frozen=True)
class Settings:
    """How the documents of a job are read.

    Attributes:
        instruction: of queries that bring none.
        truncate_length: as for `Reranker.rerank`.
        depth: how many of each query are read; all by default.
        top_k: how many of each query are written; all by default.
        reasoning: write what the model thought.
    """

    instruction: str | None = None
    truncate_length: int | None = None
    depth: int | None = None
    top_k: int | None = None
    reasoning: bool = False


@dataclass
class Summary:
    """What was done.

    Attributes:
        queries: that are finished, those of earlier runs counted, those skipped not.
        before: how many of these were finished before.
        documents: that were scored in this run.
        failures: documents that could not be.
        skipped: (id, why) of queries that could not be used, those of earlier runs too.
        seconds: that this run took.
    """

    queries: int = 0
    before: int = 0
    documents: int = 0
    failures: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def keep(
        self, journal: Journal, entry: Entry, results: Sequence[dict[str, Any]], settings: Settings
    ) -> None:
        """Write a query that is finished down, and count it."""
        journal.add(entry.number, record(entry.id, results, settings))
        self.documents += len(results)
        self.failures += sum(result["failure"] is not None for result in results)

    def end(self, journal: Journal, entries: Sequence[Entry], began: float) -> None:
        """Count what the journal has of the queries, and the seconds since `began`."""
        self.skipped = [(e.id, journal.skipped[e.number]) for e in entries
                        if e.number in journal.skipped]  # fmt: skip
        self.queries = finished(journal, entries)
        self.seconds = time.monotonic() - began


def finished(journal: Journal, entries: Sequence[Entry]) -> int:
    """Return how many of the queries have results."""
    return sum(e.number in journal and e.number not in journal.skipped for e in entries)


def skip(journal: Journal, entry: Entry, why: str) -> None:
    """Write a query that cannot be used down, and why."""
    journal.add(entry.number, {"id": entry.id, "results": [], "failure": why})


def shard(entries: Sequence[Entry], number: int, of: int) -> list[Entry]:
    """Return one of `of` parts of the queries; together they are all.

    Example:
        >>> entries = [Entry(n, str(n), b"", 1, n) for n in range(5)]
        >>> [[e.number for e in shard(entries, part, 2)] for part in (0, 1)]
        [[0, 2, 4], [1, 3]]
    """
    return [entry for entry in entries if entry.number % of == number]


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return queries so that those whose prompts begin alike follow each other.

    Example:
        >>> [e.id for e in in_order([Entry(0, "a", b"x", 1, 0), Entry(1, "b", b"y", 1, 0),
        ...                          Entry(2, "c", b"x", 1, 0)])]
        ['a', 'c', 'b']
    """
    groups: dict[bytes, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.alike, []).append(entry)
    return [entry for group in groups.values() for entry in group]


def run(
    reranker: Reranker,
    queries: Queries,
    entries: Sequence[Entry],
    journal: Journal,
    settings: Settings,
    skip_mistakes: bool = False,
    reporter: Reporter = SILENT,
) -> Summary:
    """Finish what a journal lacks.

    Args:
        reranker: what reads.
        queries: of the input.
        entries: those that are asked for.
        journal: where what is finished is kept.
        settings: how documents are read.
        skip_mistakes: go on after a query that cannot be used; it is in the summary.
        reporter: shows how many documents are done.

    Raises:
        InputError: a query cannot be used, or the journal cannot be written.
        ModelError: the model cannot go on; what is finished is kept.
    """
    began = time.monotonic()
    summary = Summary()
    left = [entry for entry in in_order(entries) if entry.number not in journal]
    summary.before = finished(journal, entries)
    total = sum(to_read(entry, settings) for entry in entries)
    done = total - sum(to_read(entry, settings) for entry in left)
    reporter.watch(reranker.engine)

    def tell(count: int) -> None:
        nonlocal done
        done += count
        reporter.progress("documents", done, total, "documents")

    tell(0)
    while left:
        begun = _Begun(queries, left)
        try:
            for entry, results in _ranked(reranker, begun, settings, tell):
                summary.keep(journal, entry, results, settings)
            break
        except InputError as error:
            bad = begun.last
            if not skip_mistakes or bad is None or bad.number in journal:
                raise
            skip(journal, bad, error.message)
            left = [entry for entry in left if entry.number not in journal]
    summary.end(journal, entries, began)
    return summary


class _Begun:
    """Reads queries as they are asked for, and remembers which was the last."""

    def __init__(self, queries: Queries, entries: Sequence[Entry]) -> None:
        self.last: Entry | None = None
        self.entries: list[Entry] = []
        self._queries, self._left = queries, iter(entries)

    def __iter__(self) -> Iterator[tuple[str, list[dict[str, Any]], str | None]]:
        for entry in self._left:
            self.last = entry
            query = self._queries.read(entry)
            self.entries.append(entry)
            yield query.text, query.documents, query.instruction


def _ranked(
    reranker: Reranker, begun: _Begun, settings: Settings, tell: Callable[[int], None]
) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
    """Yield each query as all its documents are finished, best first."""
    waiting: dict[int, list[dict[str, Any]]] = {}
    for place, result in reranker.iter_rerank_many(
        begun, settings.instruction, settings.truncate_length, effort=Effort(settings.depth)
    ):
        results = waiting.setdefault(place, [])
        results.append(without_texts(result))
        tell(result.get("level") is not None or result["failure"] is not None)
        if len(results) == begun.entries[place].documents:
            yield begun.entries[place], sort_results(waiting.pop(place))


def to_read(entry: Entry, settings: Settings) -> int:
    """Return how many of a query's documents are read."""
    return min(entry.documents, settings.depth or entry.documents)


def record(name: str, results: Sequence[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Return what is written of a query.

    Args:
        name: its id.
        results: best first, as `Reranker.rerank` returns them.
        settings: which of it.
    """
    keys = ["id", "index", "rank", *_KEYS]
    keys += ["level", "estimate"] * (settings.depth is not None)
    keys += ["reasoning"] * settings.reasoning + ["truncated", "failure"]
    return {
        "id": name,
        "results": [{key: result[key] for key in keys} for result in results[: settings.top_k]],
    }


def facts(queries: Queries, settings: Settings, part: tuple[int, int] | None) -> dict[str, Any]:
    """Return what of a job decides its output, beside the model, as JSON has it."""
    return {
        "input": queries.digest,
        "settings": vars(settings),
        "shard": None if part is None else list(part),
    }


def without_texts(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without the texts: the caller has them, and only the ranking is held."""
    return {name: value for name, value in result.items() if name not in ("content", "completion")}
