"""Small judged collections, written as BEIR, BRIGHT and FollowIR lie on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCUMENTS = {
    "d1": "The cat sleeps on the warm mat.",
    "d2": "Dogs bark at the postman's cat.",
    "d3": "A cat is a small animal; cats' whiskers are long.",
    "d4": "Fishes swim in the sea.",
    "d5": "Postmen walk many miles.",
}
QUERIES = {"q1": "sleeping cats", "q2": "the postman", "q3": "nothing judged here"}
QRELS = {"q1": {"d1": 2, "d3": 1, "d4": 0}, "q2": {"d2": 1, "d5": 1}}


def json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one object a line, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def qrels(path: Path, judged: Mapping[str, Mapping[str, int]], header: bool = True) -> Path:
    """Write BEIR's table of judgements."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore"] * header
    lines += [f"{q}\t{d}\t{g}" for q, grades in judged.items() for d, g in grades.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def beir(
    folder: Path,
    documents: Mapping[str, str] = DOCUMENTS,
    queries: Mapping[str, str] = QUERIES,
    judged: Mapping[str, Mapping[str, int]] = QRELS,
) -> Path:
    """Write a collection in BEIR's layout."""
    rows = [{"_id": i, "title": "", "text": t} for i, t in documents.items()]
    json_lines(folder / "corpus.jsonl", rows)
    json_lines(folder / "queries.jsonl", [{"_id": i, "text": t} for i, t in queries.items()])
    qrels(folder / "qrels" / "test.tsv", judged)
    return folder


def followir(folder: Path) -> Path:
    """Write one topic whose changed instruction makes d1 irrelevant."""
    queries = [{"_id": f"7-{which}", "text": "cats"} for which in ("og", "changed")]
    wanted = {"7-og": "Any cat will do.", "7-changed": "Sleeping cats are not relevant."}
    json_lines(folder / "corpus.jsonl", [{"_id": i, "text": t} for i, t in DOCUMENTS.items()])
    json_lines(folder / "queries.jsonl", queries)
    json_lines(
        folder / "instruction.jsonl",
        [{"query-id": q, "instruction": text} for q, text in wanted.items()],
    )
    json_lines(folder / "qrel_diff.jsonl", [{"query-id": "7", "corpus-ids": ["d1"]}])
    json_lines(
        folder / "top_ranked.jsonl",
        [{"query-id": q, "corpus-ids": ["d4", "d1", "d3"]} for q in wanted],
    )
    qrels(folder / "qrels.tsv", {"7-og": {"d1": 1, "d3": 1}, "7-changed": {"d3": 1}})
    return folder
