"""Reranks a collection with one model, document by document, and keeps what is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.journal import Fields, Journal, Row, of, opened, row_key, settings_hash
from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.first_stage import Candidates
from erank_lite.benchmarks.record import machine, versions
from erank_lite.benchmarks.spec import ModelSpec, ResolvedModel
from erank_lite.errors import InputError, ModelError
from erank_lite.families.base import Family
from erank_lite.forecast import announce
from erank_lite.reranker import Reranker, sort_results
from erank_lite.results.facts import code_digest
from erank_lite.util.reporter import SILENT, Reporter

# What decides a result beside the model and the package's own files.
_LIBRARIES = ("llama-cpp-python", "torch", "transformers", "gptqmodel", "tokenizers")
_OPTIONAL = of(int, float, None)
# What is kept of a result.
_FIELDS: Fields = {
    "id": of(str), "index": of(int), "first_stage_score": _OPTIONAL, "score": of(int, None),
    "probability": _OPTIONAL, "rank_score": _OPTIONAL, "expected_score": _OPTIONAL,
    "forced": of(bool), "truncated": of(bool), "failure": of(str, None), "completion": of(str),
    "tokens": of(int), "engine": of(str),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How documents are read.

    Attributes:
        instruction: a name or free text; None is the collection's own.
        thinking: "full", "none" or a budget in tokens.
        truncate_length: query and documents, each, in tokens; None is the family's own.
    """

    instruction: str | None = None
    thinking: str = "full"
    truncate_length: int | None = None


@dataclass(frozen=True)
class Job:
    """Queries with the documents that are to be ranked for each.

    Attributes:
        collection: whose queries they are.
        candidates: for each query the documents, best first, with the first stage's scores.
        texts: of all these documents, by id.
        settings: how they are read.
    """

    collection: Collection
    candidates: Candidates
    texts: Mapping[str, str]
    settings: Settings

    @classmethod
    def from_candidates(
        cls, collection: Collection, candidates: Candidates, settings: Settings
    ) -> Job:
        """Read the candidates' texts, and return the job.

        Raises:
            InputError: the collection lacks a document.
        """
        wanted = {name for documents in candidates.values() for name, _ in documents}
        texts = collection.texts(wanted)
        missing = sorted(wanted - texts.keys())
        if missing:
            raise InputError(
                f"{collection.name} has no document {missing[0]!r}, which the first stage names "
                f"({len(missing)} such in all)",
                "check that the run is of this collection",
            )
        return cls(collection, candidates, texts, settings)

    @property
    def instruction(self) -> str:
        """The instruction, as text or as the name of the benchmark that has it."""
        return self.settings.instruction or self.collection.benchmark

    def truncate_length(self, family: Family) -> int | None:
        """Return to how many tokens query and documents are cut."""
        return self.settings.truncate_length or family.truncate_length

    @property
    def size(self) -> int:
        """How many pairs of query and document there are."""
        return sum(map(len, self.candidates.values()))

    @cached_property
    def keys(self) -> dict[tuple[str, str], str]:
        """Under what each result is kept, by query and document: a hash of their texts."""
        return {
            (query, name): row_key(self.collection.queries[query], self.texts[name])
            for query, documents in self.candidates.items()
            for name, _ in documents
        }

    def kept(self, journal: Journal) -> int:
        """Return how many of the pairs a journal has results of."""
        return sum(key in journal.rows for key in self.keys.values())

    def digest(self) -> str:
        """Return a hash of all that is read: queries, documents, scores of the first stage."""
        state = hashlib.blake2b(digest_size=12)
        for query, documents in self.candidates.items():
            state.update(repr((query, self.collection.queries[query], documents)).encode())
            for name, _ in documents:
                state.update(self.texts[name].encode("utf-8", "surrogatepass") + b"\0")
        return state.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """A job that is done.

    Attributes:
        label: of the model.
        rows: for each query its documents in the first stage's order.
        description: what computed them.
        size: bytes of the weights; None for a server's.
        rate: documents per second; None where it was not timed.
        key: a hash of all that matters to the results.
        family: what the model was asked, and how it was read.
    """

    label: str
    rows: dict[str, list[Row]]
    description: str
    size: int | None
    rate: float | None
    key: str
    family: Family

    def ranking(self) -> dict[str, list[Row]]:
        """Return each query's documents best first, as `Reranker.rerank` orders them."""
        return {query: sort_results(documents) for query, documents in self.rows.items()}

    def all(self) -> list[Row]:
        """Return the rows of all queries."""
        return [row for documents in self.rows.values() for row in documents]


