"""Read the passages and question-answer pairs that the second edition learns from.

TEXTS is a folder with `passages.jsonl.gz` (`id, source, licence, title, section, text`) and
`pairs.jsonl.gz` (`id, source, licence, question, answer`, the answer empty where only the question
is known), 98,850 and 82,992 rows from public sources under free licences, which
training/SOURCES.md names with their versions. Other files than those with the hashes below are
read as well, with a warning: what is learnt from them is another model.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HASHES = {
    "passages.jsonl.gz": "d122808d39fc8ead078bb052ed8aff16200de9710b369b2ba94be5f7bb660771",
    "pairs.jsonl.gz": "5536eedc7ce7a3ccf1326308d528dd5b370caff8c44a4397c99c64a98b1a2ece",
}
# Whole sources that nothing is learnt from, so that a set made from them is foreign to the model.
HELD_OUT = {
    "medicine": ("MedQuAD", "COVID FAQ"),
    "government": (
        "GSA Digital.gov", "18F", "VA.gov", "plainlanguage.gov", "US DOI", "GOV.UK",
        "Get Into Teaching", "Login.gov", "vote.gov", "GetYourRefund",
    ),
    "technology": (
        "Privacy Guides", "OWASP", "React documentation", "The Rust", "Microsoft", "Monero",
        "Tech Interview", "Open Source Guides", "Software Carpentry", "System Design",
        "Google Engineering",
    ),
}  # fmt: skip
# Files beside this one, of queries that are asked of a model and never learnt.
QUERIES = ("everyday", "plain", "short")


class Passage(NamedTuple):
    id: str
    source: str
    heading: str
    """Title and section, the more general first."""
    text: str


class Pair(NamedTuple):
    id: str
    source: str
    question: str
    answer: str


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != HASHES[name]:
        print(f"{name} is not the one that erank-tiny was taught with", file=sys.stderr)
    return [json.loads(line) for line in gzip.decompress(content).decode().splitlines()]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file in lines of JSON."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def queries(name: str) -> list[dict[str, Any]]:
    """Return one of `QUERIES`: each with its `documents` and the place of its `answer`."""
    return read_rows(Path(__file__).with_name(f"{name}.jsonl"))


def passages(folder: Path) -> list[Passage]:
    """Return all passages of TEXTS."""
    return [
        Passage(r["id"], r["source"], " ".join(filter(None, (r["title"], r["section"]))), r["text"])
        for r in _rows(folder, "passages.jsonl.gz")
    ]


def pairs(folder: Path) -> list[Pair]:
    """Return all pairs of TEXTS."""
    return [
        Pair(r["id"], r["source"], r["question"], r["answer"])
        for r in _rows(folder, "pairs.jsonl.gz")
    ]


def held_out(source: str) -> str | None:
    """Return the held-out set that a source belongs to."""
    for name, starts in HELD_OUT.items():
        if source.startswith(starts):
            return name
    return None
