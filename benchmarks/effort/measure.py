"""Reads candidates with full reasoning, and keeps what would have been answered on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from erank_lite.benchmarks.effort.probe import Probe, ProbeGuide
from erank_lite.benchmarks.journal import Fields, Journal, of, opened
from erank_lite.benchmarks.runner import Job, facts
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.engines.base import Engine
from erank_lite.families import DEFAULT
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.score import ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.types import Request
from erank_lite.util.reporter import SILENT, Reporter

_NUMBER = of(int, float, None)
_FIELDS: Fields = {
    "first_stage_score": _NUMBER, "prompt": of(int), "tokens": of(int), "rank_score": _NUMBER,
    "expected_score": _NUMBER, "probes": of(list),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A document that was read to the end.

    Attributes:
        query: its query's id.
        id: its own.
        first_stage_score: by which it was found.
        prompt: tokens that were read for it alone.
        tokens: that were written for it, probes left out.
        rank_score: of its answer; 0 for a failure.
        expected_score: of its answer; None where it was not computed.
        probes: what would have been answered, by the tokens after which it was to be seen; none
            after the reasoning's end.
    """

    query: str
    id: str
    first_stage_score: float
    prompt: int
    tokens: int
    rank_score: float
    expected_score: float | None
    probes: dict[int, Probe]


def read(
    spec: ModelSpec, job: Job, cuts: Sequence[int], folder: Path, reporter: Reporter = SILENT
) -> tuple[dict[str, list[Reading]], float | None]:
    """Read what is missing of a job, and return all of it.

    Args:
        spec: the model.
        job: what is to be read.
        cuts: tokens of reasoning after which to look.
        folder: where readings are kept; the same call goes on from there.
        reporter: shows how many documents are done.

    Returns:
        For each query its documents in the first stage's order; and what a token read costs of a
        token written, by this run, or None where nothing was read.

    Raises:
        ModelError: the model cannot be used, or cannot go on; what is finished is kept.
    """
    model = spec.resolve(reporter)
    settings = facts(spec, model, job) | {"probes": list(cuts)}
    name = f"{spec.label}-{job.collection.name}"
    share = None
    with opened(folder / "probed", name, settings, _FIELDS) as journal:
        if job.kept(journal) < job.size:
            with spec.load(reporter) as engine:
                reporter.watch(engine)
                _read(engine, spec.label, job, cuts, journal, reporter)
                share = _reading_share(engine)
        return {
            query: [_reading(journal, job, query, document) for document, _ in found]
            for query, found in job.candidates.items()
        }, share


def _read(
    engine: Engine, label: str, job: Job, cuts: Sequence[int], journal: Journal, reporter: Reporter
) -> None:
    vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
    guides = ScoreGuides(vocabulary, "full", engine.max_new_tokens, engine.context_length)
    room = engine.context_length - guides.max_tokens() - _PROBED
    prompts = PromptBuilder(engine.tokenizer, engine.chat_template)
    missing = [
        (query, document, score)
        for query, found in job.candidates.items()
        for document, score in found
        if job.keys[query, document] not in journal.rows
    ]

    def requests() -> Iterator[Request[ProbeGuide]]:
        for key, (query, document, _) in enumerate(missing):
            text = job.collection.queries[query]
            prompt = prompts.query(text, job.instruction, job.truncate_length(DEFAULT)).document(
                job.texts[document], room
            )

            def guide(prompt=prompt) -> ProbeGuide:  # type: ignore[no-untyped-def]
                return ProbeGuide(guides.guide(prompt), vocabulary, prompt, cuts)

            own[key] = len(prompt.ids) - prompt.shared
            yield Request(key, prompt, guide, guides.max_tokens(prompt.think_prefix) + _PROBED)

    own: dict[int, int] = {}
    stage = f"{label}, {job.collection.name}"
    done = job.kept(journal)
    reporter.progress(stage, done, job.size, "documents")
    journal.begin()
    with closing(engine.run(requests())) as completions:
        for completion in completions:
            query, document, first = missing[completion.key]
            score = completion.guide.guide.score()
            journal.add(
                {
                    "key": job.keys[query, document],
                    "query": query,
                    "id": document,
                    "first_stage_score": first,
                    "prompt": own[completion.key],
                    "tokens": len(completion.guide.guide.ids),
                    "rank_score": score.rank_score or 0.0,
                    "expected_score": score.expected_score,
                    "probes": [
                        [cut, p.tokens, p.expected, p.mass]
                        for cut, p in completion.guide.probes.items()
                    ],
                }
            )
            done += 1
            reporter.progress(stage, done, job.size, "documents")


_PROBED = 12  # ids that a probe may append


def _reading_share(engine: Engine) -> float | None:
    """Return what reading a token of a prompt costs of writing one, documents being many."""
    pace, together = engine.pace, engine.plan.sequences or 1
    if pace is None or pace.assumed:
        return None
    read = pace.document(200, 0, together) / 200
    written = (pace.document(200, 100, together) - pace.document(200, 0, together)) / 100
    return read / written


def _reading(journal: Journal, job: Job, query: str, document: str) -> Reading:
    row = journal.rows[job.keys[query, document]]
    return Reading(
        query, document, row["first_stage_score"] or 0.0, row["prompt"], row["tokens"],
        row["rank_score"], row["expected_score"],
        {cut: Probe(tokens, expected, mass) for cut, tokens, expected, mass in row["probes"]},
    )  # fmt: skip