def document_ids(ranking: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Return the ids of each query's documents, in their order."""
    return {query: [row["id"] for row in rows] for query, rows in ranking.items()}


def rerank(spec: ModelSpec, job: Job, folder: Path, reporter: Reporter = SILENT) -> Outcome:
    """Rerank what is missing of a job, and return all of it.

    Args:
        spec: the model.
        job: what is to be read.
        folder: where results are kept; what was read by the same model is not read again, whatever
            job it was read for.
        reporter: shows how many documents are done, and how far a download or a conversion is.

    Raises:
        ModelError: the model cannot be used, or cannot go on; what is finished is kept.
        InputError: an option cannot be used, or the folder.
    """
    model = spec.resolve(reporter)
    name = f"{spec.label}-{job.collection.name}"
    settings = facts(spec, model, job)
    with opened(folder / "kept", name, settings, _FIELDS) as journal:
        kept = job.kept(journal)
        if kept < job.size:
            if kept:
                reporter.message(f"{spec.label}: {kept} of {job.size} documents were kept before")
            try:
                _resume(spec, model, job, journal, reporter)
            except KeyboardInterrupt:
                reporter.message(
                    f"interrupted: {job.kept(journal)} of {job.size} documents are kept, and the "
                    "same command goes on from there"
                )
                raise
        rows = {
            query: [
                journal.rows[job.keys[query, name]]
                | {"query": query, "id": name, "index": i, "first_stage_score": score}
                for i, (name, score) in enumerate(documents)
            ]
            for query, documents in job.candidates.items()
        }
        description = next((row["engine"] for d in rows.values() for row in d), model.engine)
        state = settings_hash(settings | {"reads": job.digest()})
        return Outcome(spec.label, rows, description, model.size, journal.rate, state, model.family)


def facts(spec: ModelSpec, model: ResolvedModel, job: Job) -> dict[str, Any]:
    """Return all that matters to the results of a model beside the texts, as JSON has it."""
    family = model.family
    settings = asdict(job.settings) | {
        "instruction": family.instruction_text(job.instruction),
        "truncate_length": job.truncate_length(family), "family": family.name,
    }  # fmt: skip
    if family.together:
        settings["reads"] = job.digest()
    return settings | {
        "collection": job.collection.name,
        "weights": model.digest,
        "engine": model.engine,
        "options": {name: str(value) for name, value in sorted(spec.options.items())},
        "code": code_digest(),
        "libraries": versions(_LIBRARIES),
        "machine": machine(),
    }


def _resume(
    spec: ModelSpec, model: ResolvedModel, job: Job, journal: Journal, reporter: Reporter
) -> None:
    together = model.family.together
    missing = {
        query: [
            {"id": name, "place": i, "content": job.texts[name], "first_stage_score": score}
            for i, (name, score) in enumerate(found)
            if together or job.keys[query, name] not in journal.rows
        ]
        for query, found in job.candidates.items()
        if any(job.keys[query, name] not in journal.rows for name, _ in found)
    }
    queries = [query for query, documents in missing.items() if documents]
    stage = f"{spec.label}, {job.collection.name}"
    with spec.load(reporter) as engine:
        reranker = Reranker(engine, family=spec.family, thinking=job.settings.thinking)
        reporter.watch(engine)
        pairs = [(job.collection.queries[query], missing[query]) for query in queries]
        settings = (job.instruction, job.truncate_length(reranker.family))
        announce(reranker, pairs, reporter, *settings)
        done = job.kept(journal)
        reporter.progress(stage, done, job.size, "documents")
        journal.begin()
        try:
            for number, result in reranker.iter_rerank_many(pairs, *settings):
                kept = {name: result.get(name) for name in _FIELDS} | {"index": result["place"]}
                query = queries[number]
                journal.add({"key": job.keys[query, result["id"]], "query": query} | kept)
                done += 1
                reporter.progress(stage, done, job.size, "documents")
        except ModelError as error:
            raise ModelError(
                f"{error.message}; what is finished is kept", error.hint or "run the command again"
            ) from None
