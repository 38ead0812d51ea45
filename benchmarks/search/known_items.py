"""Measure whether a file that is known to answer a question is found.

    python -m erank_lite.benchmarks.search.known_items FOLDER QUESTIONS.jsonl --model erank-tiny

QUESTIONS has lines of `{"query": …, "path": …}`, the path as it is below FOLDER. For BM25 alone and
for each model it tells the share of questions whose file comes first (success@1) or among the first
five (success@5), and the mean reciprocal rank (MRR).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erank_lite import Reranker
from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import command_line, record
from erank_lite.cli.progress import TerminalReporter
from erank_lite.errors import ErankLiteError, InputError
from erank_lite.search import Found, Index
from erank_lite.search.search import best_of_each_file, judged
from erank_lite.util.files import name_like


def read_questions(path: Path, count: int | None = None) -> list[tuple[str, str]]:
    """Return (query, path) of the first questions.

    Raises:
        InputError: the file cannot be read, or a line is no question.
    """
    found = []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                if row["query"] is not None:  # else the one who wrote them threw it away
                    found.append((str(row["query"]), str(row["path"])))
            except (ValueError, KeyError, TypeError):
                raise InputError(f"`{path}`, line {number} has no query and path") from None
    except OSError as error:
        reason = f"`{path}` cannot be read: {error.strerror}"
        raise InputError(reason, name_like(path)) from None
    return found[:count]


def places(
    questions: Sequence[tuple[str, str]],
    found: Sequence[Sequence[Found]],
    folder: Path,
    index: Index,
    reranker: Reranker | None,
    reporter: TerminalReporter,
    name: str,
) -> list[int | None]:
    """Return the place of each question's file among the files found, from 1; None for none."""
    ranks: list[int | None] = []
    for (query, path), passages in zip(questions, found, strict=True):
        *_, order = judged(query, passages, reranker, index.stemmer)
        names = [p.found.path.relative_to(folder).as_posix() for p in best_of_each_file(order)]
        ranks.append(names.index(path) + 1 if path in names else None)
        reporter.progress(name, len(ranks), len(questions), "questions")
    return ranks


def figures(ranks: Sequence[int | None]) -> dict[str, float]:
    """Return success@1, success@5 and MRR.

    Example:
        >>> figures([1, 2, None, 8])
        {'success@1': 0.25, 'success@5': 0.5, 'MRR': 0.40625}
    """
    return {
        "success@1": statistics.fmean(rank == 1 for rank in ranks),
        "success@5": statistics.fmean(rank is not None and rank <= 5 for rank in ranks),
        "MRR": statistics.fmean(1 / rank if rank else 0.0 for rank in ranks),
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--thinking", default="full")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--queries", type=int, help="only the first N questions")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        rows = _measure(arguments)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    typed = ["python", "-m", "erank_lite.benchmarks.search.known_items", *sys.argv[1:]]
    if arguments.json:
        result = record("known-items", command_line(typed), candidates=arguments.candidates,
                        thinking=arguments.thinking, **rows)  # fmt: skip
        write_json(arguments.json, result)
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    questions = read_questions(arguments.questions, arguments.queries)
    folder = arguments.folder.resolve()
    rows: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as work,
        TerminalReporter() as reporter,
        Index(Path(work, "search.sqlite")) as index,
    ):
        files = index.update([folder], reporter).files
        found = [index.search(q, [folder], arguments.candidates) for q, _ in questions]
        ranks = places(questions, found, folder, index, None, reporter, "BM25")
        rows["BM25"] = figures(ranks)
        for model in arguments.model:
            with Reranker(model, thinking=arguments.thinking) as reranker:
                ranks = places(questions, found, folder, index, reranker, reporter, model)
            rows[model] = figures(ranks)
    for name, row in rows.items():
        print(f"{name:32} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    return {"files": files, "questions": len(questions), "systems": rows}


if __name__ == "__main__":
    sys.exit(main())
