"""Orders made of comparisons: which documents are shown to a model together, and when.

Both are written as generators, which yield places in the first stage's order, best first, and are
sent what the model made of them. They know no model.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

_NUMBER = re.compile(r"\d+")


def heap_sort(count: int, children: int, first: int) -> Generator[list[int], int, list[int]]:
    """Find the `first` best of `count` documents by questions for the best of a set.

    Setwise heap sort (arXiv 2310.09497; ielab/llm-rankers, `setwise.py`): a heap in which each
    node has so many children; the parent comes first in its set.

    Args:
        count: of the documents.
        children: of a node; a set has one document more.
        first: how many are to be found; the rest follows in the first stage's order.

    Yields:
        The places of a set's documents; the place of the best within the set is sent.

    Returns:
        All places, best first.

    Example:
        >>> sort, asked = heap_sort(100, children=19, first=10), 0
        >>> members = next(sort)
        >>> try:
        ...     while True:
        ...         asked += 1
        ...         members = sort.send(members.index(max(members)))
        ... except StopIteration as end:
        ...     end.value[:3], asked
        ([99, 98, 97], 25)
    """
    heap = list(range(count))
    for root in range(count // children, -1, -1):
        yield from _sift(heap, count, root, children)
    found = []
    for end in range(count - 1, -1, -1):
        heap[0], heap[end] = heap[end], heap[0]
        found.append(heap[end])
        if len(found) == first:
            break
        yield from _sift(heap, end, 0, children)
    return found + [place for place in range(count) if place not in set(found)]


def _sift(heap: list[int], count: int, root: int, children: int) -> Generator[list[int], int, None]:
    """Let the document at `root` sink to where none below it is better."""
    while children * root + 1 < count:
        below = range(children * root + 1, min(children * (root + 1) + 1, count))
        nodes = [root, *below]
        best = nodes[(yield [heap[node] for node in nodes])]
        if best == root:
            return
        heap[root], heap[best] = heap[best], heap[root]
        root = best


def windows(count: int, size: int, step: int) -> Generator[list[int], Sequence[int], list[int]]:
    """Order documents by windows that move from the last to the first (arXiv 2304.09542).

    Args:
        count: of the documents.
        size: of a window.
        step: by which the next one is nearer to the first.

    Yields:
        The places of a window's documents; their order, as places within it, is sent.

    Returns:
        All places, best first.

    Example:
        >>> order, asked = windows(100, size=20, step=10), 0
        >>> members = next(order)
        >>> try:
        ...     while True:
        ...         asked += 1
        ...         members = order.send(sorted(range(20), key=lambda i: -members[i]))
        ... except StopIteration as end:
        ...     end.value[:3], asked
        ([99, 98, 97], 9)
    """
    order = list(range(count))
    end = count
    while count > 1:
        begin = max(0, end - size)
        shown = order[begin:end]
        order[begin:end] = [shown[i] for i in (yield shown)]
        if begin == 0:
            break
        end -= step
    return order


def read_order(text: str, count: int) -> list[int] | None:
    """Return the order of `count` documents that a model wrote, such as `[2] > [1]`.

    Numbers that come again or are none of theirs are left out; documents that are missing follow in
    the order in which they were shown.

    Returns:
        Places from 0, best first; None where no number of theirs was written.

    Example:
        >>> read_order("[2] > [7] > [2] > [1]", 4), read_order("none", 4)
        ([1, 0, 2, 3], None)
    """
    numbers = (int(found) - 1 for found in _NUMBER.findall(text) if len(found) < 9)
    named = list(dict.fromkeys(number for number in numbers if 0 <= number < count))
    if not named:
        return None
    return named + [place for place in range(count) if place not in set(named)]
