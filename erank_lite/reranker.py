"""Documents in, ranked documents out."""

from __future__ import annotations

import hashlib
import numbers
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from erank_lite.engines.base import Engine
from erank_lite.errors import InputError
from erank_lite.families.erank.prompt import PromptBuilder, QueryPromptBuilder
from erank_lite.families.erank.score import MAX_NEW_TOKENS, ScoreGuide, parse_thinking
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.load import load
from erank_lite.types import Prompt, Request, Score

Doc = Mapping[str, Any] | str


class Reranker:
    """Ranks documents for queries with one model.

    Use it as a context manager, or call `close`. It is not to be used from two threads at once.
    """

    def __init__(
        self,
        model: str | Path | Engine,
        *,
        engine: str = "auto",
        thinking: str | int = "full",
        **options: Any,
    ) -> None:
        """Load `model`.

        Args:
            model: a GGUF file, the folder of a checkpoint (BF16 or GPTQ), a name on the Hugging
                Face hub (what is missing is downloaded and converted, once; see
                `erank_lite.models.prepare.model_file`), the address of a server (http://…), or an engine
                that is already there (it is then the caller's to close).
            engine: "llama.cpp", "gptq", "transformers", "remote", or "auto", which takes what suits
                the model and this machine (`erank_lite.engines.choosing`).
            thinking: "full" (reasoning as long as the model likes, up to the published limit), a
                budget in tokens, after which the answer is asked for, or "none".
            options: the engine's own, such as `strict`, `sequences`, `gpu_layers`, `threads`; see
                the engines' docstrings, such as `erank_lite.engines.llama_cpp.engine.LlamaCppEngine`.

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
            self.engine = load(model, engine, options)
        try:
            self._prompts = PromptBuilder(self.engine.tokenizer, self.engine.chat_template)
            self._vocabulary = ScoreVocabulary(self.engine.tokenizer, self.engine.end_ids)
            limit = self.engine.max_new_tokens or MAX_NEW_TOKENS
            # A short context keeps at least half of its room for the prompt.
            self._max_new_tokens = min(limit, self.engine.context_length // 2)
            self._room = self.engine.context_length - self._reader(Prompt((), 0)).max_tokens
            if self._room < 1:
                raise InputError(
                    f"a thinking budget of {self.thinking} leaves no room for a prompt: the "
                    f"context has {self.engine.context_length} tokens"
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
                not changed, and their other keys pass through.
            instruction: what relevance means: free text, or a name such as "beir" or
                "bright/aops" (`erank_lite.families.erank.prompt.INSTRUCTIONS`); None means "beir".
            truncate_length: cut the query and each document to this many tokens; None cuts a
                document only where the model's context demands it.

        Returns:
            As many dicts as documents, best first: the document's own keys (its text under
            `content`) and `rank` (from 1), `index` (place in `docs`, from 0), `score` (0–10),
            `probability`, `rank_score` (score × probability), `expected_score` (or None where it
            was not computed), `reasoning`, `forced` (the answer was asked for from outside),
            `truncated`, `failure` (None, or why `rank_score` is None), `completion` (all that the
            model wrote), `tokens` (how many it wrote) and `engine` (what computed it). Failed
            documents come last.

        Raises:
            InputError: the query, a document or an option cannot be used.
            ModelError: the engine cannot go on.
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

        `ranked` puts them in order. Closing the iterator gives up the rest, and so does any other
        call that reranks: one at a time.
        """
        prompts = self._prompts.query(query, instruction, truncate_length)
        yield from (result for _, result in self._run([(prompts, _checked(docs))]))

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
            InputError: a query or its documents cannot be used; the queries before it are
                finished and yielded first.
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
        for number, (query, docs) in enumerate(queries):
            try:
                job = self._prompts.query(query, instruction, truncate_length), _checked(docs)
            except InputError as error:
                raise InputError(f"query {number}: {error}") from None
            counts.append(len(job[1]))
            yield job

    def close(self) -> None:
        """Free the model, unless its engine was the caller's."""
        if self._owned:
            self.engine.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _reader(self, prompt: Prompt) -> ScoreGuide:
        return ScoreGuide(self._vocabulary, prompt, self.thinking, self._max_new_tokens)

    def _run(
        self, jobs: Iterable[tuple[QueryPromptBuilder, Sequence[Doc]]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) for every document of every job, as they finish."""
        documents: dict[int, tuple[int, int, Doc, bool]] = {}
        same: dict[bytes, int] = {}
        twins: dict[int, list[int]] = {}
        scores: dict[int, tuple[Score, int]] = {}
        ready: list[tuple[int, tuple[Score, int]]] = []

        problem: list[InputError] = []

        def requests() -> Iterator[Request]:
            # What is under way is finished before a mistake in what follows is reported.
            try:
                yield from prompted()
            except InputError as error:
                problem.append(error)

        def prompted() -> Iterator[Request]:
            key = 0
            for number, (prompts, docs) in enumerate(jobs):
                same.clear()
                scores.clear()
                for index, doc in enumerate(docs):
                    key += 1
                    text = _content(doc, index)
                    if not text.strip():
                        documents[key] = (number, index, doc, False)
                        ready.append((key, (_failed("the document is empty"), 0)))
                        continue
                    prompt = prompts.document(text, self._room)
                    documents[key] = (number, index, doc, prompt.truncated)
                    # Equal prompts are computed once.
                    digest = hashlib.blake2b(array("I", prompt.ids).tobytes()).digest()
                    first = same.setdefault(digest, key)
                    if first == key:
                        yield Request(key, prompt, lambda p=prompt: self._reader(p))  # type: ignore[misc]
                    elif first in scores:
                        ready.append((key, scores[first]))
                    else:
                        twins.setdefault(first, []).append(key)

        def finished() -> Iterator[tuple[int, dict[str, Any]]]:
            while ready:
                key, (score, tokens) = ready.pop(0)
                number, index, doc, truncated = documents.pop(key)
                result = _result(doc, index, score, truncated)
                yield number, result | {"tokens": tokens, "engine": self.engine.description}

        completions = self.engine.run(requests())
        try:
            for completion in completions:
                assert isinstance(completion.guide, ScoreGuide)
                score = completion.guide.score()
                if completion.failure is not None:
                    score = _failed(completion.failure, score)
                done = scores[completion.key] = score, completion.tokens
                ready += [(key, done) for key in (completion.key, *twins.pop(completion.key, ()))]
                yield from finished()
            yield from finished()
            if problem:
                raise problem[0]
        finally:
            close = getattr(completions, "close", None)
            if close is not None:
                close()


def sort_results(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `results` best first, with `rank` from 1.

    Equal rank scores (all the zeros, mostly) are ordered by the expected score if every tied
    document has it, else by the first-stage score if every one has that, else as they came in.
    Documents without a rank score come last.
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


def _checked(docs: Iterable[Doc]) -> list[Doc]:
    if isinstance(docs, str | bytes | Mapping) or not isinstance(docs, Iterable):
        raise InputError(f"docs must be a list of documents, not {type(docs).__name__}")
    docs = list(docs)
    for index, doc in enumerate(docs):
        _content(doc, index)
    return docs


def _content(doc: Doc, index: int) -> str:
    text = doc if isinstance(doc, str) else doc.get("content") if isinstance(doc, Mapping) else None
    if not isinstance(text, str):
        raise InputError(
            f"document {index} is neither a string nor a dict with a string under 'content'"
        )
    return text


def _failed(reason: str, score: Score | None = None) -> Score:
    text, reasoning = (score.text, score.reasoning) if score else ("", "")
    return Score(None, None, None, reasoning, False, reason, text)


def _result(doc: Doc, index: int, score: Score, truncated: bool) -> dict[str, Any]:
    own = {"content": doc} if isinstance(doc, str) else dict(doc)
    return own | {
        "index": index,
        "score": score.score,
        "probability": score.probability,
        "rank_score": score.rank_score,
        "expected_score": score.expected,
        "reasoning": score.reasoning,
        "forced": score.forced,
        "truncated": truncated,
        "failure": score.failure,
        "completion": score.text,
    }
