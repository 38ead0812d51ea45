"""Ask one model as every family does: are its answers read, and what order do they give.

    python -m erank_lite.benchmarks.quality.families MODEL COLLECTION --queries 20 --depth 5

A model that was not trained for these prompts shows that each family runs from prompt to order; it
says nothing about the published models. What is finished is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from erank_lite.benchmarks.files import file_name, write_json
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.quality.measures import mean_measures
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.benchmarks.runner import Job, Settings, document_ids, rerank
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.cli.progress import TerminalReporter
from erank_lite.errors import ErankLiteError
from erank_lite.families import FAMILIES

_MEASURE = "nDCG@10"


def measure(arguments: argparse.Namespace, reporter: TerminalReporter) -> Record:
    """Return a record of kind "families".

    `rows` has for each family its `documents`, those that `failed` and that were `forced`, the mean
    `tokens` that were written for one, and nDCG@10; `first_stage` is that of the first stage alone.

    Raises:
        InputError: the collection or an option cannot be used.
        ModelError: the model cannot.
    """
    (collection,) = open_collections(arguments.collection)
    part = collection.first(arguments.queries)
    candidates, found_by = FirstStage(arguments.depth).retrieve(part, arguments.out, reporter)
    job = Job.from_candidates(part, candidates, Settings(thinking=arguments.thinking))
    plain = {query: [name for name, _ in found] for query, found in candidates.items()}
    rows = {}
    for name in arguments.family or FAMILIES:
        spec = ModelSpec.parse(arguments.model, family=name)
        spec = ModelSpec(f"{spec.label}, {name}", spec.model, spec.engine, spec.options, name)
        outcome = rerank(spec, job, arguments.out, reporter)
        found = outcome.all()
        measures = mean_measures(document_ids(outcome.ranking()), part, arguments.depth)
        rows[name] = {
            "documents": len(found),
            "failed": sum(row["failure"] is not None for row in found),
            "forced": sum(row["forced"] for row in found),
            "tokens": statistics.fmean(row["tokens"] for row in found),
            _MEASURE: measures[_MEASURE],
        }
        print(f"{name:16}", {key: round(value, 3) for key, value in rows[name].items()})
    return record(
        "families",
        command_line(["python", "-m", "erank_lite.benchmarks.quality.families", *sys.argv[1:]]),
        model=ModelSpec.parse(arguments.model).label,
        thinking=arguments.thinking,
        collection=part.name,
        queries=len(part.queries),
        depth=arguments.depth,
        found_by=found_by,
        first_stage=mean_measures(plain, part, arguments.depth)[_MEASURE],
        rows=rows,
    )


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="as eval takes it")
    parser.add_argument("collection")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=5, help="documents of each query")
    parser.add_argument("--thinking", default="full")
    parser.add_argument("--family", action="append", help="only this one; repeat for several")
    parser.add_argument("--out", type=Path, default=Path("erank-lite-results"))
    arguments = parser.parse_args()
    try:
        with TerminalReporter() as reporter:
            result = measure(arguments, reporter)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    name = file_name(f"families-{result['model']}-{result['collection']}")
    write_json(arguments.out / "records" / f"{name}.json", result)
    print(f"first stage: {_MEASURE} {result['first_stage']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
