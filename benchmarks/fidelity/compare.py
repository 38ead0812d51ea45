"""Models and engines against a reference on one collection: scores, order, and answers alone."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from erank_lite.benchmarks.fidelity.agreement import agreement, interval
from erank_lite.benchmarks.fidelity.teacher_forcing import Distributions, distributions, divergence
from erank_lite.benchmarks.files import file_name, write_json
from erank_lite.benchmarks.quality.measures import measures_by_query
from erank_lite.benchmarks.record import RECORDS, Record, Variant, record
from erank_lite.benchmarks.runner import Job, Outcome, document_ids, rerank
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.util.reporter import SILENT, Reporter

_MEASURE = "nDCG@10"
_DEPTH = 10
_FLOOR = (5, 3)  # documents together; the first that is not the reference's own number
_POINTS = 200  # of a scatter plot


def floor_of(reference: ModelSpec) -> ModelSpec:
    """Return the reference in another batch shape: how far it is from itself.

    The same weights, kernels and text; only the sums are taken in another order. What is no further
    from the reference than this cannot be told apart from it.
    """
    together = next(n for n in _FLOOR if str(n) != str(reference.options.get("sequences")))
    return reference.with_options(
        f"{together} documents together", sequences=together, strict=False
    )


def compare(
    reference: ModelSpec,
    others: Sequence[ModelSpec],
    job: Job,
    folder: Path,
    *,
    command: str,
    floor: bool = True,
    reporter: Reporter = SILENT,
) -> Record:
    """Measure how far each of `others` is from `reference`.

    Args:
        reference: mostly the published checkpoint in BF16; what it gave is kept in `folder`
            and computed once.
        others: what is compared with it.
        job: the documents.
        folder: gets what is finished, and the record.
        command: what was typed.
        floor: compare the reference in another batch shape too.
        reporter: shows how far it is.

    Returns:
        A record of kind "fidelity": for each run what `agreement` gives, `nDCG@10`, its `change`
        from the reference's with the `interval` of a paired bootstrap, `kl` and `kl_95` (mean and
        95th percentile of the divergence of the answer's distribution, in nats, behind the
        reference's reasoning; see `erank_lite.benchmarks.fidelity.teacher_forcing`), and
        `same_answer`, the share of equal most probable answers there.

    Raises:
        ModelError: a model cannot be used, or cannot go on; what is finished is kept.
        InputError: something that was given cannot be used.
    """
    outcome = rerank(reference, job, folder, reporter)
    base = _by_query(outcome, job)
    expected = distributions(reference, job, outcome, folder, reporter)
    specs = [(floor_of(reference), True)] if floor else []
    specs += [(spec, False) for spec in others]
    runs = []
    for spec, is_floor in specs:
        found = rerank(spec, job, folder, reporter)
        gains = _by_query(found, job)
        mean = statistics.fmean(gains.values())
        runs.append(
            {
                "name": spec.label,
                "variant": asdict(Variant.from_label(spec.label)),
                "ran": found.description,
                "size": found.size,
                "floor": is_floor,
                **agreement(found.ranking(), outcome.ranking()),
                _MEASURE: mean,
                "change": mean - statistics.fmean(base.values()),
                "interval": interval(gains, base),
                **_divergences(distributions(spec, job, outcome, folder, reporter), expected),
                "documents_per_second": found.rate,
                "scatter": _scatter(found, outcome),
            }
        )
    made = record(
        "fidelity",
        command,
        collection=job.collection.name,
        queries=len(job.collection.queries),
        documents=job.size,
        thinking=job.settings.thinking,
        truncate_length=job.truncate_length(outcome.family),
        reference={
            "name": reference.label,
            "variant": asdict(Variant.from_label(reference.label)),
            "ran": outcome.description,
            "size": outcome.size,
            _MEASURE: statistics.fmean(base.values()),
            "documents_per_second": outcome.rate,
        },
        runs=runs,
    )
    compared = hashlib.blake2b(repr([run["name"] for run in runs]).encode(), digest_size=3)
    name = f"fidelity-{file_name(reference.label)}-{file_name(job.collection.name)}"
    name += f"-{outcome.key}-{compared.hexdigest()}.json"
    write_json(folder / RECORDS / name, made)
    return made


def _by_query(outcome: Outcome, job: Job) -> dict[str, float]:
    return measures_by_query(document_ids(outcome.ranking()), job.collection, _DEPTH)[_MEASURE]


def _divergences(these: Distributions, expected: Distributions) -> dict[str, float | None]:
    pairs = [(these[key], expected[key]) for key in expected if key in these]
    if not pairs:
        return {"kl": None, "kl_95": None, "same_answer": None}
    found = [divergence(a, b) for a, b in pairs]
    return {
        "kl": statistics.fmean(found),
        "kl_95": float(np.percentile(found, 95)),
        "same_answer": statistics.fmean(np.argmax(a) == np.argmax(b) for a, b in pairs),
    }


def _scatter(these: Outcome, reference: Outcome) -> list[list[float]]:
    """Return (reference's rank score, this one's) of documents taken evenly from all."""
    points = [
        [round(float(b["rank_score"] or 0), 3), round(float(a["rank_score"] or 0), 3)]
        for a, b in zip(these.all(), reference.all(), strict=True)
    ]
    step = max(1, -(-len(points) // _POINTS))
    return points[::step]


def table(found: Record) -> tuple[list[str], list[list[str]]]:
    """Return the head and rows of what matters most in a record, for people."""

    def cells(run: dict[str, Any]) -> list[str]:
        low, high = run["interval"]
        return [
            run["name"] + " (floor)" * run["floor"],
            "-" if run["size"] is None else f"{run['size'] / 1e6:.0f}",
            f"{run['same']:.1%}",
            f"{run['difference']:.3f}",
            f"{run['tau']:.3f}",
            f"{run['change']:+.3f} [{low:+.3f} {high:+.3f}]",
            "-" if run["kl"] is None else f"{run['kl']:.4f}",
        ]

    head = ["run", "MB", "same", "|Δ|", "tau", f"Δ {_MEASURE} [95 %]", "KL"]
    return head, [cells(run) for run in found["runs"]]
