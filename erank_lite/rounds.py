"""The documents of one run, for families that ask in rounds; many queries fill the batch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from erank_lite.batch import UNREAD, Job, failed, result_of
from erank_lite.effort.budget import Budget
from erank_lite.families.base import Ask, InRounds, Rounds, Verdict
from erank_lite.types import Completion, Guide, Request, Score
from erank_lite.util.units import counted

_log = logging.getLogger(__name__)


@dataclass
class _Query:
    """A query under way.

    Attributes:
        number: of its job.
        job: the query and its documents.
        order: places of the documents, as the first stage has them.
        read: places of those that are asked about.
        rounds: what is asked next.
        asks: of the round under way.
        done: what came back of it.
        tokens: that were written and read.
    """

    number: int
    job: Job
    order: list[int]
    read: list[int]
    rounds: Rounds
    asks: Sequence[Ask] = ()
    done: dict[int, Completion[Guide]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=lambda: [0, 0])


class RoundsBatch:
    """The documents of one run; see `erank_lite.batch.Batch`, in whose place it stands.

    It is its own source (`erank_lite.types.Source`): queries are begun while the engine has room,
    and the completions of one lead to what is asked next for it.

    Attributes:
        mistake: what was wrong with a job; it is raised once those before it are finished.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        asker: InRounds,
        room: int,
        engine: str,
        together: int,
        reading_order: Callable[[Job, Budget | None], list[int]],
        depth: int | None,
    ) -> None:
        """Take what is to be read; nothing is asked for yet.

        Args:
            jobs: queries with their documents.
            asker: asks the model as its family does.
            room: tokens that a prompt may have.
            engine: what computes, for the results.
            together: queries that are under way at once.
            reading_order: returns the places of a job's documents, best first.
            depth: how many of each job are asked about; all by default.
        """
        self._jobs = enumerate(jobs)
        self._asker, self._room, self._engine = asker, room, engine
        self._together, self._reading_order, self._depth = together, reading_order, depth
        self._under_way: dict[int, tuple[_Query, int]] = {}
        self._open = 0
        self._waiting: deque[Request[Guide]] = deque()
        self._ready: deque[tuple[int, dict[str, Any]]] = deque()
        self._count = 0
        self._no_more = False
        self.mistake: Exception | None = None
        self.source = self

    def take(self) -> Request[Guide] | None:
        """Return the next request; None where all queries under way wait for the model."""
        while not self._waiting and not self._no_more and self._open < self._together:
            self._begin()
        return self._waiting.popleft() if self._waiting else None

    @property
    def ended(self) -> bool:
        """Whether no request will come any more."""
        return self._no_more and not self._open and not self._waiting

    def _begin(self) -> None:
        """Begin the next query."""
        # What is under way is finished before what went wrong in what follows is reported.
        try:
            found = next(self._jobs, None)
            if found is None:
                self._no_more = True
                return
            number, job = found
            order = self._reading_order(job, None)
            texts = {i: d if isinstance(d, str) else str(d["content"])
                     for i, d in enumerate(job.docs)}  # fmt: skip
            read = [i for i in order[: self._depth] if texts[i].strip()]
            for place, i in enumerate(order):
                if i not in set(read):
                    beyond = self._depth is not None and place >= self._depth
                    score = UNREAD if beyond else failed("the document is empty")
                    self._give(number, job, order, i, score)
            if not read:
                return
            rounds = job.prompts.rounds([texts[i] for i in read], self._room)
            query = _Query(number, job, order, read, rounds)
            self._open += 1
            self._advance(query, None)
        except Exception as error:
            self.mistake, self._no_more = error, True

    def _advance(self, query: _Query, done: Sequence[Completion[Guide]] | None) -> None:
        """Give a query what came back, and ask what it wants next."""
        try:
            query.asks = query.rounds.send(done)  # type: ignore[arg-type]
        except StopIteration as end:
            self._finish(query, end.value)
            return
        except Exception:
            self._open -= 1
            raise
        query.done = {}
        for place, ask in enumerate(query.asks):
            self._count += 1
            self._under_way[self._count] = query, place
            request = Request(
                self._count, ask.prompt, ask.guide, ask.max_tokens, sampling=ask.sampling
            )
            self._waiting.append(request)

    def finish(self, completion: Completion[Any]) -> None:
        """Take what the engine completed."""
        query, place = self._under_way.pop(completion.key)
        query.done[place] = completion
        query.tokens[0] += completion.tokens
        query.tokens[1] += len(query.asks[place].prompt.ids)
        if len(query.done) == len(query.asks):
            try:
                self._advance(query, [query.done[i] for i in range(len(query.asks))])
            except Exception as error:
                self.mistake, self._no_more = error, True

    def _finish(self, query: _Query, verdict: Verdict) -> None:
        self._open -= 1
        if verdict.unread:
            _log.warning(
                "%s could not be read (of query %d): their documents keep the places they had",
                counted(verdict.unread, "answer"), query.number,
            )  # fmt: skip
        # What a query took is told of its documents in equal parts: they were read together.
        count = len(query.read)
        parts = [[(total + i) // count for total in query.tokens] for i in range(count)]
        for part, index, score, cut in zip(
            parts, query.read, verdict.scores, verdict.truncated, strict=True
        ):
            self._give(query.number, query.job, query.order, index, score, cut, part)

    def _give(
        self,
        number: int,
        job: Job,
        order: Sequence[int],
        index: int,
        score: Score,
        truncated: bool = False,
        tokens: Sequence[int] = (0, 0),
    ) -> None:
        result = result_of(job.docs[index], index, score, truncated)
        if self._depth is not None:
            result["reading_rank"] = order.index(index) + 1
        written, read = tokens
        result |= {"tokens": written, "prompt_tokens": read, "engine": self._engine}
        self._ready.append((number, result))

    def results(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number of the job, result) of what is finished since the last call."""
        while self._ready:
            yield self._ready.popleft()

    def rest(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield what is finished since the last call."""
        return self.results()
