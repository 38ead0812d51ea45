"""Teacher forcing: what each model would answer after the very same reasoning.

Two models that reason for themselves differ by what they wrote before, which luck decides: a
near tie between two words, early on. Here every model reads the reference's own reasoning, up to
where the number begins, and gives its probabilities there: what is left is the error of its weights
and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.journal import Journal, number, opened, row_key
from erank_lite.benchmarks.runner import Job, Outcome, facts
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.engines.base import Engine
from erank_lite.errors import ModelError
from erank_lite.families import DEFAULT
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.types import Request, Step
from erank_lite.util.reporter import SILENT, Reporter

Distribution = list[float]
"""Probabilities of the answers 0 to 10; what is missing from 1 is anything else."""
Distributions = dict[tuple[str, str], Distribution]
"""By query and document."""

_CLOSE, _ANSWER = "</think>", "<answer>"
_MIN_PROBABILITY = 1e-9  # one below counts as this, or KL divergence would have no bound
_RESERVE = 4  # tokens of the context that a request takes beside prompt and reasoning


class AnswerGuide:
    """Has a reasoning read, and measures the answer behind it. See `erank_lite.types.Guide`."""

    def __init__(self, vocabulary: ScoreVocabulary, ids: tuple[int, ...]) -> None:
        """Prepare to read `ids`, which end where the answer's number would begin."""
        self._vocabulary = vocabulary
        self._ids = ids
        self._first: Mapping[int, float] | None = None
        self._zero = 0.0

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
    """Return a completion up to where its answer's number begins; None without an answer.

    Example:
        >>> reasoning("<think>so</think>\\n<answer> 7</answer>")
        '<think>so</think>\\n<answer> '
    """
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
    kept = [max(p, _MIN_PROBABILITY) for p in whole]
    return [p / math.fsum(kept) for p in kept]


def distributions(
    spec: ModelSpec,
    job: Job,
    reference: Outcome,
    folder: Path,
    reporter: Reporter = SILENT,
) -> Distributions:
    """Return a model's answer to each document after the reference's reasoning.

    Documents whose answer the reference did not reach are left out, and all where one of the two
    does not answer on ERank's scale. What is finished is kept in
    `folder`, as by `erank_lite.benchmarks.runner.rerank`.

    Raises:
        ModelError: the model cannot be used.
        InputError: an option cannot be used, or the folder.
    """
    model = spec.resolve(reporter)
    if not (reference.family.on_a_scale and model.family.on_a_scale):
        return {}
    texts = {
        (query, row["id"]): text
        for query, rows in reference.rows.items()
        for row in rows
        if row["failure"] is None and (text := reasoning(row["completion"])) is not None
    }
    keys = {
        (query, name): row_key(job.collection.queries[query], job.texts[name], text)
        for (query, name), text in texts.items()
    }
    settings = facts(spec, model, job) | {"kind": "teacher forcing"}
    name = f"teacher-forcing-{spec.label}-{job.collection.name}"
    with opened(folder / "kept", name, settings, {"distribution": _is_distribution}) as journal:
        if not set(keys.values()) <= journal.rows.keys():
            _resume(spec, job, texts, keys, journal, reporter)
        return {pair: journal.rows[keys[pair]]["distribution"] for pair in texts}


def _is_distribution(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 11 and all(map(number, value))


def _resume(
    spec: ModelSpec,
    job: Job,
    texts: Mapping[tuple[str, str], str],
    keys: Mapping[tuple[str, str], str],
    journal: Journal,
    reporter: Reporter,
) -> None:
    missing = [pair for pair in texts if keys[pair] not in journal.rows]
    done = len(texts) - len(missing)
    stage = f"{spec.label}, the reference's reasoning"
    with spec.load(reporter) as engine:
        journal.begin()
        for completion in engine.run(_requests(engine, job, texts, missing)):
            query, name = missing[completion.key]
            if completion.failure is not None:
                raise ModelError(f"document {name} of query {query}: {completion.failure}")
            assert isinstance(completion.guide, AnswerGuide)
            found = completion.guide.distribution()
            if any(map(math.isnan, found)):
                raise ModelError(f"{spec.label} computes no numbers (NaN): its file is damaged")
            row = {"key": keys[query, name], "query": query, "id": name, "distribution": found}
            journal.add(row)
            done += 1
            reporter.progress(stage, done, len(texts), "documents")


def _requests(
    engine: Engine,
    job: Job,
    texts: Mapping[tuple[str, str], str],
    missing: Sequence[tuple[str, str]],
) -> Iterator[Request[AnswerGuide]]:
    builder = PromptBuilder(engine.tokenizer, engine.chat_template)
    vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
    prompts: tuple[str, Any] | None = None
    for key, (query, name) in enumerate(missing):
        if prompts is None or prompts[0] != query:
            text = job.collection.queries[query]
            prompts = query, builder.query(text, job.instruction, job.truncate_length(DEFAULT))
        ids = engine.tokenizer.encode_trusted(texts[query, name])
        room = engine.context_length - len(ids) - _RESERVE
        prompt = prompts[1].document(job.texts[name], room)
        guide = partial(AnswerGuide, vocabulary, ids)
        yield Request(key, prompt, guide, len(ids) + 2)
