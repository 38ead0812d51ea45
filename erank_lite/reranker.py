"""Documents in, ranked documents out."""

from __future__ import annotations

import hashlib
import numbers
from array import array
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypedDict

from erank_lite.documents import Doc, as_documents
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError
from erank_lite.families.erank.prompt import PromptBuilder, QueryPromptBuilder
from erank_lite.families.erank.score import ScoreGuide, ScoreGuides, parse_thinking
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.load import load
from erank_lite.machine.pace import Forecast, Work
from erank_lite.types import Completion, Request, Score
from erank_lite.util.reporter import SILENT, Reporter


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
        level: how far the document was read: "full". Reserved for documents that are not read to
            the end.
        estimate: the rank score that is expected of a document not read to the end, else None.
        tokens: how many the model wrote.
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
    engine: str


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
        ...         print(result["rank"], result["score"], result["content"])
        1 10 The sky looks blue because air scatters blue light more than red.
        2 1 Mars has two small moons.
    """

    def __init__(
        self,
        model: str | Path | Engine,
        *,
        engine: str = "auto",
        thinking: str | int = "full",
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
            thinking: "full" (reasoning as long as the model likes, up to the published limit), a
                budget in tokens, after which the answer is asked for, or "none".
            reporter: told the bytes that are downloaded and converted.
            options: the engine's own, such as `strict`, `sequences`, `gpu_layers`, `threads`; see
                `erank_lite.engines.llama_cpp.options` and its siblings.

        Raises:
            ModelError: the model cannot be used.
            InputError: an option cannot.
        """
        self.thinking = parse_thinking(thinking)
        if not isinstance(model, Engine | str | Path):
            raise InputError(f"model must be a path or an engine, not {type(model).__name__}")
        self._owned = not isinstance(model, Engine)
        if isinstance(model, Engine):
            if options:
                raise InputError(f"{', '.join(options)}: options belong to the engine given")
            self.engine = model
        else:
            self.engine = load(model, engine, options, reporter)
        try:
            loaded = self.engine
            self._prompts = PromptBuilder(loaded.tokenizer, loaded.chat_template)
            self._guides = ScoreGuides(
                ScoreVocabulary(loaded.tokenizer, loaded.end_ids),
                self.thinking,
                loaded.max_new_tokens,
                loaded.context_length,
            )
            self._room = loaded.context_length - self._guides.max_tokens()
            if self._room < 1:
                raise InputError(
                    f"a thinking budget of {self.thinking} leaves no room for a prompt: the "
                    f"context has {loaded.context_length} tokens"
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

        Returns:
            As many dicts as documents, best first: the document's own keys (its text under
            `content`) and those of `Result`. Failed documents come last.

        Raises:
            InputError: the query, a document or an option cannot be used.
            ModelError: the engine cannot go on.

        Example:
            >>> docs = [
            ...     {"id": "lions", "content": "The lion is the only cat that lives in groups."},
            ...     {"id": "tyres", "content": "A bicycle tyre that loses air has a hole."},
            ... ]
            >>> with Reranker("erank-tiny", threads=1) as reranker:
            ...     best, other = reranker.rerank("bicycle tyre loses air", docs)
            >>> best["id"], best["rank"], best["index"], best["forced"], best["failure"]
            ('tyres', 1, 1, False, None)
            >>> best["rank_score"] == best["score"] * best["probability"]
            True
            >>> best["completion"]
            '<think>All terms found.</think><answer>10</answer>'
        """
        return sort_results(list(self.iter_rerank(query, docs, instruction, truncate_length)))

    def iter_rerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the documents of `rerank` as they finish, in any order, without `rank`.

        `sort_results` puts them in order. Closing the iterator gives up the rest.

        Example:
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     finished = list(reranker.iter_rerank("which cat lives in groups", docs))
            >>> sorted(result["index"] for result in finished), "rank" in finished[0]
            ([0, 1], False)
            >>> sort_results(finished)[0]["content"]
            'The lion is the only cat that lives in groups.'
        """
        prompts = self._prompts.query(query, instruction, truncate_length)
        yield from (result for _, result in self._run([(prompts, as_documents(docs))]))

    async def arerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
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
        finished = self.aiter_rerank(query, docs, instruction, truncate_length)
        return sort_results([result async for result in finished])

    async def aiter_rerank(
        self,
        query: str,
        docs: Sequence[Doc],
        instruction: str | None = None,
        truncate_length: int | None = None,
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
        jobs = [(self._prompts.query(query, instruction, truncate_length), as_documents(docs))]
        batch = _Batch(self._guides, self._room, self.engine.description)
        async with aclosing(self.engine.arun(batch.requests(jobs))) as completions:
            async for completion in completions:
                batch.finish(completion)
                for _, result in batch.results():
                    yield result
            for _, result in batch.results():
                yield result

    def rerank_many(
        self,
        queries: Iterable[tuple[str, Sequence[Doc]]],
        instruction: str | None = None,
        truncate_length: int | None = None,
    ) -> Iterator[list[dict[str, Any]]]:
        """Rank the documents of many queries, without draining the engine between them.

        Args:
            queries: (query, documents) pairs; read as the engine has room for more.
            instruction: as for `rerank`, the same for all.
            truncate_length: as for `rerank`.

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
        for number, result in self._run(self._jobs(queries, instruction, truncate_length, counts)):
            waiting.setdefault(number, []).append(result)
            while place < len(counts) and len(waiting.get(place, ())) == counts[place]:
                yield sort_results(waiting.pop(place, []))
                place += 1
        while place < len(counts):  # queries without documents, at the end
            yield sort_results(waiting.pop(place, []))
            place += 1

    def iter_rerank_many(
        self,
        queries: Iterable[tuple[str, Sequence[Doc]]],
        instruction: str | None = None,
        truncate_length: int | None = None,
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
        yield from self._run(self._jobs(queries, instruction, truncate_length, []))

    def _jobs(
        self,
        queries: Iterable[tuple[str, Sequence[Doc]]],
        instruction: str | None,
        truncate_length: int | None,
        counts: list[int],
    ) -> Iterator[tuple[QueryPromptBuilder, Sequence[Doc]]]:
        """Yield the queries' prompts and documents, and note in `counts` how many these are."""
        if not isinstance(queries, Iterable):
            raise InputError(
                f"queries must be (query, documents) pairs, not {type(queries).__name__}"
            )
        for number, pair in enumerate(queries):
            try:
                query, docs = _pair(pair)
                job = (
                    self._prompts.query(query, instruction, truncate_length),
                    as_documents(docs),
                )
            except InputError as error:
                raise InputError(f"query {number}: {error.message}", error.hint) from None
            counts.append(len(job[1]))
            yield job

    def forecast(
        self,
        queries: Sequence[tuple[str, Sequence[Doc]]],
        instruction: str | None = None,
        truncate_length: int | None = None,
        thinking: str | int | None = None,
    ) -> Forecast | None:
        """Return how long `rerank_many` is expected to take, before anything is computed.

        Some documents are looked at, not all. What the model has taken so far on this machine is
        kept in the cache; until it has run here, it is assumed.

        Args:
            queries: as for `rerank_many`.
            instruction: as for `rerank`.
            truncate_length: as for `rerank`.
            thinking: the mode to tell the time for; None means this reranker's own.

        Returns:
            The forecast; None where a server computes.

        Raises:
            InputError: a query, a document or the mode cannot be used.

        Example:
            >>> docs = ["The lion is the only cat that lives in groups.", "Dogs bark at strangers."]
            >>> with Reranker("erank-tiny") as reranker:
            ...     forecast = reranker.forecast([("which cat lives in groups", docs)])
            >>> 0 < forecast.seconds < 60
            True
        """
        pace, guides = self.engine.pace, self._guides
        if pace is None:
            return None
        if thinking is not None:
            guides = guides.with_thinking(parse_thinking(thinking))
        pairs = [(query, doc) for query, docs in queries for doc in as_documents(docs)]
        some = pairs[:: -(-len(pairs) // _LOOKED_AT) or 1]
        prompts = [
            self._prompts.query(query, instruction, truncate_length).document(text, self._room)
            for query, doc in some
            if (text := doc if isinstance(doc, str) else str(doc["content"])).strip()
        ]
        shared = [prompt.shared for prompt in prompts] or [0]
        own = [len(prompt.ids) - prompt.shared for prompt in prompts] or [0]
        work = Work(
            len(pairs),
            prompt=sum(own) / len(own),
            answer=pace.answers.mean(guides.max_tokens()),
            shared=sum(shared) / len(shared),
        )
        return pace.forecast(work, self.engine.plan.sequences or 1)

    def close(self) -> None:
        """Free the model, unless its engine was the caller's."""
        if self._owned:
            self.engine.close()

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

    def _run(
        self, jobs: Iterable[tuple[QueryPromptBuilder, Sequence[Doc]]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) for every document of every job, as they finish."""
        batch = _Batch(self._guides, self._room, self.engine.description)
        with closing(self.engine.run(batch.requests(jobs))) as completions:
            for completion in completions:
                batch.finish(completion)
                yield from batch.results()
            yield from batch.results()
            if batch.mistake is not None:
                raise batch.mistake


class _Batch:
    """The documents of one run: what was asked for each, and what came of it."""

    def __init__(self, guides: ScoreGuides, room: int, engine: str) -> None:
        self._guides, self._room, self._engine = guides, room, engine
        self._count = 0
        self._documents: dict[int, tuple[int, int, Doc, bool]] = {}
        self._first_of: dict[bytes, int] = {}  # equal prompts of one query are computed once
        self._twins: dict[int, list[int]] = {}
        self._scores: dict[int, tuple[Score, int]] = {}
        self._ready: deque[tuple[int, tuple[Score, int]]] = deque()
        self.mistake: Exception | None = None

    def requests(
        self, jobs: Iterable[tuple[QueryPromptBuilder, Sequence[Doc]]]
    ) -> Iterator[Request[ScoreGuide]]:
        """Yield a request for each document that is to be computed."""
        # What is under way is finished before what went wrong in what follows is reported.
        try:
            for number, (prompts, docs) in enumerate(jobs):
                self._first_of.clear()
                self._scores.clear()
                for index, doc in enumerate(docs):
                    yield from self._request(number, index, doc, prompts)
        except Exception as error:
            self.mistake = error

    def _request(
        self, number: int, index: int, doc: Doc, prompts: QueryPromptBuilder
    ) -> Iterator[Request[ScoreGuide]]:
        self._count += 1
        key = self._count
        text = doc if isinstance(doc, str) else str(doc["content"])
        if not text.strip():
            self._documents[key] = (number, index, doc, False)
            self._ready.append((key, (_failed("the document is empty"), 0)))
            return
        prompt = prompts.document(text, self._room)
        self._documents[key] = (number, index, doc, prompt.truncated)
        digest = hashlib.blake2b(array("I", prompt.ids).tobytes()).digest()
        first = self._first_of.setdefault(digest, key)
        if first == key:
            max_tokens = self._guides.max_tokens(prompt.think_prefix)
            yield Request(key, prompt, lambda: self._guides.guide(prompt), max_tokens)
        elif first in self._scores:
            self._ready.append((key, self._scores[first]))
        else:
            self._twins.setdefault(first, []).append(key)

    def finish(self, completion: Completion[ScoreGuide]) -> None:
        """Take what the engine completed, for the document and for those of the same prompt."""
        score = completion.guide.score()
        if completion.failure is not None:
            score = _failed(completion.failure, score)
        done = self._scores[completion.key] = score, completion.tokens
        keys = (completion.key, *self._twins.pop(completion.key, ()))
        self._ready.extend((key, done) for key in keys)

    def results(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) of what is finished since the last call."""
        while self._ready:
            key, (score, tokens) = self._ready.popleft()
            number, index, doc, truncated = self._documents.pop(key)
            result = _result(doc, index, score, truncated)
            yield number, result | {"tokens": tokens, "engine": self._engine}


def sort_results(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `results` best first, with `rank` from 1.

    Equal rank scores (all the zeros, mostly) are ordered by the expected score if every tied
    document has it, else by the first-stage score if every one has that, else as they came in.
    Documents without a rank score come last.

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
    order = sorted(
        results, key=lambda r: (r["rank_score"] is None, -(r["rank_score"] or 0.0), r["index"])
    )
    placed: list[dict[str, Any]] = []
    for _, group in groupby(order, key=lambda r: r["rank_score"]):
        tied = list(group)
        for name in ("expected_score", "first_stage_score"):
            if len(tied) > 1 and all(isinstance(r.get(name), numbers.Real) for r in tied):
                tied.sort(key=lambda r, name=name: -r[name])  # type: ignore[misc]
                break
        placed += [dict(r) for r in tied]
    return [{**result, "rank": rank} for rank, result in enumerate(placed, 1)]


def _pair(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, str | bytes | Mapping) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError("it is not a pair", "give (query, documents) for each query")
    return pair[0], pair[1]


def _failed(reason: str, score: Score | None = None) -> Score:
    completion, reasoning = (score.completion, score.reasoning) if score else ("", "")
    return Score(None, None, None, reasoning, False, reason, completion)


def _result(doc: Doc, index: int, score: Score, truncated: bool) -> dict[str, Any]:
    own = {"content": doc} if isinstance(doc, str) else dict(doc)
    return own | {
        "index": index,
        "score": score.score,
        "probability": score.probability,
        "rank_score": score.rank_score,
        "expected_score": score.expected_score,
        "reasoning": score.reasoning,
        "forced": score.forced,
        "truncated": truncated,
        "failure": score.failure,
        "completion": score.completion,
        "level": "full",
        "estimate": None,
    }
