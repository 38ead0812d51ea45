"""One model on judged collections: the runs, the measures, and how the hybrid fares."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.files import file_name, write_json
from erank_lite.benchmarks.journal import Row
from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.first_stage import (
    BM25,
    BM25_VERSION,
    PAPER_DEPTH,
    Candidates,
    bm25,
    candidates_from_run,
    own_candidates,
    read_run,
    write_run,
)
from erank_lite.benchmarks.quality.measures import mean_measures
from erank_lite.benchmarks.quality.paper import paper_figures
from erank_lite.benchmarks.record import RECORDS, Record, Variant, record
from erank_lite.benchmarks.runner import Job, document_ids, rerank
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.hybrid import hybrid_scores
from erank_lite.util.reporter import SILENT, Reporter
from erank_lite.util.units import counted

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
_OWN = "the collection's own candidates"
_BRIGHT_SUBSETS = 12


@dataclass(frozen=True)
class FirstStage:
    """Where the candidates come from.

    Attributes:
        depth: the first so many of each query are reranked.
        run: a TREC run; None means BM25, or the candidates that a collection names.
    """

    depth: int = PAPER_DEPTH
    run: Path | None = None

    def retrieve(
        self, collection: Collection, folder: Path, reporter: Reporter = SILENT
    ) -> tuple[Candidates, str]:
        """Find the candidates of each query, which takes BM25 minutes on a large collection.

        Args:
            collection: what is searched.
            folder: gets BM25's run, so that a job that goes on reads the same scores, to the digit.
            reporter: shows messages.

        Returns:
            The candidates, and what found them.

        Raises:
            InputError: the run cannot be used.
            ModelError: BM25 is not installed.
        """
        if self.run is not None:
            found = candidates_from_run(self.run, collection, self.depth)
            return _askable(self.run.name, found, collection, reporter), self.run.name
        if collection.candidates is not None:
            longest = max(map(len, collection.candidates.values()))
            if longest > self.depth:
                reporter.message(
                    f"only {self.depth} of {longest} candidates are ranked: --depth takes more"
                )
            found = own_candidates(collection, self.depth)
            return _askable(collection.name, found, collection, reporter), _OWN
        name = "".join(c if c.isalnum() else "-" for c in collection.name)
        name += f"-{self.depth}-{collection.digest()}-{BM25_VERSION}"
        file = folder / "first-stage" / f"{name}.trec"
        if not file.is_file():
            reporter.message(f"BM25 reads the documents of {collection.name}")
            write_run(file, bm25(collection, self.depth), BM25)
        run = read_run(file)
        found = {q: list(run.get(q, {}).items()) for q in collection.queries}
        return _askable("BM25", found, collection, reporter), BM25


def _askable(
    name: str, found: Candidates, collection: Collection, reporter: Reporter
) -> Candidates:
    """Return the candidates of queries that can be asked, and tell which queries have none."""
    of = f"of {counted(len(found), 'query')} of {collection.name}"
    empty = [query for query, text in collection.queries.items() if not text.strip()]
    if empty:
        reporter.message(f"{len(empty)} {of} are empty ({_some(empty)}): they count as 0")
        found = found | {query: [] for query in empty if query in found}
    missing = [query for query, documents in found.items() if not documents and query not in empty]
    if missing:
        reporter.message(
            f"{name} has no documents for {len(missing)} {of} ({_some(missing)}): they count as 0"
        )
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def evaluate(
    spec: ModelSpec,
    job: Job,
    found_by: str,
    depth: int,
    folder: Path,
    *,
    command: str,
    alpha: float,
    whole: bool,
    reporter: Reporter = SILENT,
) -> Record:
    """Rerank a collection and measure it.

    `folder` gets the runs (`first-stage/…`, `runs/MODEL/COLLECTION-KEY.trec` and
    `….hybrid-ALPHA.trec`), the record (`records/quality-MODEL-COLLECTION-KEY.json`), and what is
    finished of the documents (`kept/`). KEY stands for all that matters to the results: another
    setting, or another collection of the same name, replaces nothing.

    Args:
        spec: the model.
        job: the documents, as `FirstStage.retrieve` found them.
        found_by: what found them.
        depth: how many of each query were asked for.
        folder: of all results.
        command: what was typed.
        alpha: the weight of the first stage in the hybrid run that is written.
        whole: all queries of the collection are in it.
        reporter: shows how far it is.

    Returns:
        A record of kind "quality": `measures` has those of the first stage, of the reranked order
        and of the hybrid by alpha; `published` the paper's, where everything was done as there.

    Raises:
        InputError: something that was given cannot be used.
        ModelError: the model cannot.
    """
    collection, settings = job.collection, job.settings
    outcome = rerank(spec, job, folder, reporter)
    ranking = outcome.ranking()
    name = f"{file_name(collection.name)}-{outcome.key}"
    file = folder / "runs" / file_name(spec.label) / f"{name}.trec"
    write_run(file, _scored(ranking, "rank_score"), spec.label)
    measures: dict[str, Any] = {
        "first stage": mean_measures(
            {q: [name for name, _ in found] for q, found in job.candidates.items()},
            collection,
            depth,
        ),
        "reranked": mean_measures(document_ids(ranking), collection, depth),
    }
    if found_by != _OWN:
        hybrids = {
            a: {query: hybrid_scores(documents, a) for query, documents in ranking.items()}
            for a in sorted({*ALPHAS, alpha})
        }
        measures["hybrid"] = {
            str(a): mean_measures(document_ids(hybrid), collection, depth)
            for a, hybrid in hybrids.items()
        }
        write_run(
            file.with_name(f"{name}.hybrid-{alpha}.trec"),
            _scored(hybrids[alpha], "hybrid_score"),
            f"{spec.label} hybrid {alpha}",
        )
    family = outcome.family
    length = job.truncate_length(family)
    as_published = (
        whole
        and found_by in (BM25, _OWN)
        and (found_by == _OWN or depth == PAPER_DEPTH)
        and settings.instruction is None
        and settings.thinking == "full"
        and length == family.truncate_length
    )
    rows = outcome.all()
    found = record(
        "quality",
        command,
        model=spec.label,
        variant=asdict(Variant.from_label(spec.label)),
        ran=outcome.description,
        size=outcome.size,
        collection=collection.name,
        queries=len(collection.queries),
        documents=len(rows),
        depth=depth,
        first_stage=found_by,
        family=family.name,
        instruction=family.instruction_text(job.instruction),
        thinking=settings.thinking,
        truncate_length=length,
        strict=str(spec.options.get("strict")).lower() == "true",
        measures=measures,
        published=paper_figures(spec.model, collection.name, family.name) if as_published else None,
        as_published=as_published,
        failed=sum(row["failure"] is not None for row in rows),
        forced=sum(row["forced"] for row in rows),
        tokens=statistics.fmean(row["tokens"] for row in rows) if rows else 0.0,
        documents_per_second=outcome.rate,
    )
    write_json(folder / RECORDS / f"quality-{file_name(spec.label)}-{name}.json", found)
    return found


def bright(records: Sequence[Record]) -> dict[str, float] | None:
    """Return nDCG@10 over BRIGHT's 12 subsets, with the paper's where all were done as there."""
    subsets = [r for r in records if r["collection"].startswith("bright/")]
    if len({r["collection"] for r in subsets}) < _BRIGHT_SUBSETS:
        return None
    means = {
        name: statistics.fmean(r["measures"][name]["nDCG@10"] for r in subsets)
        for name in ("first stage", "reranked")
    }
    if all(r["as_published"] for r in subsets):
        first = subsets[0]
        means |= paper_figures(first["model"], "bright", first["family"]) or {}
    return means


def _scored(ranking: dict[str, list[Row]], name: str) -> dict[str, list[tuple[str, float | None]]]:
    return {query: [(row["id"], row[name]) for row in rows] for query, rows in ranking.items()}
