"""The documents of one run: what is asked of an engine for each, and what comes of it."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from erank_lite.documents import Doc
from erank_lite.effort.budget import Budget, BudgetSource
from erank_lite.effort.order import estimate
from erank_lite.families.base import DocumentPrompts, Pointwise, ScoringGuide
from erank_lite.results.store import KeptScore, ResultStore
from erank_lite.types import Completion, Prompt, Request, Score


@dataclass(frozen=True)
class Job:
    """A query with its documents, as they are to be read."""

    query: str
    prompts: Any  # DocumentPrompts; QueryRounds of a family that asks in rounds
    docs: Sequence[Doc]
    instruction: str | None
    truncate_length: int | None


@dataclass(frozen=True)
class Asks:
    """How documents are asked about.

    Attributes:
        asker: asks the model as its family does.
        room: tokens that a prompt may have.
        engine: what computes, for the results.
        results: where results are kept, if they are.
        facts: what decides a result beside the prompt; None where that is not known.
    """

    asker: Pointwise
    room: int
    engine: str
    results: ResultStore | None
    facts: dict[str, Any] | None


class Batch:
    """The documents of one run: what was asked for each, and what came of it.

    Attributes:
        source: what the engine is given.
        mistake: what was wrong with a job; it is raised once those before it are finished.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        asks: Asks,
        reading_order: Callable[[Job, Budget | None], list[int]],
        depth: int | None,
        budget: Budget | None,
    ) -> None:
        """Take what is to be read; nothing is asked for yet, but for the order of reading.

        Args:
            jobs: queries with their documents; one where there is a budget.
            asks: how documents are asked about.
            reading_order: returns the places of a job's documents as they are read; it is asked
                where not all of them may be.
            depth: how many of each job are read; all by default.
            budget: of the one query.
        """
        self._asker, self._room, self._engine = asks.asker, asks.room, asks.engine
        self._results, self._facts = asks.results, asks.facts
        self._reading_order, self._depth, self._budget = reading_order, depth, budget
        self._count = 0
        self._documents: dict[int, tuple[int, int, Doc, bool, int]] = {}
        self._first_of: dict[bytes, int] = {}  # equal prompts of one query are computed once
        self._twins: dict[int, list[int]] = {}
        self._scores: dict[int, tuple[Score, int]] = {}
        self._ready: deque[tuple[int, tuple[Score, int]]] = deque()
        self._reading_rank: dict[tuple[int, int], int] = {}
        self._keep_as: dict[int, bytes] = {}
        # Of the one query that a budget is for: the documents in reading order, and what came back.
        self._job: Job | None = None
        self._order: dict[int, Doc] = {}
        self._read: dict[int, dict[str, Any]] = {}
        self._guide_of: dict[int, ScoringGuide] = {}
        self.mistake: Exception | None = None
        if budget is not None:
            (job,) = jobs = tuple(jobs)
            self._job = job
            self._order = {index: job.docs[index] for index in self._begin(0, job)}
        requests = self._requests(jobs)
        self.source: Iterator[Request[ScoringGuide]] | BudgetSource = requests
        if budget is not None:
            self.source = BudgetSource(requests, budget, self._writes)

    def _requests(self, jobs: Iterable[Job]) -> Iterator[Request[ScoringGuide]]:
        """Yield a request for each document that is to be computed."""
        # What is under way is finished before what went wrong in what follows is reported.
        try:
            for number, job in enumerate(jobs):
                self._first_of.clear()
                self._scores.clear()
                order = self._order if self._budget is not None else self._begin(number, job)
                for place, index in enumerate(order):
                    if self._depth is None or place < self._depth:
                        yield from self._request(number, index, job.docs[index], job.prompts)
                    elif self._budget is None:
                        self._count += 1
                        self._documents[self._count] = (number, index, job.docs[index], False, 0)
                        self._ready.append((self._count, (UNREAD, 0)))
        except Exception as error:
            self.mistake = error

    def _begin(self, number: int, job: Job) -> Iterable[int]:
        """Return the places of a job's documents in the order in which they are read."""
        if self._depth is None and self._budget is None:
            return range(len(job.docs))
        order = self._reading_order(job, self._budget)
        self._reading_rank |= {(number, index): rank for rank, index in enumerate(order, 1)}
        return order

    def _request(
        self, number: int, index: int, doc: Doc, prompts: DocumentPrompts
    ) -> Iterator[Request[ScoringGuide]]:
        self._count += 1
        key = self._count
        text = doc if isinstance(doc, str) else str(doc["content"])
        if not text.strip():
            self._documents[key] = (number, index, doc, False, 0)
            self._ready.append((key, (failed("the document is empty"), 0)))
            return
        prompt = prompts.document(text, self._room)
        self._documents[key] = (number, index, doc, prompt.truncated, len(prompt.ids))
        digest = hashlib.blake2b(array("I", prompt.ids).tobytes()).digest()
        first = self._first_of.setdefault(digest, key)
        kept = self._kept(key, prompt) if first == key else None
        if kept is not None:
            self._scores[key] = kept
            self._ready.append((key, kept))
        elif first == key:
            max_tokens = self._asker.max_tokens(prompt.think_prefix)
            yield Request(key, prompt, lambda: self._guide(key, prompt), max_tokens)
        elif first in self._scores:
            self._ready.append((key, self._scores[first]))
        else:
            self._twins.setdefault(first, []).append(key)

    def _kept(self, key: int, prompt: Prompt) -> tuple[Score, int] | None:
        """Return the result that is kept of a document; note under what one is to be."""
        if self._results is None or self._facts is None:
            return None
        found = self._results.key(self._facts, prompt.ids)
        kept = self._results.get(found)
        if kept is not None:
            return kept.score, kept.tokens
        self._keep_as[key] = found
        return None

    def _guide(self, key: int, prompt: Prompt) -> ScoringGuide:
        if self._budget is None:
            return self._asker.guide(prompt)
        budget = self._budget
        guide = self._guide_of[key] = self._asker.guide(prompt, budget.wrote, budget.spent())
        return guide

    def _writes(self, key: int) -> bool:
        return key in self._guide_of and self._guide_of[key].writes

    def finish(self, completion: Completion[ScoringGuide]) -> None:
        """Take what the engine completed, for the document and for those of the same prompt."""
        if isinstance(self.source, BudgetSource):
            self.source.came_back(completion.key)
            self._guide_of.pop(completion.key, None)
        score = completion.guide.score()
        if score.stopped == 0 and score.score is None:
            return  # the budget was spent before it was begun
        if completion.failure is not None:
            score = failed(completion.failure, score)
        keep_as = self._keep_as.pop(completion.key, None)
        if keep_as is not None and score.failure is None and score.stopped is None:
            assert self._results is not None
            kept = KeptScore(score, completion.tokens, self._engine)
            self._results.put(keep_as, kept)
        done = self._scores[completion.key] = score, completion.tokens
        keys = (completion.key, *self._twins.pop(completion.key, ()))
        self._ready.extend((key, done) for key in keys)

    def results(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) of what is finished since the last call."""
        while self._ready:
            key, (score, tokens) = self._ready.popleft()
            number, index, doc, truncated, read = self._documents.pop(key)
            result = self._result(number, index, doc, score, truncated, (read, tokens))
            if self._budget is not None:
                self._read[index] = result
            yield number, result

    def rest(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield what is finished since the last call, and then what was not read."""
        self._look_up_rest()
        yield from self.results()
        expected = estimate([self._read[i] for i in self._order if i in self._read])
        for place, (index, doc) in enumerate(self._order.items()):
            if index not in self._read:
                result = self._result(0, index, doc, UNREAD, False, (0, 0))
                beyond = self._depth is not None and place >= self._depth  # these follow the others
                yield 0, result | {"estimate": None if beyond else expected}

    def _look_up_rest(self) -> None:
        """Take what is kept of documents that the budget left unread: it costs nothing."""
        if self._job is None or self._facts is None:
            return
        for index in list(self._order)[: self._depth]:
            if index in self._read or any(d[1] == index for d in self._documents.values()):
                continue
            for request in self._request(0, index, self._order[index], self._job.prompts):
                self._documents.pop(request.key)

    def _result(
        self, number: int, index: int, doc: Doc, score: Score, truncated: bool,
        tokens: tuple[int, int],
    ) -> dict[str, Any]:  # fmt: skip
        result = result_of(doc, index, score, truncated)
        rank = self._reading_rank.pop((number, index), None)
        if rank is not None:
            result["reading_rank"] = rank
        read, written = tokens
        return result | {"tokens": written, "prompt_tokens": read, "engine": self._engine}


def failed(reason: str, score: Score | None = None) -> Score:
    """Return the score of a document that has none, with what was written of it."""
    completion, reasoning = (score.completion, score.reasoning) if score else ("", "")
    return Score(None, None, None, reasoning, False, reason, completion)


UNREAD = Score(None, None, None, "", False, None, "")
"""The score of a document that was not read."""


def result_of(doc: Doc, index: int, score: Score, truncated: bool) -> dict[str, Any]:
    """Return a document's own keys and those of its score; see `erank_lite.reranker.Result`."""
    level: str | int | None = "full" if score.stopped is None else score.stopped
    own = {"content": doc} if isinstance(doc, str) else dict(doc)
    return own | {
        "index": index,
        "score": score.score,
        "probability": score.probability,
        "rank_score": score.rank_score if score.stopped is None else None,
        "expected_score": score.expected_score,
        "reasoning": score.reasoning,
        "forced": score.forced,
        "truncated": truncated,
        "failure": score.failure,
        "completion": score.completion,
        "level": None if score is UNREAD else level,
        "estimate": None if score.stopped is None else score.rank_score,
    }
