"""Many callers of one Reranker against one call with all the documents: results and speed.

    python -m erank_lite.benchmarks.speed.callers erank-tiny --threads 8 --calls 200

Each thread makes its calls one after the other, of 1 to 30 documents each; then as many tasks of
asyncio do the same; then a third of their calls is cancelled. Every result is held against the one
that the document gets alone. It is an error where one is lost, or differs by more than the noise of
decoding documents together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from erank_lite.errors import ErankLiteError
from erank_lite.reranker import Reranker

QUERY = "how to keep bread fresh"
_SUBJECTS = (
    "A loaf",
    "Rye bread",
    "The bakery",
    "A toaster",
    "Cake",
    "Flour",
    "A baguette",
    "Soup",
)
_VERBS = ("stays fresh in", "is sold beside", "was left in", "fits into", "is never seen in")
_PLACES = ("a bread box", "the freezer", "a paper bag", "the cellar", "a shop window")
DOCUMENTS = [f"{s} {v} {p}." for s in _SUBJECTS for v in _VERBS for p in _PLACES]
_LARGEST = 30  # documents of a call
_NOISE = 0.25  # of a rank score of 0 to 10, where two answers have almost the same probability more
Calls = list[list[list[str]]]  # threads, calls of each, documents of each


def measure(model: str, threads: int, calls: int, strict: bool) -> dict[str, Any]:
    """Return documents a second of each kind of caller, and how far their results are from alone.

    Args:
        model: as `Reranker` takes it.
        threads: how many callers there are.
        calls: that each of them makes.
        strict: decode one document at a time; results are then equal to the last bit.

    Raises:
        ModelError: the model cannot be used.
    """
    draw = random.Random(0)
    work: Calls = [
        [draw.sample(DOCUMENTS, draw.randint(1, _LARGEST)) for _ in range(calls)]
        for _ in range(threads)
    ]
    documents = sum(len(call) for caller in work for call in caller)
    found: dict[str, Any] = {"documents": documents, "calls": threads * calls, "strict": strict}
    with Reranker(model, thinking="none", strict=True) as reranker:
        alone = {r["content"]: r for r in reranker.rerank(QUERY, DOCUMENTS)}
    with Reranker(model, thinking="none", strict=strict) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)  # the context is made, and the query's prompt read
        kinds: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "one call": lambda: _one_call(reranker, work),
            "threads": lambda: _threads(reranker, work),
            "asyncio": lambda: asyncio.run(_tasks(reranker, work, cancelled=0)),
            "asyncio, a third cancelled": lambda: asyncio.run(_tasks(reranker, work, 1 / 3)),
        }
        for kind, run in kinds.items():
            begun = time.perf_counter()
            results = run()
            seconds = time.perf_counter() - begun
            found[kind] = _compared(results, alone) | {
                "documents": len(results),
                "documents_per_second": len(results) / seconds,
            }
            print(f"{kind}: {len(results) / seconds:.1f} documents/s", file=sys.stderr, flush=True)
    return found


def _one_call(reranker: Reranker, work: Calls) -> list[dict[str, Any]]:
    # As queries of their own: equal documents of one query are computed once.
    jobs = ((QUERY, call) for caller in work for call in caller)
    return [result for _, result in reranker.iter_rerank_many(jobs)]


def _threads(reranker: Reranker, work: Calls) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []

    def caller(calls: Iterable[list[str]]) -> None:
        for docs in calls:
            ranking = reranker.rerank(QUERY, docs)
            assert sorted(r["index"] for r in ranking) == list(range(len(docs)))
            results.extend(ranking)

    running = [threading.Thread(target=caller, args=(calls,)) for calls in work]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return results


async def _tasks(reranker: Reranker, work: Calls, cancelled: float) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    draw = random.Random(1)

    async def caller(calls: Iterable[list[str]]) -> None:
        for docs in calls:
            call = asyncio.create_task(reranker.arerank(QUERY, docs))
            if draw.random() < cancelled:
                await asyncio.sleep(draw.random() / 10)
                call.cancel()
                await asyncio.wait([call])
                if call.cancelled():
                    continue
            ranking = await call
            assert sorted(r["index"] for r in ranking) == list(range(len(docs)))
            results.extend(ranking)

    await asyncio.gather(*map(caller, work))
    return results


def _compared(
    results: Iterable[dict[str, Any]], alone: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return how many results differ from those of the same documents alone, and how far."""
    apart = [abs(r["rank_score"] - alone[r["content"]]["rank_score"]) for r in results]
    return {
        "differ_by_more_than_noise": sum(distance > _NOISE for distance in apart),
        "largest_difference_of_rank_score": max(apart, default=0.0),
        "equal_to_the_last_bit": sum(not distance for distance in apart),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="as --model of erank-lite rerank")
    parser.add_argument("--threads", type=int, default=8, help="callers at once")
    parser.add_argument("--calls", type=int, default=200, help="that each makes")
    parser.add_argument("--strict", action="store_true", help="one document at a time")
    arguments = parser.parse_args()
    try:
        found = measure(**vars(arguments))
    except ErankLiteError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
