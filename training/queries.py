"""Collect the queries that the model is taught with.

    python -m training.queries WORK [--texts TEXTS]

writes WORK/queries.jsonl: `form`, `text` and `own`, the id of a document that is known to answer
it, or nothing. Half are questions that people asked (Paralex's, WebQuestions, trivia), some of them
as keywords; the others were written by a model for a document (WORK/written.jsonl, where there is
one), ask for a term whose definition is a document, or are made by rules from a document's heading
and words.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

from bm25s.stopwords import STOPWORDS_EN_PLUS

from training.texts import held_out, pairs, read_rows

_ASKED, _TERMS, _RULES = 24_000, 3_000, 3_000
_AS_KEYWORDS = 0.25  # of the asked ones
_STOP = frozenset(STOPWORDS_EN_PLUS)
_TERM_FORMS = (
    "What is {}?", "what is {}", "{}", "{} meaning", "define {}", "what does {} mean",
    "{} definition", "explain {}", "tell me about {}", "What do you call {}?",
)  # fmt: skip
_RULES_FORMS = (
    "{}", "{}", "{}", "what is {}", "how does {} work", "tell me about {}", "{} explained",
    "Find passages about {}.", "information on {}",
)  # fmt: skip
_CHOICE = re.compile(r"\b(of these|following|this|these|pictured|he|she|they)\b", re.IGNORECASE)

Row = dict[str, str]


def _keywords(question: str) -> str:
    words = re.findall(r"[\w'-]+", question)
    return " ".join(w for w in words if w.lower() not in _STOP).lower()


def _asked(texts: Path, chance: random.Random) -> list[Row]:
    """Return questions of people, without an answer."""
    found = [
        p.question
        for p in pairs(texts)
        if held_out(p.source) is None
        and not p.source.endswith("glossary")
        and 3 <= len(p.question.split()) <= 25
        and not _CHOICE.search(p.question)
    ]
    rows = []
    for question in chance.sample(found, min(_ASKED, len(found))):
        keywords = _keywords(question)
        if chance.random() < _AS_KEYWORDS and len(keywords.split()) >= 2:
            rows.append({"form": "asked, keywords", "text": keywords, "own": ""})
        else:
            text = question.lower().rstrip("?") if chance.random() < 0.4 else question
            rows.append({"form": "asked", "text": text, "own": ""})
    return rows


def _terms(documents: list[Row], chance: random.Random) -> list[Row]:
    """Return questions for terms, each with the document that is its definition."""
    defined = [d for d in documents if d["source"].endswith("glossary")]
    rows = []
    for row in chance.sample(defined, min(_TERMS, len(defined))):
        term = re.sub(r"^What (is|are) |\?$", "", row["heading"])
        text = chance.choice(_TERM_FORMS).format(term)
        if text.startswith("What do you call"):  # the other way round
            text = re.split(r"(?<=[.;])\s", row["text"])[0].rstrip(".").lower()[:200]
        rows.append({"form": "term", "text": text, "own": row["id"]})
    return rows


def _rules(documents: list[Row], chance: random.Random) -> list[Row]:
    """Return queries made from headings, and from the telling words of documents."""
    seen = Counter(w for d in documents for w in set(re.findall(r"[a-z]{3,}", d["text"].lower())))
    rows = []
    for row in chance.sample(documents, min(_RULES, len(documents))):
        words = [w for w in dict.fromkeys(re.findall(r"[a-z]{3,}", row["text"].lower()))
                 if w not in _STOP]  # fmt: skip
        telling = sorted(words, key=lambda w: math.log(seen[w]) * chance.uniform(0.5, 1))
        topic = " ".join(telling[: chance.choice((2, 3, 4))])
        if 1 < len(row["heading"].split()) <= 9 and chance.random() < 0.6:
            topic = row["heading"]
        text = topic if topic.endswith("?") else chance.choice(_RULES_FORMS).format(topic)
        rows.append({"form": "rule", "text": text[:200], "own": row["id"]})
    return rows


def _written(work: Path) -> list[Row]:
    path = work / "written.jsonl"
    if not path.exists():
        return []
    return [
        {"form": f"written, {r['form']}", "text": r["text"], "own": r["id"]}
        for r in read_rows(path)
        if r["text"]
    ]


def main(work: Path, texts: Path | None) -> None:
    chance = random.Random(1)
    documents = read_rows(work / "documents.jsonl")
    rows = [*_terms(documents, chance), *_rules(documents, chance), *_written(work)]
    if texts:
        rows += _asked(texts, chance)
    chance.shuffle(rows)
    with (work / "queries.jsonl").open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(Counter(r["form"] for r in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--texts", type=Path)
    arguments = parser.parse_args()
    main(arguments.work, arguments.texts)
