"""Choose documents for each query, and let the teachers grade them.

    python -m training.pairs WORK [--queries 6000] [--also-mpnet]
    python -m training.pairs WORK --vectors

reads WORK/documents.jsonl and WORK/queries.jsonl and writes WORK/graded.jsonl: `form`, `query` and
`documents`, a list of [id, grade from 0 to 10]. A long document's id is its pieces', joined by `+`.
The first teacher's vectors go to WORK/documents.npy and WORK/queries.npy; with `--vectors` only
these are made, for a graded.jsonl that is there.
The grade of a pair is the cosine of both texts' embeddings, mapped to the scale by `grade`; of
several teachers their mean, of a long document that of its best piece.

For each query: what is known to answer it, what the first teacher finds nearest, some farther on,
the worst of what BM25 ranks high (same words, another matter), and one by chance.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np
import numpy.typing as npt
import Stemmer

from training.teachers import TEACHERS, embeddings, teacher
from training.texts import read_rows

_DEPTH = 30  # of both first stages
_FOUND_AGAIN = 20  # a query written for a document must lead to it in so many
_ENOUGH, _LACKING = 5.5, 0.15  # best grade of a usual query; share kept of those below
_LONG, _LONG_PIECES = 0.05, (3, 8)  # share of documents that are shown within their neighbours
_MOST = 6  # documents of a query
_ANSWER = 9.0  # the least grade of the text that a term's or a written query is known to lead to


class Graded(NamedTuple):
    form: str
    query: str
    documents: list[tuple[str, float]]


def grade(cosine: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Map a teacher's cosines to grades from 0 to 10."""
    return 10 * np.clip((cosine - 0.05) / 0.70, 0, 1).astype(np.float32)


def read_graded(path: Path) -> list[Graded]:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Graded(r["form"], r["query"], [(i, g) for i, g in r["documents"]]) for r in rows]


