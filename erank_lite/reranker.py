"""Documents in, ranked documents out."""

from __future__ import annotations

import asyncio
import logging
import numbers
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypedDict

from erank_lite.batch import Asks, Batch, Job
from erank_lite.documents import Doc, as_documents
from erank_lite.effort import FULL, Effort
from erank_lite.effort.budget import Budget, OutOfTimeError
from erank_lite.effort.order import placed_by, reading_order
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.families import choose
from erank_lite.families.base import InRounds, Pointwise, parse_thinking
from erank_lite.load import load
from erank_lite.machine.pace import Forecast, Pace, Work
from erank_lite.models.text import ModelText
from erank_lite.results.facts import engine_facts
from erank_lite.results.store import ResultStore
from erank_lite.rounds import RoundsBatch
from erank_lite.util.reporter import SILENT, Reporter

Query = tuple[str, Sequence[Doc]] | tuple[str, Sequence[Doc], str | None]
"""(query, documents), or (query, documents, instruction): the instruction is the query's own."""


class Result(TypedDict, total=False):
    """The keys that a reranked document has beside its own.

    Attributes:
        content: the document's text.
        rank: from 1, best first.
        index: place in the documents given, from 0.
        score: 0 to 10, or None.
        probability: Pr(score), or None.
        rank_score: score × probability, what decides the rank; None for a failure.
        expected_score: Σ s·Pr(s), or None where it was not computed.
        reasoning: what the model thought.
        forced: the answer was asked for from outside.
        truncated: the document was cut.
        failure: None, or why there is no rank score.
        completion: all that the model wrote.
        level: how far the document was read: "full", the tokens of reasoning after which a budget
            ended it, or None where it was not read.
        estimate: of a document not read to the end, the rank score that it is placed by: that of
            the answer that it was asked for, or what is expected of one that was not read (None
            where these simply follow the others); else None.
        tokens: how many the model wrote.
        prompt_tokens: how many it read.
        reading_rank: with an `Effort`, the place in which it was to be read, from 1.
        engine: what computed it.
    """

    content: str
    rank: int
    index: int
    score: int | None
    probability: float | None
    rank_score: float | None
    expected_score: float | None
    reasoning: str
    forced: bool
    truncated: bool
    failure: str | None
    completion: str
    level: str | int | None
    estimate: float | None
    tokens: int
    prompt_tokens: int
    reading_rank: int
    engine: str


_log = logging.getLogger(__name__)
_REMOTE_RESERVE = 0.1  # of the time, where a server computes
_ANSWER = 4  # tokens that are written when an answer is asked for
_ASKED = 8  # tokens that are read to ask for it
_WAVE = 0.4  # of the budget, for documents that are begun together
_STEP = 256  # tokens of half a step, during which nothing can be told to stop
_FIRST_PASS = 0.3  # of the time, for the first pass
_LOOKED_AT = 32  # documents of a job that a forecast reads


