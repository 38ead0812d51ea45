"""Bring in the sets that were written for the model: a query and texts that answer it or do not.

    python -m training.sets WORK

reads training/edition-2/sets.jsonl.gz (`query`, and `documents`, a list of [grade, text]) and
writes WORK/sets.jsonl and WORK/set-documents.jsonl, in the form of `training.pairs`, with the first
teacher's vectors. In most, what a query asks is answered in other words, and most of what does not
answer stands in the query's own: cosines alone do not teach the difference. In those that are
`plain`, answers have the query's words. Each set gets one text of another. A set that asks what one
of the queries of `training.evaluate` asks, or has a text of theirs, is left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from pathlib import Path

import numpy as np

from training.teachers import TEACHERS, embeddings, teacher
from training.texts import QUERIES, queries

_HERE = Path(__file__).parent
SET, PLAIN = "set", "plain set"  # forms of a query
_ALIKE = 0.7  # cosine of two queries that ask for nearly the same


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def main(work: Path) -> None:
    lines = gzip.decompress((_HERE / "edition-2" / "sets.jsonl.gz").read_bytes()).splitlines()
    sets = [json.loads(line) for line in lines]
    model = teacher(TEACHERS[0], work)
    tests = [r for name in QUERIES for r in queries(name)]
    of_test = embeddings(model, [r["query"] for r in tests])
    texts_of_test = {_words(text) for r in tests for text in r["documents"]}
    of_queries = embeddings(model, [s["query"] for s in sets])
    alike = (of_queries.astype(np.float32) @ of_test.astype(np.float32).T).max(1)
    kept = [
        n for n, s in enumerate(sets)
        if alike[n] < _ALIKE and texts_of_test.isdisjoint(_words(t) for _, t in s["documents"])
    ]  # fmt: skip
    chance = random.Random(6)
    chance.shuffle(kept)
    texts: list[str] = []
    with (
        (work / "sets.jsonl").open("w", encoding="utf-8") as out,
        (work / "set-documents.jsonl").open("w", encoding="utf-8") as documents,
    ):
        for n in kept:
            other = sets[chance.choice(kept)]["documents"]
            graded = [*sets[n]["documents"], [0, chance.choice(other)[1]]]
            chance.shuffle(graded)
            row = {
                "form": PLAIN if sets[n].get("plain") else SET, "query": sets[n]["query"],
                "documents": [[f"set-{n}-{i}", grade] for i, (grade, _) in enumerate(graded)],
            }  # fmt: skip
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            for (identifier, _), (_, text) in zip(row["documents"], graded, strict=True):
                documents.write(json.dumps({"id": identifier, "text": text}, ensure_ascii=False))
                documents.write("\n")
                texts.append(text)
    np.save(work / "sets.npy", of_queries[kept])
    np.save(work / "set-documents.npy", embeddings(model, texts))
    print(f"{len(kept)} of {len(sets)} sets")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    main(parser.parse_args().work)