class Pool:
    """All documents and queries, and both first stages: BM25 and the first teacher."""

    def __init__(self, work: Path) -> None:
        self.documents = read_rows(work / "documents.jsonl")
        self.queries = read_rows(work / "queries.jsonl")
        self.place = {d["id"]: i for i, d in enumerate(self.documents)}
        self._work = work
        self.of_documents = self._embedded("documents", [d["text"] for d in self.documents])
        self.of_queries = self._embedded("queries", [q["text"] for q in self.queries])
        self.matrix = self.of_documents.astype(np.float32)
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25()
        self._index.index(self._tokens([d["text"] for d in self.documents]), show_progress=False)

    def _tokens(self, texts: list[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)

    def _embedded(self, name: str, texts: list[str]) -> npt.NDArray[np.float16]:
        """Return the first teacher's vectors, kept in WORK for the next time."""
        path = self._work / f"{name}.npy"
        if path.exists() and len(np.load(path, mmap_mode="r")) == len(texts):
            return np.load(path)  # type: ignore[no-any-return]
        vectors = embeddings(teacher(TEACHERS[0], self._work), texts)
        np.save(path, vectors)
        return vectors

    def near(self, numbers: list[int]) -> npt.NDArray[np.float32]:
        """Return (queries, documents) cosines."""
        return self.of_queries[numbers].astype(np.float32) @ self.matrix.T

    def ranked(self, numbers: list[int]) -> npt.NDArray[np.int64]:
        """Return (queries, _DEPTH) places by BM25."""
        tokens = self._tokens([self.queries[i]["text"] for i in numbers])
        found, _ = self._index.retrieve(tokens, k=_DEPTH, show_progress=False)
        return np.asarray(found, np.int64)


def _chosen(
    pool: Pool, number: int, cosines: npt.NDArray[np.float32], ranked: npt.NDArray[np.int64],
    chance: random.Random,
) -> list[int]:  # fmt: skip
    """Return places of documents for a query; nothing for a query that teaches little."""
    near = np.argpartition(-cosines, _DEPTH)[:_DEPTH]
    near = near[np.argsort(-cosines[near])]
    own = pool.place.get(pool.queries[number]["own"])
    form = pool.queries[number]["form"]
    if form.startswith("written") and own not in {*near[:_FOUND_AGAIN], *ranked[:_FOUND_AGAIN]}:
        return []
    lacking = form.startswith("asked") and grade(cosines[near[:1]])[0] < _ENOUGH
    if lacking and chance.random() > _LACKING:
        return []
    worst_first = ranked[:10][np.argsort(cosines[ranked[:10]])]
    picked = [
        *([] if own is None else [own]),
        int(near[0]),
        int(near[chance.randint(1, 4)]),
        int(worst_first[0]),
        int(near[chance.randint(5, _DEPTH - 1)]),
        int(chance.choice(ranked)),
        chance.randrange(len(pool.documents)),
        int(chance.choice(worst_first[1:4])),
    ]
    return list(dict.fromkeys(picked))[:_MOST]


def _long(pool: Pool, place: int, chance: random.Random) -> list[int]:
    """Return neighbouring pieces of one source, among them this one."""
    count = chance.randint(*_LONG_PIECES)
    first = max(0, place - chance.randrange(count))
    source = pool.documents[place]["source"]
    window = range(first, min(first + count, len(pool.documents)))
    return [i for i in window if pool.documents[i]["source"] == source]


def main(work: Path, count: int, also_mpnet: bool) -> None:
    chance = random.Random(4)
    pool = Pool(work)
    groups: list[tuple[int, list[list[int]]]] = []
    for at in range(0, len(pool.queries), 256):
        numbers = list(range(at, min(at + 256, len(pool.queries))))
        cosines, ranked = pool.near(numbers), pool.ranked(numbers)
        for number, of_query, by_words in zip(numbers, cosines, ranked, strict=True):
            chosen = _chosen(pool, number, of_query, by_words, chance)
            pieces = [
                _long(pool, place, chance) if chance.random() < _LONG else [place]
                for place in chosen
            ]
            if chosen:
                groups.append((number, pieces))
        if len(groups) >= count:
            break
    groups = groups[:count]
    cosines_of = _by_teacher(pool, groups, pool.of_queries, pool.of_documents)
    if also_mpnet:
        used = sorted({i for _, documents in groups for pieces in documents for i in pieces})
        model = teacher(TEACHERS[1], work)
        of_queries = np.zeros((len(pool.queries), 768), np.float16)
        numbers = [number for number, _ in groups]
        of_queries[numbers] = embeddings(model, [pool.queries[i]["text"] for i in numbers])
        of_documents = np.zeros((len(pool.documents), 768), np.float16)
        of_documents[used] = embeddings(model, [pool.documents[i]["text"] for i in used])
        second = _by_teacher(pool, groups, of_queries, of_documents)
        cosines_of = [[(a + b) / 2 for a, b in zip(x, y, strict=True)]
                      for x, y in zip(cosines_of, second, strict=True)]  # fmt: skip
    all_grades: list[float] = []
    with (work / "graded.jsonl").open("w", encoding="utf-8") as out:
        for (number, documents), cosine in zip(groups, cosines_of, strict=True):
            grades = [round(float(g), 1) for g in grade(np.array(cosine, np.float32))]
            if pool.queries[number]["form"].startswith(("term", "written")):
                grades[0] = max(grades[0], _ANSWER)
            all_grades += grades
            ids = ["+".join(pool.documents[i]["id"] for i in pieces) for pieces in documents]
            row = {
                "form": pool.queries[number]["form"], "query": pool.queries[number]["text"],
                "documents": list(zip(ids, grades, strict=True)),
            }  # fmt: skip
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(Counter(pool.queries[number]["form"] for number, _ in groups))
    print("grades:", np.bincount(np.rint(all_grades).astype(int), minlength=11).tolist())


def _by_teacher(
    pool: Pool, groups: list[tuple[int, list[list[int]]]],
    of_queries: npt.NDArray[np.float16], of_documents: npt.NDArray[np.float16],
) -> list[list[float]]:  # fmt: skip
    """Return the cosine of each document of each group, of a long one that of its best piece."""
    return [
        [
            float((of_documents[pieces].astype(np.float32)
                   @ of_queries[number].astype(np.float32)).max())
            for pieces in documents
        ]
        for number, documents in groups
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--queries", type=int, default=6_000)
    parser.add_argument("--also-mpnet", action="store_true", help="the mean of both teachers")
    parser.add_argument("--vectors", action="store_true", help="only the first teacher's vectors")
    arguments = parser.parse_args()
    if arguments.vectors:
        Pool(arguments.work)
        sys.exit()
    main(arguments.work, arguments.queries, arguments.also_mpnet)