class Reranker:
    """Ranks documents for queries with one model.

    It may be called from any number of threads and tasks at once: the calls share the model, and
    take turns. It belongs to the process that loaded it. Use it as a context manager, call `close`,
    or drop it: the model's memory is freed then.

    Example:
        >>> docs = [
        ...     "Mars has two small moons.",
        ...     "The sky looks blue because air scatters blue light more than red.",
        ... ]
        >>> with Reranker("erank-tiny") as reranker:
        ...     for result in reranker.rerank("why is the sky blue", docs):
        ...         print(result["rank"], result["score"] > 5, result["content"])
        1 True The sky looks blue because air scatters blue light more than red.
        2 False Mars has two small moons.
    """

    def __init__(
        self,
        model: str | Path | Engine,
        *,
        engine: str = "auto",
        family: str | None = None,
        thinking: str | int = "full",
        first_pass: str | Path | Engine | Reranker | None = None,
        results: ResultStore | None = None,
        reporter: Reporter = SILENT,
        **options: Any,
    ) -> None:
        """Load `model`.

        Args:
            model: a GGUF file, the folder of a checkpoint (BF16 or GPTQ), a name on the Hugging
                Face Hub (what is missing is downloaded and converted, once; see
                `erank_lite.models.ref`), the address of a server (http://…), or an engine that is
                already there (it is then the caller's to close).
            engine: "llama.cpp", "gptq", "transformers", "remote", or "auto", which takes what suits
                the model and this machine (`erank_lite.engines.choose`).
            family: what the model is asked and how it is read, see `erank_lite.families`; None
                means what the model's name tells, else "erank".
            thinking: "full" (reasoning as long as the model likes, up to the published limit), a
                budget in tokens, after which the answer is asked for, or "none".
            first_pass: another model, as `model`, that orders the documents before this one reads
                them, without reasoning; or a reranker, which is then the caller's to close. It
                takes the place of the first stage's scores, see `erank_lite.effort.Effort`.
            results: where results are kept, and found again; it is the caller's to close.
            reporter: told the bytes that are downloaded and converted.
            options: the engine's own, such as `strict`, `sequences`, `gpu_layers`, `threads`; see
                `erank_lite.engines.llama_cpp.options` and its siblings.

        Raises:
            ModelError: the model cannot be used.
            InputError: an option cannot.
        """
        self.thinking = parse_thinking(thinking)
        if not isinstance(first_pass, Engine | str | Path | Reranker | None):
            kind = type(first_pass).__name__
            raise InputError(f"first_pass must be a model or a Reranker, not {kind}")
        if not isinstance(results, ResultStore | None):
            raise InputError(f"results must be a ResultStore, not {type(results).__name__}")
        if not isinstance(model, Engine | str | Path):
            raise InputError(f"model must be a path or an engine, not {type(model).__name__}")
        self._owned = not isinstance(model, Engine)
        self._first_pass: Reranker | None = None
        self._results = results
        self._first_pass_owned = not isinstance(first_pass, Reranker)
        if isinstance(model, Engine):
            if options:
                raise InputError(f"{', '.join(options)}: options belong to the engine given")
            self.engine = model
        else:
            self.engine = load(model, engine, options, reporter)
        try:
            loaded = self.engine
            self.family = choose(family, loaded.names)
            if not self.family.thinks and self.thinking != "full":
                _log.warning("%s never reasons: thinking is left as it is", self.family.name)
            text = ModelText(
                loaded.tokenizer, loaded.chat_template, loaded.end_ids, loaded.max_new_tokens
            )
            self._asker = self.family.make(text, loaded.context_length, self.thinking)
            if isinstance(self._asker, InRounds) and self.thinking == "none":
                _log.warning("%s always reasons: thinking none is as full", self.family.name)
            self._room = loaded.context_length - self._asker.max_tokens()
            if self._room < 1:
                raise InputError(
                    f"a thinking budget of {self.thinking} leaves no room for a prompt: the "
                    f"context has {loaded.context_length} tokens"
                )
            self._facts = self._result_facts() if results is not None else None
            if first_pass is not None:
                self._first_pass = (
                    first_pass
                    if isinstance(first_pass, Reranker)
                    else Reranker(first_pass, thinking="none", reporter=reporter)
                )
        except BaseException:
            self.close()
            raise

    def rerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> list[dict[str, Any]]:
        """Rank `docs` for `query`.

        Args:
            query: the query's text.
            docs: texts, or dicts with `content` and, for hybrids, `first_stage_score`; they are
                not changed, and their other keys pass through. Frames and objects with a text are
                taken too, see `erank_lite.documents`.
            instruction: what relevance means: free text, or a name such as "beir" or
                "bright/aops" (`erank_lite.families.erank.prompt.INSTRUCTIONS`); None means "beir".
            truncate_length: cut the query and each document to this many tokens; None cuts a
                document only where the model's context demands it.
            effort: how many documents are read, in how much time; all are by default.

        Returns:
            As many dicts as documents, best first: the document's own keys (its text under
            `content`) and those of `Result`. Documents that were not read stand where what is
            expected of them places them, or below those that were. Failed documents come last.

        Raises:
            InputError: the query, a document or an option cannot be used.
            ModelError: the engine cannot go on.

        Example:
            >>> docs = [
            ...     {"id": "mars", "content": "Mars has two small moons."},
            ...     {"id": "sky", "content": "The sky is blue because air scatters blue light."},
            ... ]
            >>> with Reranker("erank-tiny", threads=1) as reranker:
            ...     best, other = reranker.rerank("why is the sky blue", docs)
            >>> best["id"], best["rank"], best["index"], best["forced"], best["failure"]
            ('sky', 1, 1, False, None)
            >>> best["rank_score"] == best["score"] * best["probability"]
            True
            >>> best["completion"]
            '<think>\\n\\n</think>\\n\\n<answer>10</answer>'
        """
        return sort_results(
            list(self.iter_rerank(query, docs, instruction, truncate_length, effort=effort))
        )

    def iter_rerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> Iterator[dict[str, Any]]:
        """Yield the documents of `rerank` as they finish, in any order, without `rank`.

        `sort_results` puts them in order. Closing the iterator gives up the rest. Documents that
        are not read come last.

        Example:
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     finished = list(reranker.iter_rerank("which cat lives in groups", docs))
            >>> sorted(result["index"] for result in finished), "rank" in finished[0]
            ([0, 1], False)
            >>> sort_results(finished)[0]["content"]
            'The lion is the only cat that lives in groups.'
        """
        job = self._job(query, docs, instruction, truncate_length)
        yield from (result for _, result in self._run([job], effort))

    async def arerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> list[dict[str, Any]]:
        """Do what `rerank` does, for `asyncio`; a task that is cancelled gives up the rest.

        Example:
            >>> import asyncio
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> async def both(reranker):
            ...     return await asyncio.gather(
            ...         reranker.arerank("which cat lives in groups", docs),
            ...         reranker.arerank("what barks at strangers", docs),
            ...     )
            >>> with Reranker("erank-tiny") as reranker:
            ...     [ranking[0]["index"] for ranking in asyncio.run(both(reranker))]
            [0, 1]
        """
        finished = self.aiter_rerank(query, docs, instruction, truncate_length, effort=effort)
        return sort_results([result async for result in finished])

    async def aiter_rerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> AsyncIterator[dict[str, Any]]:
        """Do what `iter_rerank` does, for `asyncio`.

        Example:
            >>> import asyncio
            >>> async def indices(reranker):
            ...     docs = ["Dogs bark at strangers.", "", "Air scatters blue light."]
            ...     return [r["index"] async for r in reranker.aiter_rerank("blue light", docs)]
            >>> with Reranker("erank-tiny") as reranker:
            ...     sorted(asyncio.run(indices(reranker)))
            [0, 1, 2]
        """
        job = self._job(query, docs, instruction, truncate_length)
        batch = await asyncio.to_thread(self._batch, [job], effort)
        with suppress(OutOfTimeError):
            async with aclosing(self.engine.arun(batch.source)) as completions:
                async for completion in completions:
                    batch.finish(completion)
                    for _, result in batch.results():
                        yield result
        for _, result in batch.rest():
            yield result
        if batch.mistake is not None:
            raise batch.mistake

    def rerank_many(
        self,
        queries: Iterable[Query],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> Iterator[list[dict[str, Any]]]:
        """Rank the documents of many queries, without draining the engine between them.

        Args:
            queries: (query, documents) pairs, or (query, documents, instruction); read as the
                engine has room for more.
            instruction: as for `rerank`, of those queries that bring none.
            truncate_length: as for `rerank`.
            effort: as for `rerank`, of each query; budgets are for single queries.

        Yields:
            What `rerank` returns, for each query in the order given.

        Raises:
            InputError: a query or its documents cannot be used. As with what `queries` itself
                raises, the queries before it are finished and yielded first.

        Example:
            >>> docs = ["The lion is the cat that lives in groups.", "Air scatters blue light."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     for ranking in reranker.rerank_many(
            ...         [("which cat lives in groups", docs), ("what does air scatter", docs)]
            ...     ):
            ...         print([result["index"] for result in ranking])
            [0, 1]
            [1, 0]
        """
        counts: list[int] = []
        waiting: dict[int, list[dict[str, Any]]] = {}
        place = 0
        jobs = self._jobs(queries, instruction, truncate_length, counts)
        for number, result in self._run(jobs, _of_many(effort)):
            waiting.setdefault(number, []).append(result)
            while place < len(counts) and len(waiting.get(place, ())) == counts[place]:
                yield sort_results(waiting.pop(place, []))
                place += 1
        while place < len(counts):  # queries without documents, at the end
            yield sort_results(waiting.pop(place, []))
            place += 1

    def iter_rerank_many(
        self,
        queries: Iterable[Query],
        instruction: str | None = None,
        truncate_length: int | None = None,
        *,
        effort: Effort = FULL,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the documents of `rerank_many` as they finish, each with its query's place.

        For long jobs, which keep what is finished.

        Yields:
            (place of the query in `queries`, from 0; the document, without `rank`).

        Raises:
            InputError: as for `rerank_many`.

        Example:
            >>> docs = ["The lion is the cat that lives in groups.", "Air scatters blue light."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     finished = reranker.iter_rerank_many([("lions", docs), ("light", docs[:1])])
            ...     sorted((query, result["index"]) for query, result in finished)
            [(0, 0), (0, 1), (1, 0)]
        """
        jobs = self._jobs(queries, instruction, truncate_length, [])
        yield from self._run(jobs, _of_many(effort))

    def _jobs(
        self,
        queries: Iterable[Query],
        instruction: str | None,
        truncate_length: int | None,
        counts: list[int],
    ) -> Iterator[Job]:
        """Yield the queries as jobs, and note in `counts` how many documents they have."""
        if not isinstance(queries, Iterable):
            raise InputError(
                f"queries must be (query, documents) pairs, not {type(queries).__name__}"
            )
        for number, pair in enumerate(queries):
            try:
                query, docs, *own = _pair(pair)
                asked = own[0] if own and own[0] is not None else instruction
                job = self._job(query, docs, asked, truncate_length)
            except InputError as error:
                raise InputError(f"query {number}: {error.message}", error.hint) from None
            counts.append(len(job.docs))
            yield job

    def _job(
        self, query: str, docs: Any, instruction: str | None, truncate_length: int | None
    ) -> Job:
        """Return a query with its documents.

        Raises:
            InputError: they cannot be used.
        """
        prompts = self._asker.query(query, instruction, truncate_length)
        self.family.instruction_text(instruction)  # refuses what the prompt has no place for
        return Job(query, prompts, as_documents(docs), instruction, truncate_length)

    def forecast(
        self,
        queries: Sequence[Query],
        instruction: str | None = None,
        truncate_length: int | None = None,
        thinking: str | int | None = None,
        depth: int | None = None,
    ) -> Forecast | None:
        """Return how long `rerank_many` is expected to take, before anything is computed.

        Some documents are looked at, not all. What the model has taken so far on this machine is
        kept in the cache; until it has run here, it is assumed.

        Args:
            queries: as for `rerank_many`.
            instruction: as for `rerank`.
            truncate_length: as for `rerank`.
            thinking: the mode to tell the time for; None means this reranker's own.
            depth: how many documents of each query are read; all by default.

        Returns:
            The forecast; None where a server computes, or the family asks in rounds.

        Raises:
            InputError: a query, a document or the mode cannot be used.

        Example:
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     forecast = reranker.forecast([("which cat lives in groups", docs)])
            >>> 0 < forecast.seconds < 60
            True
        """
        pace, asker = self.engine.pace, self._asker
        if pace is None or isinstance(asker, InRounds):
            return None
        pairs = [(query, doc) for query, docs, *_ in queries for doc in as_documents(docs)[:depth]]
        if thinking is not None:
            asker = asker.with_thinking(parse_thinking(thinking))
        work = self._work(pace, asker, pairs, instruction, truncate_length)
        return pace.forecast(work, self.engine.plan.sequences or 1)

    def _work(
        self,
        pace: Pace,
        asker: Pointwise,
        pairs: Sequence[tuple[str, Doc]],
        instruction: str | None,
        truncate_length: int | None,
    ) -> Work:
        """Return what documents ask for, judged by some of them."""
        some = pairs[:: -(-len(pairs) // _LOOKED_AT) or 1]
        prompts = [
            asker.query(query, instruction, truncate_length).document(text, self._room)
            for query, doc in some
            if (text := doc if isinstance(doc, str) else str(doc["content"])).strip()
        ]
        shared = [prompt.shared for prompt in prompts] or [0]
        own = [len(prompt.ids) - prompt.shared for prompt in prompts] or [0]
        return Work(
            len(pairs),
            prompt=sum(own) / len(own),
            answer=pace.answers.mean(asker.max_tokens()),
            shared=sum(shared) / len(shared),
            assumed=not pace.answers.knows(asker.max_tokens()),
        )

    def with_thinking(self, thinking: str | int) -> Reranker:
        """Return a reranker of the same model in another mode of thinking; it is freed with this.

        Raises:
            InputError: the mode cannot be used.

        Example:
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     fast = reranker.with_thinking("none")
            ...     best, _ = fast.rerank("which cat lives in groups", docs)
            >>> best["index"], best["reasoning"]
            (0, '')
        """
        mode = parse_thinking(thinking)
        other = object.__new__(Reranker)
        other.__dict__.update(self.__dict__)
        other._owned = other._first_pass_owned = False
        other.thinking = mode
        other._asker = self._asker.with_thinking(mode)
        other._room = self.engine.context_length - other._asker.max_tokens()
        if other._facts is not None:
            other._facts = other._facts | {"thinking": mode}
        return other

    def close(self) -> None:
        """Free the model, unless its engine was the caller's."""
        if self._owned:
            self.engine.close()
        if self._first_pass is not None and self._first_pass_owned:
            self._first_pass.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Reranker cannot be pickled or copied: it holds memory of this process; make one in "
            "each process that uses it"
        )

    def __enter__(self) -> Reranker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, jobs: Iterable[Job], effort: Effort) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) for every document of every job, as they finish."""
        batch = self._batch(jobs, effort)
        with suppress(OutOfTimeError), closing(self.engine.run(batch.source)) as completions:
            for completion in completions:
                batch.finish(completion)
                yield from batch.results()
        yield from batch.rest()
        if batch.mistake is not None:
            raise batch.mistake

    def _batch(self, jobs: Iterable[Job], effort: Effort) -> Batch | RoundsBatch:
        _check_effort(effort)
        asker = self._asker
        if isinstance(asker, InRounds):
            return self._in_rounds(jobs, asker, effort)
        if not effort.limited:
            return self._of(jobs, asker, effort.depth, None)
        (job,) = jobs = tuple(jobs)
        begun, pace = time.monotonic(), self.engine.pace
        together = self.engine.plan.sequences or 1
        reserve = _REMOTE_RESERVE * (effort.within or 0.0)
        if pace is not None:
            together = self._together(pace, asker, job, effort)
            reserve = together * pace.document(_ASKED, _ANSWER, together)
            reserve += pace.document(_STEP, 0, 1)
        if effort.within is not None:  # to judge the documents took some of it
            effort = replace(effort, within=effort.within - (time.monotonic() - begun))
        return self._of(jobs, asker, effort.depth, Budget(effort, together, reserve))

    def _of(
        self, jobs: Iterable[Job], asker: Pointwise, depth: int | None, budget: Budget | None
    ) -> Batch:
        description = self.engine.description
        asks = Asks(asker, self._room, description, self._results, self._facts)
        return Batch(jobs, asks, self._reading_order, depth, budget)

    def _in_rounds(self, jobs: Iterable[Job], asker: InRounds, effort: Effort) -> RoundsBatch:
        if effort.limited:
            raise InputError(
                f"{self.family.name} asks about the documents of a query more than once, so that a "
                "budget of time or tokens cannot be kept",
                "have it read fewer documents, or limit its thinking",
            )
        together = self.engine.plan.sequences or 1
        return RoundsBatch(
            jobs, asker, self._room, self.engine.description, together, self._reading_order,
            effort.depth,
        )  # fmt: skip

    def _together(self, pace: Pace, asker: Pointwise, job: Job, effort: Effort) -> int:
        """Return how many documents are read together, so that some are finished in time.

        All that are begun together end together: where time is short, they are begun in waves, of
        which each is to take a part of it.
        """
        pairs = [(job.query, doc) for doc in job.docs[: effort.depth]]
        work = self._work(pace, asker, pairs, job.instruction, job.truncate_length)
        seconds = float("inf") if effort.within is None else _WAVE * effort.within
        tokens = float("inf") if effort.tokens is None else _WAVE * effort.tokens
        for together in range(self.engine.plan.sequences or 1, 1, -1):
            each = pace.document(work.prompt, work.answer, together, work.shared)
            if together * each <= seconds and together * work.answer <= tokens:
                return together
        return 1

    def _result_facts(self) -> dict[str, Any] | None:
        """Return what decides results beside what is read; None where it is not known."""
        facts = engine_facts(self.engine)
        limit = self._asker.max_new_tokens
        family = self.family.name
        return facts and facts | {
            "family": family,
            "thinking": self.thinking,
            "max_new_tokens": limit,
        }

    def _reading_order(self, job: Job, budget: Budget | None) -> list[int]:
        """Return the places of a job's documents as they are read."""
        if self._first_pass is None:
            return reading_order(job.docs)
        left = budget.left() if budget else None
        try:
            ranked = self._first_pass.rerank(
                job.query, job.docs, job.instruction, job.truncate_length,
                effort=FULL if left is None else Effort(within=left * _FIRST_PASS),
            )  # fmt: skip
        except ModelError as error:
            _log.warning(
                "the first pass failed (%s): documents are read as if there were none",
                error.message,
            )
            return reading_order(job.docs)
        return [result["index"] for result in ranked]


