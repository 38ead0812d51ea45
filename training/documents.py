"""Choose the documents that the second edition is taught with.

    python -m training.documents WORK [--texts TEXTS]

reads TEXTS (`training.texts`) and, as a minority, WORK/corpus.jsonl (`training.corpus`), and writes
WORK/documents.jsonl: `id`, `source`, `heading`, `text`. Passages are cut at sentences into pieces
of 20 to 110 words; answers of pairs are documents too. Neighbours stay neighbours.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from training.corpus import cut
from training.texts import held_out, pairs, passages, read_rows

_WORDS = (20, 110)
_FROM_TEXTS, _FROM_CORPUS, _FROM_PAIRS = 20_000, 5_000, 5_000
_SHARE = 0.5  # the power of a source's size with which it is drawn from: no one kind drowns others


def _drawn(rows: list[dict[str, str]], count: int, chance: random.Random) -> list[dict[str, str]]:
    """Return `count` rows, rarer sources oftener than their share."""
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        sizes[row["source"]] += 1
    keys = {r["id"]: chance.random() ** (sizes[r["source"]] ** (1 - _SHARE)) for r in rows}
    return sorted(rows, key=lambda r: -keys[r["id"]])[:count]


def _pieces(texts: Path) -> list[dict[str, str]]:
    return [
        {"id": f"{passage.id}-{number}", "source": passage.source, "heading": passage.heading,
         "text": piece.text}
        for passage in passages(texts)
        if held_out(passage.source) is None
        for number, piece in enumerate(cut(passage.heading, passage.text, _WORDS))
    ]  # fmt: skip


def _answers(texts: Path) -> list[dict[str, str]]:
    return [
        {"id": p.id, "source": p.source, "heading": p.question, "text": p.answer}
        for p in pairs(texts)
        if p.source.endswith("glossary") and 8 <= len(p.answer.split()) <= 150
    ]


def _corpus(work: Path) -> list[dict[str, str]]:
    rows = read_rows(work / "corpus.jsonl")
    return [
        {"id": f"c{number:06}", "source": r["source"], "heading": r["title"], "text": r["text"]}
        for number, r in enumerate(rows)
    ]


def main(work: Path, texts: Path | None) -> None:
    chance = random.Random(0)
    drawn = _drawn(_corpus(work), _FROM_CORPUS, chance)
    if texts:
        drawn += _drawn(_pieces(texts), _FROM_TEXTS, chance)
        drawn += _drawn(_answers(texts), _FROM_PAIRS, chance)
    seen: set[str] = set()
    with (work / "documents.jsonl").open("w", encoding="utf-8") as file:
        for row in sorted(drawn, key=lambda r: (r["source"], r["id"])):
            if row["text"] not in seen:
                seen.add(row["text"])
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(seen)} documents")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=Path)
    arguments = parser.parse_args()
    main(arguments.work, arguments.texts)
