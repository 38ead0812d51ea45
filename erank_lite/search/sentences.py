"""Which sentences of a passage say most of what was asked for."""

from __future__ import annotations

import re
from collections.abc import Collection

from erank_lite.text.words import Stemmer

_ENDS = re.compile(r"(?<=[.!?])[\"')\]\u201d\u2019]*\s+|(?<=[\u3002\uff01\uff1f])|\n+")
_HEADING = re.compile(
    r"#{1,6} .*(?=\n\s*\n)"
)  # in code, what begins so is a comment: no line is free
_MOST = 2


def best_sentences(
    passage: str, terms: Collection[str], stemmer: Stemmer, most: int = _MOST
) -> list[tuple[int, int]]:
    """Return where the sentences are that have most of the terms, as (start, end) in the passage.

    Args:
        passage: a text.
        terms: of the query, as `Stemmer.terms` gives them.
        stemmer: the one that gave them.
        most: how many sentences.

    Returns:
        In the order in which they stand; none where no sentence has any of the terms. A heading is
        among them only where nothing below it has one.

    Example:
        >>> stemmer = Stemmer("search", "search")
        >>> text = "It is baked at six. A loaf stays fresh in a box. Buy early."
        >>> [(start, end)] = best_sentences(text, stemmer.terms("keep a loaf fresh"), stemmer)
        >>> text[start:end]
        'A loaf stays fresh in a box.'
    """
    wanted = set(terms)
    found = []
    at = 0
    for end, following in [*((m.start(), m.end()) for m in _ENDS.finditer(passage)),
                           (len(passage), len(passage))]:  # fmt: skip
        start, stop = at, end
        at = following
        held = wanted & set(stemmer.terms(passage[start:stop]))
        if held:
            text = not _HEADING.match(passage, start)
            found.append((text, len(held), -start, start, stop))
    if not found:
        return []
    text, top, *_ = max(found)
    # A second one only if it says nearly as much.
    best = [f for f in sorted(found, reverse=True)[:most] if f[0] == text and 2 * f[1] >= top + 1]
    return sorted((start, stop) for *_, start, stop in best)
