"""How near each engine and quantization is to BF16, as published: on scores and order, not on text.

    python benchmarks/quality/agreement.py MODEL WORK --collection FOLDER \
        --types F32 BF16 Q8_0 Q4_K_M --gptq NAME=FOLDER ...

MODEL is a checkpoint folder, or `erank-tiny`; FOLDER is a collection in BEIR's layout, of which
BM25's first 20 documents of each query are read. The reference is the checkpoint in BF16 by
Transformers, 16 documents together; beside it stand Transformers with 5 together (BF16's own noise:
the same weights, sums taken in another order) and in float32, a GGUF of each type by llama.cpp, and
each GPTQ checkpoint. What a run gave is kept in WORK, and not computed again; --only NAME computes
one alone. Prints JSON; for each run

- same: share of documents with the reference's integer;
- difference: mean absolute difference of rank scores;
- tau: Kendall's tau-b of the rank scores with the reference's, mean over queries;
- nDCG@10, and the change of its mean from the reference's;
- failures: documents without a score; they count as rank score 0;
- documents/s, the loading apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ir_measures
from ir_measures import nDCG
from scipy.stats import kendalltau

from erank_lite import Reranker
from erank_lite.models import checkpoint_folder

sys.path.insert(0, str(Path(__file__).parents[2]))
from training.evaluate import first_stage, judgements

Results = list[list[dict[str, Any]]]
_VERSIONS = ("llama-cpp-python", "torch", "transformers", "gptqmodel")


def rerank(
    queries: list[tuple[str, list[dict[str, Any]]]], model: str, options: dict[str, Any]
) -> tuple[Results, dict[str, Any]]:
    """Return each query's documents in the order that they came in, and how it ran."""
    with Reranker(model, **options) as reranker:
        begun = time.perf_counter()
        lists = [
            sorted(ranked, key=lambda r: r["index"]) for ranked in reranker.rerank_many(queries)
        ]
        took = time.perf_counter() - begun
        ran = reranker.engine.ran
    return lists, {"ran": ran, "documents/s": round(sum(map(len, lists)) / took, 1)}


def quality(lists: Results, found: dict[str, Any], qrels: dict[str, dict[str, int]]) -> float:
    run = {
        query: {d["id"]: -float(d["rank"]) for d in docs}
        for query, docs in zip(found, lists, strict=True)
    }
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def compared(lists: Results, reference: Results) -> dict[str, float]:
    pairs = [
        (a, b)
        for one, other in zip(lists, reference, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    taus = []
    for one, other in zip(lists, reference, strict=True):
        tau = kendalltau([_rank_score(d) for d in one], [_rank_score(d) for d in other]).statistic
        if tau == tau:  # all scores equal: no order to compare
            taus.append(float(tau))
    return {
        "same": round(sum(a["score"] == b["score"] for a, b in pairs) / len(pairs), 4),
        "difference": round(
            statistics.mean(abs(_rank_score(a) - _rank_score(b)) for a, b in pairs), 4
        ),
        "tau": round(statistics.mean(taus), 4),
        "failures": sum(a["failure"] is not None for a, _ in pairs),
    }


def _rank_score(document: dict[str, Any]) -> float:
    return float(document["rank_score"] or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("work", type=Path)
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--types", nargs="*", default=["F32", "BF16", "Q8_0", "Q4_K_M"])
    parser.add_argument("--gptq", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--thinking", default="full")
    parser.add_argument("--threads", type=int, help="of the processor, for each engine")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    found, qrels = first_stage(arguments.collection), judgements(arguments.collection)
    queries = list(found.values())
    folder = str(checkpoint_folder(arguments.model))
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "BF16": (folder, {"engine": "transformers"}),
        "BF16, 5 together": (folder, {"engine": "transformers", "sequences": 5}),
        "float32": (folder, {"engine": "transformers", "dtype": "float32"}),
    }
    for kind in arguments.types:
        runs[f"GGUF {kind}"] = (f"{arguments.model}:{kind}", {"engine": "llama.cpp"})
    for pair in arguments.gptq:
        name, _, path = pair.partition("=")
        runs[f"GPTQ {name}"] = (path, {"engine": "gptq"})
    report: dict[str, Any] = {
        "machine": f"{platform.system()} {platform.machine()}, {platform.processor() or '?'}",
        "versions": {name: version(name) for name in _VERSIONS},
        "collection": arguments.collection.name,
        "documents": sum(len(docs) for _, docs in queries),
        "thinking": arguments.thinking,
        "runs": {},
    }
    reference: Results = []
    base = 0.0
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or runs:
        file = arguments.work / f"{name}.json"
        if not file.is_file():
            model, options = runs[name]
            options |= {"thinking": arguments.thinking, "threads": arguments.threads}
            kept = rerank(queries, model, options)
            file.write_text(json.dumps(kept))
    for name in runs if arguments.only is None else ():
        lists, how = json.loads((arguments.work / f"{name}.json").read_text())
        reference = reference or lists
        gain = quality(lists, found, qrels)
        base = base or gain
        figures = {"nDCG@10": round(gain, 4), "change": round(gain - base, 4)}
        report["runs"][name] = compared(lists, reference) | figures | how
    if arguments.only is None:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