def _check_effort(effort: Any) -> None:
    if not isinstance(effort, Effort):
        raise InputError(f"effort must be an Effort, not {type(effort).__name__}")


def _of_many(effort: Effort) -> Effort:
    _check_effort(effort)
    if effort.limited:
        raise InputError(
            "a budget of time or tokens is for one query", "give `depth`, or call `rerank`"
        )
    return effort


def sort_results(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `results` best first, with `rank` from 1.

    Documents that were not read to the end are placed by their estimate. Equal rank scores (all the
    zeros, mostly) are ordered by the expected score if every tied document has it, else by the
    order of reading or the first stage's score if every one has that, else as they came in. After
    them come documents that were not read and of which nothing is expected, then failures.

    Example:
        >>> results = [
        ...     {"index": 0, "rank_score": None, "failure": "the document is empty"},
        ...     {"index": 1, "rank_score": 0.0, "expected_score": 0.4},
        ...     {"index": 2, "rank_score": 0.0, "expected_score": 0.9},
        ...     {"index": 3, "rank_score": 6.3, "expected_score": None},
        ... ]
        >>> [(result["rank"], result["index"]) for result in sort_results(results)]
        [(1, 3), (2, 2), (3, 1), (4, 0)]
    """
    order = sorted(results, key=lambda r: (_place(r), r["index"]))
    placed: list[dict[str, Any]] = []
    for _, group in groupby(order, key=_place):
        tied = list(group)
        for name, sign in (("expected_score", -1), ("reading_rank", 1), ("first_stage_score", -1)):
            if len(tied) > 1 and all(isinstance(r.get(name), numbers.Real) for r in tied):
                tied.sort(key=lambda r, name=name, sign=sign: sign * r[name])  # type: ignore[misc]
                break
        placed += [dict(r) for r in tied]
    return [{**result, "rank": rank} for rank, result in enumerate(placed, 1)]


def _place(result: Mapping[str, Any]) -> tuple[int, float]:
    """Return by what a result is sorted: its score or estimate, then unread ones, then failures."""
    value = placed_by(result)
    if value is not None:
        return 0, -value
    return (1, 0.0) if result.get("level", "full") is None else (2, 0.0)


def _pair(pair: Any) -> Sequence[Any]:
    found: Sequence[Any] = ()
    if isinstance(pair, Sequence) and not isinstance(pair, str | bytes):
        found = pair
    if len(found) not in (2, 3):
        raise InputError(
            "it is not a pair",
            "give (query, documents), or (query, documents, instruction), for each query",
        )
    return found
