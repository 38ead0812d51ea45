"""Make judged collections from sources that are kept out of training.

    python -m training.heldout WORK --texts TEXTS

writes WORK/heldout/medicine, government and technology in BEIR's layout, each with 40 questions
that people asked there (or a heading that is a question). A question's own answer is its one
relevant document; the others are the answers and passages of the same sources. Questions are
taken whose answer is among BM25's first 20 documents: the sets measure reranking.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import bm25s

from training.texts import HELD_OUT, held_out, pairs, passages

_QUERIES, _DEPTH = 40, 20
_LEAST_WORDS = (4, 20)  # of a question, of an answer
_ANAPHORA = re.compile(r"\b(this|these|that|it|its|they|them|he|she|here|your|our|we|us)\b", re.I)


def _key(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())[:80]


def collection(name: str, texts: Path, folder: Path) -> None:
    """Write the collection `name` to `folder`."""
    asked = [p for p in pairs(texts) if held_out(p.source) == name and p.answer]
    corpus = {_key(p.answer): (p.id, p.answer) for p in asked}
    for passage in passages(texts):
        # An answer is often a passage too: it would be a second right one, without judgement.
        if held_out(passage.source) == name and passage.source != "MedQuAD":
            corpus.setdefault(_key(passage.text), (passage.id, passage.text))
    ids, documents = zip(*corpus.values(), strict=True)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(documents, stopwords="en", show_progress=False), show_progress=False)
    random.Random(name).shuffle(asked)
    queries = {}
    for pair in asked:
        words = len(pair.question.split()), len(pair.answer.split())
        if words < _LEAST_WORDS or words[1] < _LEAST_WORDS[1] or pair.id not in ids:
            continue
        if _ANAPHORA.search(pair.question):  # needs its page to be understood
            continue
        tokens = bm25s.tokenize(pair.question, stopwords="en", show_progress=False)
        found, _ = index.retrieve(tokens, k=_DEPTH, show_progress=False)
        if pair.id in {ids[place] for place in found[0]}:
            queries[pair.id] = pair.question
        if len(queries) == _QUERIES:
            break
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for identifier, text in zip(ids, documents, strict=True):
            row = {"_id": identifier, "title": "", "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for identifier, question in queries.items():
            row = {"_id": f"q-{identifier}", "text": question}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"q-{i}\t{i}\t1" for i in queries)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{name}: {len(queries)} questions, {len(ids)} documents")


def main(work: Path, texts: Path) -> None:
    for name in HELD_OUT:
        collection(name, texts, work / "heldout" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.work, arguments.texts)
