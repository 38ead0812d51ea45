"""Measure how soon a model's order can be told, beside reading fewer documents at equal cost.

    python -m erank_lite.benchmarks.effort MODEL COLLECTION --queries 20 --depth 50

reads the candidates with full reasoning once, asking for the answer on the way, and replays what
cheaper ways would have given: every document cut after some tokens of reasoning, only the first of
the first stage, the best of a glance, the best of another model's order (`--first-pass`). It says
for each how near its first ten come to those of full reasoning (self-nDCG@10: the model's own final
scores are the gains) and what it costs. A cut of the reasoning is worth having if it comes nearer
than the first stage's cut at the same cost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.effort import replay
from erank_lite.benchmarks.effort.measure import Reading, read
from erank_lite.benchmarks.effort.plot import draw
from erank_lite.benchmarks.files import file_name, write_json
from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.quality.measures import measures_by_query
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.benchmarks.runner import Job, Settings, rerank
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.cli.progress import TerminalReporter
from erank_lite.errors import ErankLiteError

CUTS = (0, 32, 64, 128, 256)
DEPTHS = tuple(tenth / 10 for tenth in range(1, 10))  # of the candidates
_USUAL_SHARE = 0.5  # what reading a token costs of writing one, where it was not measured


def ways(
    count: int, others: Mapping[tuple[str, str], float] | None, cost: float
) -> dict[str, replay.Way]:
    """Return the cheaper ways by their names.

    Args:
        count: of candidates.
        others: scores of another model, by query and document, where there is one.
        cost: of its pass over one document.
    """
    depths = sorted({max(1, round(part * count)) for part in DEPTHS})
    found: dict[str, replay.Way] = {"all": replay.full}
    found |= {f"cut at {tokens}": replay.cut(tokens) for tokens in CUTS}
    found |= {f"first {n} of the first stage": replay.first_stage(n) for n in depths}
    found |= {f"best {n} of a glance": replay.glance(n) for n in depths}
    if others is not None:
        found |= {f"best {n} of the first pass": replay.by(others, n, cost) for n in depths}
    return found


def figures(
    queries: Mapping[str, Sequence[Reading]],
    collection: Collection,
    share: float,
    others: Mapping[tuple[str, str], float] | None = None,
    cost: float = 0.0,
) -> list[dict[str, Any]]:
    """Return what each way costs, how near it comes, and its judged quality."""
    count = max(map(len, queries.values()))
    found = ways(count, others, cost)
    judged = {
        name: _judged({q: way(r, share).documents for q, r in queries.items()}, collection, count)
        for name, way in found.items()
    }
    rows = []
    for name, way in found.items():
        near = replay.agreement(queries, way, share)
        depth, plain = replay.equal_cost(queries, near.cost, share)
        apart = [judged[name][q] - judged["all"][q] for q in judged["all"]]
        rows.append(
            {
                "way": name,
                "cost": near.cost,
                "self_ndcg": near.self_ndcg,
                "self_ndcg_interval": list(near.interval),
                "overlap": near.overlap,
                "spearman": near.spearman,
                "ndcg": statistics.fmean(judged[name].values()),
                "ndcg_difference": statistics.fmean(apart),
                "ndcg_difference_interval": list(replay.interval(apart)),
                "equal_cost": {"depth": depth, "self_ndcg": plain.self_ndcg},
            }
        )
    return rows


def _judged(
    orders: Mapping[str, Sequence[Reading]], collection: Collection, depth: int
) -> dict[str, float]:
    ranking = {query: [r.id for r in order] for query, order in orders.items()}
    found = measures_by_query(ranking, collection, depth)["nDCG@10"]
    return {query: found[query] for query in orders if query in found}


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.effort", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model", help="as eval takes it")
    parser.add_argument("collection")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=50, help="candidates of each query")
    parser.add_argument("--first-pass", metavar="MODEL", help="another model, whose order is tried")
    parser.add_argument("--out", type=Path, default=Path("erank-lite-results"))
    arguments = parser.parse_args()
    try:
        with TerminalReporter() as reporter:
            found = _measure(arguments, reporter)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    for row in found["ways"]:
        print(
            f"{row['way']:28} cost {row['cost']:5.2f}  self-nDCG@10 {row['self_ndcg']:.3f}  "
            f"first ten {row['overlap']:.2f}  nDCG@10 {row['ndcg']:.3f}  at equal cost the first "
            f"{row['equal_cost']['depth']}: {row['equal_cost']['self_ndcg']:.3f}"
        )
    return 0


def _measure(arguments: argparse.Namespace, reporter: TerminalReporter) -> Record:
    spec, out = ModelSpec.parse(arguments.model), arguments.out
    (collection,) = open_collections(arguments.collection)
    part = collection.first(arguments.queries)
    candidates, found_by = FirstStage(arguments.depth).retrieve(part, out, reporter)
    job = Job.from_candidates(part, candidates, Settings())
    queries, share = read(spec, job, CUTS, out, reporter)
    others, cost = None, 0.0
    if arguments.first_pass:
        other = rerank(ModelSpec.parse(arguments.first_pass), job, out, reporter)
        others = {(row["query"], row["id"]): row["rank_score"] or 0.0 for row in other.all()}
    share = share or _USUAL_SHARE
    rows = figures(queries, part, share, others, cost)
    documents = [reading for readings in queries.values() for reading in readings]
    result = record(
        "effort",
        command_line(["python", "-m", "erank_lite.benchmarks.effort", *sys.argv[1:]]),
        model=spec.label,
        collection=part.name,
        first_stage=found_by,
        queries=len(queries),
        documents=len(documents),
        tokens=statistics.fmean(r.tokens for r in documents),
        reading_share=share,
        ways=rows,
    )
    name = file_name(f"effort-{spec.label}-{part.name}")
    write_json(out / "records" / f"{name}.json", result)
    (out / "report").mkdir(parents=True, exist_ok=True)
    draw(result).savefig(out / "report" / f"{name}.png", dpi=200)
    return result


if __name__ == "__main__":
    sys.exit(main())
