"""Tell what a threshold on `relevance_score` keeps: of the relevant documents, and of the others.

    python -m erank_lite.benchmarks.serve.thresholds MODEL COLLECTION --queries 20 --depth 50

scores the first stage's documents, and counts those judged relevant and those that are not by the
tenth in which their score lies. What is finished is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from erank_lite.benchmarks.files import file_name, write_json
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.evaluate import FirstStage
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.benchmarks.report import style
from erank_lite.benchmarks.runner import Job, Settings, rerank
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.cli.progress import TerminalReporter
from erank_lite.errors import ErankLiteError

TENTHS = 10
_KINDS = {"relevant": "judged relevant", "others": "not"}


def measure(arguments: argparse.Namespace, reporter: TerminalReporter) -> Record:
    """Return a record of kind "thresholds".

    `histogram` has for `relevant` and `others` the documents whose `relevance_score` is from 0 to
    0.1, from 0.1 to 0.2 and so on; `kept` their shares that a threshold of 0.1, 0.2, … 0.9 keeps.

    Raises:
        InputError: the collection or an option cannot be used.
        ModelError: the model cannot.
    """
    spec = ModelSpec.parse(arguments.model)
    (collection,) = open_collections(arguments.collection)
    part = collection.first(arguments.queries)
    candidates, found_by = FirstStage(arguments.depth).retrieve(part, arguments.out, reporter)
    settings = Settings(thinking=arguments.thinking)
    rows = rerank(spec, Job.from_candidates(part, candidates, settings), arguments.out, reporter)
    scores: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for row in rows.all():
        grade = part.qrels.get(row["query"], {}).get(row["id"], 0)
        kind = "relevant" if grade >= part.min_relevant else "others"
        scores[kind].append((row["rank_score"] or 0.0) / rows.family.best)
    return record(
        "thresholds",
        command_line(["python", "-m", "erank_lite.benchmarks.serve.thresholds", *sys.argv[1:]]),
        model=spec.label,
        thinking=arguments.thinking,
        collection=part.name,
        first_stage=found_by,
        queries=len(candidates),
        histogram={kind: _counts(found).tolist() for kind, found in scores.items()},
        kept={kind: _kept(found) for kind, found in scores.items()},
    )


def _counts(scores: list[float]) -> npt.NDArray[np.int64]:
    return np.histogram(scores, TENTHS, (0, 1))[0]


def _kept(scores: list[float]) -> list[float]:
    return [sum(s >= tenth / TENTHS for s in scores) / max(1, len(scores))
            for tenth in range(1, TENTHS)]  # fmt: skip


def draw(result: Record) -> Figure:
    """Return the histograms of a record, one over the other."""
    figure, axes = style.canvas(3.6)
    ax = axes[0, 0]
    style.title(
        ax,
        f"{result['model']} on {result['collection']}: how scores are spread",
        "relevance_score",
        "share of the documents",
    )
    for number, (kind, name) in enumerate(_KINDS.items()):
        counts = np.array(result["histogram"][kind], float)
        at = (np.arange(TENTHS) + 0.3 + 0.4 * number) / TENTHS
        ax.bar(at, counts / max(1, counts.sum()), 0.04, color=style.COLOURS[number], label=name)
    ax.set_xticks(np.arange(TENTHS + 1) / TENTHS)
    ax.legend(frameon=False, fontsize=style.LABEL, labelcolor=style.INK)
    return figure


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="as eval takes it")
    parser.add_argument("collection")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=50, help="documents of each query")
    parser.add_argument("--thinking", default="full")
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
    name = file_name(f"thresholds-{result['model']}-{result['collection']}")
    write_json(arguments.out / "records" / f"{name}.json", result)
    (arguments.out / "report").mkdir(parents=True, exist_ok=True)
    draw(result).savefig(arguments.out / "report" / f"{name}.png", dpi=200)
    for tenth in range(1, TENTHS):
        kept = [f"{result['kept'][kind][tenth - 1]:6.1%} of those {name}"
                for kind, name in _KINDS.items()]  # fmt: skip
        print(f"at {tenth / TENTHS:.1f}: {', '.join(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
