"""A judged collection: queries, documents, and qrels (which are relevant)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from erank_lite.errors import InputError

Texts = Iterator[tuple[str, str]]
"""(id, text) of document after document."""


@dataclass(frozen=True)
class Collection:
    """What a ranking is judged by.

    Attributes:
        name: of the collection, such as "scifact" or "bright/biology".
        benchmark: what it belongs to: a name of `erank_lite.families.erank.prompt.INSTRUCTIONS`.
        queries: the text of each judged query, by id.
        read: reads the documents from the beginning, as (id, text).
        qrels: the grade of each judged document, by query.
        excluded: documents that must not be ranked for a query: they count neither for nor against.
        candidates: the documents that are ranked for each query, best first, where the collection
            itself names them (FollowIR); else None, and a first stage finds them.
        changed: FollowIR: for each topic, the documents that the changed instruction makes
            irrelevant; its queries are `TOPIC-og` and `TOPIC-changed`.
        min_relevant: the lowest grade that counts as relevant where relevance is yes or no.
    """

    name: str
    benchmark: str
    queries: Mapping[str, str]
    read: Callable[[], Texts]
    qrels: Mapping[str, Mapping[str, int]]
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    candidates: Mapping[str, list[str]] | None = None
    changed: Mapping[str, list[str]] = field(default_factory=dict)
    min_relevant: int = 1

    def texts(self, wanted: Iterable[str]) -> dict[str, str]:
        """Return the texts of these documents; what the collection lacks is left out."""
        ids = set(wanted)
        found = {}
        for name, text in self.read():
            if name in ids:
                found[name] = text
                if len(found) == len(ids):
                    break
        return found

    def first(self, count: int) -> Collection:
        """Return the collection with only its first `count` queries (for FollowIR, topics)."""
        keep = list(self.queries)
        if self.changed:
            topics = list(dict.fromkeys(q.rpartition("-")[0] for q in keep))[:count]
            keep = [q for q in keep if q.rpartition("-")[0] in topics]
        else:
            keep = keep[:count]
        return Collection(
            self.name,
            self.benchmark,
            {q: self.queries[q] for q in keep},
            self.read,
            {q: self.qrels[q] for q in keep if q in self.qrels},
            {q: self.excluded[q] for q in keep if q in self.excluded},
            None if self.candidates is None else {q: self.candidates[q] for q in keep},
            {t: d for t, d in self.changed.items() if f"{t}-og" in keep},
            self.min_relevant,
        )

    def digest(self) -> str:
        """Return a hash of all that a first stage sees: queries, exclusions, every document.

        Raises:
            InputError: a document comes twice, or an id is not one word, as TREC runs need it.
        """
        state = hashlib.blake2b(digest_size=8)
        for query, text in self.queries.items():
            _check_word(self.name, "query", query)
            excluded = sorted(self.excluded.get(query, ()))
            state.update(repr((query, text, excluded)).encode("utf-8", "surrogatepass"))
        seen = set()
        for name, text in self.read():
            _check_word(self.name, "document", name)
            if name in seen:
                raise InputError(f"{self.name}: document {name!r} comes twice in the corpus")
            seen.add(name)
            state.update(f"{name} {len(text)} {text}".encode("utf-8", "surrogatepass"))
        if not seen:
            raise InputError(f"{self.name} has no documents")
        return state.hexdigest()


def _check_word(collection: str, what: str, name: str) -> None:
    if len(name.split()) != 1 or name != name.strip():
        raise InputError(
            f"{collection}: {name!r} cannot be the id of a {what}: in a TREC run an id is one word"
        )
