"""One reasoning through two models: what each would answer after the very same tokens.

Two models that reason for themselves differ by what they wrote on the way, which luck decides: a
near tie between two words, early on. Here every model reads the reference's own reasoning, up to
the place of the number, and gives its probabilities there: what is left is the error of its weights
and kernels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.journal import Journal, opened
from erank_lite.benchmarks.runner import Job, Outcome, facts
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.engines.base import Engine
from erank_lite.errors import ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.types import Progress, Request, Step

Distribution = list[float]
"""Probabilities of the answers 0 to 10; what is missing from 1 is anything else."""

_CLOSE, _ANSWER = "</think>", "<answer>"
_LEAST = 1e-9  # a probability below is this: KL divergence would be without bounds
_SPARE = 4  # tokens of the context that a request takes beside prompt and reasoning


class AnswerGuide:
    """Has a reasoning read, and measures the answer behind it. See `erank_lite.types.Guide`."""

    def __init__(self, vocabulary: ScoreVocabulary, ids: tuple[int, ...]) -> None:
        """Prepare to read `ids`, which end where the answer's number would begin."""
        self._vocabulary = vocabulary
        self._ids = ids
        self._first: Mapping[int, float] | None = None
        self._zero = 0.0

    @property
    def max_tokens(self) -> int:
        """The most ids that the completion can hold at any moment."""
        return len(self._ids) + 2

    def begin(self) -> Step:
        """Return the first step: read the reasoning."""
        return Step(force=self._ids, logprobs_for=self._vocabulary.candidates)

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take the probabilities of the first digit, then of a zero behind a one."""
        if self._first is None:
            self._first = logprobs or {}
            one = self._vocabulary.ids.get(b"1")
            if one is None or self._vocabulary.one_token_ten:
                return Step(done=True)
            return Step(drop=1, force=(one,), logprobs_for=self._vocabulary.candidates)
        zero = self._vocabulary.ids.get(b"0")
        self._zero = math.exp((logprobs or {}).get(zero, -math.inf)) if zero is not None else 0.0
        return Step(done=True)

    def distribution(self) -> Distribution:
        """Return the probabilities of the answers 0 to 10."""
        masses = [0.0] * 11
        for token, value in self._vocabulary.values.items():
            masses[value] += math.exp((self._first or {}).get(token, -math.inf))
        if not self._vocabulary.one_token_ten:
            masses[10] = masses[1] * self._zero
            masses[1] -= masses[10]
        return masses


def reasoning(completion: str) -> str | None:
    """Return a completion up to the place where its answer's number stands; None without one."""
    head, close, tail = completion.rpartition(_CLOSE)
    before, answer, after = tail.partition(_ANSWER)
    if not answer:
        return None
    return head + close + before + answer + after[: len(after) - len(after.lstrip())]


def divergence(these: Distribution, reference: Distribution) -> float:
    """Return KL(reference ‖ these) in nats over the eleven answers and "anything else"."""
    total = 0.0
    for p, q in zip(_with_rest(reference), _with_rest(these), strict=True):
        total += p * math.log(p / q)
    return max(0.0, total)


def _with_rest(masses: Distribution) -> Distribution:
    whole = [*masses, 1 - math.fsum(masses)]
    kept = [max(p, _LEAST) for p in whole]
    return [p / math.fsum(kept) for p in kept]


def distributions(
    spec: ModelSpec,
    job: Job,
    reference: Outcome,
    work: Path,
    *,
    progress: Progress,
) -> dict[tuple[str, str], Distribution]:
    """Return a model's answer to each document after the reference's reasoning.

    Documents whose answer the reference did not reach are left out. What is finished is kept in
    `work`, as by `erank_lite.benchmarks.runner.rerank`.

    Raises:
        ModelError: the model cannot be used, or its tokenizer is another.
        InputError: an option cannot be used, or the place.
    """
    texts = {
        (query, row["id"]): text
        for query, rows in reference.rows.items()
        for row in rows
        if row["failure"] is None and (text := reasoning(row["completion"])) is not None
    }
    weights = spec.bring(progress)
    read = hashlib.blake2b(repr(sorted(texts.items())).encode(), digest_size=12).hexdigest()
    settings = facts(spec, weights, job) | {"reasoning": read}
    name = f"forced-{spec.label}-{job.collection.name}"
    with opened(work / "kept", name, settings) as journal:
        if len(journal.rows) < len(texts):
            _go_on(spec, job, texts, journal, progress)
        return {key: journal.rows[key]["distribution"] for key in texts if key in journal.rows}


def _go_on(
    spec: ModelSpec,
    job: Job,
    texts: Mapping[tuple[str, str], str],
    journal: Journal,
    progress: Progress,
) -> None:
    left = [key for key in texts if key not in journal.rows]
    with spec.load(progress) as engine:
        journal.begin()
        done = len(journal.rows)
        for completion in engine.run(_requests(engine, job, texts, left)):
            query, name = left[completion.key]
            if completion.failure is not None:
                raise ModelError(f"document {name} of query {query}: {completion.failure}")
            assert isinstance(completion.guide, AnswerGuide)
            found = completion.guide.distribution()
            if any(map(math.isnan, found)):
                raise ModelError(f"{spec.label} computes no numbers (NaN): its file is damaged")
            journal.add({"query": query, "id": name, "distribution": found})
            done += 1
            progress("documents", done, len(texts))


def _requests(
    engine: Engine,
    job: Job,
    texts: Mapping[tuple[str, str], str],
    left: Sequence[tuple[str, str]],
) -> Iterator[Request]:
    core = PromptBuilder(engine.tokenizer, engine.chat_template)
    vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
    prompts: tuple[str, Any] | None = None
    for number, (query, name) in enumerate(left):
        if prompts is None or prompts[0] != query:
            text = job.collection.queries[query]
            prompts = query, core.query(text, job.instruction, job.settings.truncate_length)
        ids = engine.tokenizer.encode_trusted(texts[query, name])
        room = engine.context_length - len(ids) - _SPARE
        prompt = prompts[1].document(job.texts[name], room)
        yield Request(number, prompt, lambda ids=ids: AnswerGuide(vocabulary, ids))  # type: ignore[misc]
