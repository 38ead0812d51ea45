"""Passages that BM25 finds, read by a model, in an order that settles while it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.effort import FULL, Effort
from erank_lite.reranker import Reranker, sort_results
from erank_lite.search.index import Found, Index
from erank_lite.search.sentences import best_sentences
from erank_lite.text.words import Stemmer

CANDIDATES = 20
"""Passages that a model reads at most, unless more are asked for."""

_LEAST = 5
_SECONDS = 10.0  # that reading may take, unless more are asked for


@dataclass(frozen=True)
class Passage:
    """A passage with its place in the order.

    Attributes:
        found: what the index has of it.
        score: the model's `rank_score`, 0 to 10; None where it was not read, or could not be.
        marks: (start, end) of the sentences in `found.text` that say most of what was asked for.
        result: what `Reranker.rerank` says of it; None where no model was asked.
    """

    found: Found
    score: float | None
    marks: list[tuple[int, int]]
    result: dict[str, Any] | None = None

    @property
    def number(self) -> int | None:
        """The line of the first marked sentence, or the page, cell or message; None for none."""
        if not self.found.places:
            return None
        start = self.marks[0][0] if self.marks else 0
        line = self.found.text.count("\n", 0, start)
        return self.found.places[min(line, len(self.found.places) - 1)]


def search(
    query: str,
    folders: Iterable[Path | str],
    reranker: Reranker | None = None,
    candidates: int = CANDIDATES,
    *,
    index: Index | None = None,
    all_of_a_file: bool = False,
    instruction: str | None = None,
) -> list[Passage]:
    """Bring the index up to date, and return the best passages of files, best first.

    Args:
        query: what to look for.
        folders: folders, or single files.
        reranker: what judges; None leaves BM25's order.
        candidates: passages that are judged.
        index: the index; None means the user's.
        all_of_a_file: give every passage, not the best of each file.
        instruction: what relevance means, as for `Reranker.rerank`.

    Raises:
        InputError: a folder is not there, or the query is empty.
        ModelError: the index or the model cannot be used.

    Example:
        >>> import tempfile
        >>> from erank_lite import Reranker
        >>> with tempfile.TemporaryDirectory() as folder, Reranker("erank-tiny") as reranker:
        ...     _ = Path(folder, "sky.txt").write_text("Air scatters blue light.\\n")
        ...     _ = Path(folder, "moon.txt").write_text("Mars has a sky with two moons.\\n")
        ...     with Index(Path(folder, ".index")) as index:
        ...         best, other = search(
        ...             "why is the sky blue", [folder], reranker, index=index
        ...         )
        >>> best.found.path.name, best.number, other.found.path.name
        ('sky.txt', 1, 'moon.txt')
    """
    folders = list(folders)
    if index is None:
        with Index() as own:
            return search(query, folders, reranker, candidates, index=own,
                          all_of_a_file=all_of_a_file, instruction=instruction)  # fmt: skip
    index.update(folders)
    found = index.search(query, folders, candidates)
    passages: list[Passage] = []
    order = judged(query, found, reranker, index.stemmer, instruction=instruction)
    for passages in order:  # noqa: B007 - the last counts
        pass
    return passages if all_of_a_file else best_of_each_file(passages)


def judged(
    query: str,
    found: Sequence[Found],
    reranker: Reranker | None,
    stemmer: Stemmer,
    effort: Effort = FULL,
    instruction: str | None = None,
) -> Iterator[list[Passage]]:
    """Yield the passages in BM25's order, and again whenever one was read, best first.

    Those that were not read yet follow those that were, in BM25's order.

    Args:
        query: what to look for.
        found: the passages.
        reranker: what reads them; None leaves BM25's order.
        stemmer: what the index makes words with.
        effort: as for `Reranker.rerank`.
        instruction: as for `Reranker.rerank`.

    Raises:
        InputError: the query cannot be used.
        ModelError: the model cannot go on.
    """
    terms = stemmer.terms(query)
    plain = [Passage(each, None, best_sentences(each.text, terms, stemmer)) for each in found]
    yield plain
    if reranker is None or not found:
        return
    results: list[dict[str, Any]] = []
    for result in reranker.iter_rerank(query, documents(found), instruction, effort=effort):
        results.append(result)
        ranked = sort_results(results)
        read = {result["index"] for result in ranked}
        order = [_passage(plain[result["index"]], result) for result in ranked]
        yield order + [each for place, each in enumerate(plain) if place not in read]


def _passage(plain: Passage, result: dict[str, Any]) -> Passage:
    return Passage(plain.found, result["rank_score"], plain.marks, result)


def documents(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return passages as a model reads them, each under its heading."""
    return [
        {
            "content": f"{each.heading}\n\n{each.text}" if each.heading else each.text,
            "first_stage_score": each.score,
        }
        for each in found
    ]


def metadata(found: Found) -> dict[str, Any]:
    """Return where a passage is, for frameworks: `source`, `heading`, and `line` or its like."""
    where = {} if found.unit is None else {found.unit: found.places[0] if found.places else None}
    return {"source": str(found.path), "heading": found.heading, **where}


def as_many_as_fit(query: str, found: Sequence[Found], reranker: Reranker) -> int:
    """Return how many of the passages the model reads in about ten seconds here; at least five."""
    forecast = reranker.forecast([(query, documents(found))])
    if forecast is None or not found:
        return len(found)
    each = forecast.seconds / len(found)
    return min(len(found), max(_LEAST, int(_SECONDS / max(each, 1e-6))))


def best_of_each_file(passages: Iterable[Passage]) -> list[Passage]:
    """Return the first passage of each file."""
    first: dict[Path, Passage] = {}
    for passage in passages:
        first.setdefault(passage.found.path, passage)
    return list(first.values())
