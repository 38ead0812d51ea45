"""What is said of a job before it begins: how long it will take, and what would make it short."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.reranker import Query, Reranker
from erank_lite.util.reporter import Reporter
from erank_lite.util.units import counted, duration

_SHORT, _LONG = 10, 60  # seconds below which nothing is said, and above which advice is given
_MODES: tuple[str | int, ...] = (256, "none")
_LARGE = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M")
_SMALL = "Q4_K_M"


def announce(
    reranker: Reranker,
    queries: Sequence[Query],
    reporter: Reporter,
    instruction: str | None = None,
    truncate_length: int | None = None,
    depth: int | None = None,
) -> None:
    """Tell how long a job is expected to take, unless that is short.

    Args:
        reranker: what does it.
        queries: as for `Reranker.rerank_many`.
        reporter: gets a line; for a job of more than a minute, a second one.
        instruction: as for `Reranker.rerank`.
        truncate_length: as for `Reranker.rerank`.
        depth: how many documents of each query are read; all by default.
    """
    found = reranker.forecast(queries, instruction, truncate_length, depth=depth)
    if found is None or found.seconds < _SHORT:
        return
    count = sum(len(docs[:depth]) for _, docs, *_ in queries)
    reporter.message(f"{counted(count, 'document')}: {found}")
    if found.seconds < _LONG:
        return
    ways = []
    for mode in _MODES:
        other = reranker.forecast(queries, instruction, truncate_length, mode, depth)
        if other is not None and other.seconds < 0.8 * found.seconds:
            ways.append(f"--thinking {mode} (about {duration(other.seconds)})")
    if reranker.engine.plan.type in _LARGE:
        ways.append(f"a smaller type, such as :{_SMALL}")
    ways.append("a smaller --depth")
    reporter.message(f"to take less time: {', '.join(ways)}")
