"""Measure whether `rerank --within` keeps its time, and what its order is worth.

    python -m erank_lite.benchmarks.effort.within MODEL COLLECTION --within 20 --depth 100

runs the command for each query, as somebody would type it, and tells how long it took from the
start of the process, how many documents were read, and nDCG@10 beside the first stage's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.effort.replay import interval
from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.quality.measures import measures_by_query
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.cli.progress import TerminalReporter
from erank_lite.errors import ErankLiteError, ModelError

_COMMAND = str(Path(sys.executable).with_name("erank-lite"))


def measure(arguments: argparse.Namespace, typed: str = "") -> Record:
    """Return a record of kind "within".

    `runs` has for each query `seconds`, `read`, and `ndcg` of the order and of the first stage's.

    Raises:
        InputError: the collection cannot be used.
        ModelError: the command fails.
    """
    (collection,) = open_collections(arguments.collection)
    part = collection.first(arguments.queries)
    runs: list[dict[str, Any]] = []
    with TerminalReporter() as reporter, tempfile.TemporaryDirectory() as work:
        candidates, found_by = FirstStage(arguments.depth).retrieve(part, arguments.out, reporter)
        texts = part.texts({name for found in candidates.values() for name, _ in found})
        for query, found in candidates.items():
            docs = Path(work, "docs.jsonl")
            rows = [{"id": i, "content": texts[i], "first_stage_score": s} for i, s in found]
            docs.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            runs.append(_run(arguments, part.queries[query], docs))
            orders = {query: runs[-1].pop("order")}, {query: [name for name, _ in found]}
            ours, first = (
                measures_by_query(order, part, arguments.depth)["nDCG@10"][query]
                for order in orders
            )
            runs[-1] |= {"documents": len(found), "ndcg": ours, "first_stage_ndcg": first}
            reporter.progress("queries", len(runs), len(candidates), "queries")
    apart = [run["ndcg"] - run["first_stage_ndcg"] for run in runs]
    return record(
        "within", typed, model=Path(arguments.model).name, collection=part.name,
        first_stage=found_by, within=arguments.within, runs=runs,
        slowest=max(run["seconds"] for run in runs),
        ndcg_difference=statistics.fmean(apart), ndcg_difference_interval=list(interval(apart)),
    )  # fmt: skip


def _run(arguments: argparse.Namespace, query: str, docs: Path) -> dict[str, Any]:
    command = [
        _COMMAND, "rerank", "--model", arguments.model, "--query", query, "--within",
        str(arguments.within), "--json", str(docs),
    ]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begun
    if done.returncode:
        raise ModelError(f"the command failed: {done.stderr.strip().splitlines()[-1]}")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        "seconds": seconds,
        "read": sum(r["level"] == "full" and r["failure"] is None for r in results),
        "stopped": sum(isinstance(r["level"], int) for r in results),
        "order": [r["id"] for r in results],
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("collection")
    parser.add_argument("--within", type=float, default=20)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("erank-lite-results"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    typed = command_line(["python", "-m", "erank_lite.benchmarks.effort.within", *sys.argv[1:]])
    try:
        found = measure(arguments, typed)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for run in found["runs"]:
        print(
            f"{run['seconds']:6.2f} s, {run['read']} read and {run['stopped']} stopped of "
            f"{run['documents']}, nDCG@10 {run['ndcg']:.3f} for {run['first_stage_ndcg']:.3f}"
        )
    low, high = found["ndcg_difference_interval"]
    print(f"nDCG@10 {found['ndcg_difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
    if arguments.json:
        write_json(arguments.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
