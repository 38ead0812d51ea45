"""Measure a model as its users run it: converted to GGUF and reranked by erank_lite.

    python -m training.evaluate MODEL --collection FOLDER... --work WORK --types BF16 Q8_0 Q4_K_M

MODEL is a checkpoint folder, or `erank-tiny` for the one in the package. Prints JSON with

- collections: for each FOLDER in BEIR's layout, nDCG@10 of BM25's first 20 documents (bm25s,
  English stop words) in the orders of chance, BM25, the teacher's cosine, the model with and
  without reasoning, and the hybrids of BM25 and the model;
- answers: of 500 held-out pairs of WORK, how many answers were written to their end and read, how
  often each score came, Spearman's correlation of rank scores with the teacher's cosines, and how
  many of the reasonings are true;
- types: the same pairs by each type against the first one;
- speed: documents per second on those pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bm25s
import ir_measures
import numpy as np
from ir_measures import nDCG
from scipy.stats import spearmanr

from erank_lite import Reranker, hybrid_scores
from training.examples import HELD_OUT, reasoning
from training.pairs import embeddings, teacher

_DEPTH = 20
_ANSWERS = 500
_SHUFFLES = 20
_THINKING = {"without reasoning": "none", "with reasoning": "full"}
_ALPHAS = (0.2, 0.5)

Run = dict[str, dict[str, float]]


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def first_stage(folder: Path) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return each judged query's text and BM25's first documents for it."""
    documents = _rows(folder / "corpus.jsonl")
    texts = [f"{d.get('title') or ''} {d['text']}".strip() for d in documents]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    judged = judgements(folder)
    found = {}
    for query in _rows(folder / "queries.jsonl"):
        if query["_id"] in judged:
            words = bm25s.tokenize(query["text"], stopwords="en", show_progress=False)
            places, scores = index.retrieve(words, k=_DEPTH, show_progress=False)
            found[query["_id"]] = (
                query["text"],
                [
                    {"id": documents[p]["_id"], "content": texts[p], "first_stage_score": float(s)}
                    for p, s in zip(places[0], scores[0], strict=True)
                ],
            )
    return found


def judgements(folder: Path) -> dict[str, dict[str, int]]:
    """Return the grade of each judged document, by query."""
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def collection(folder: Path, model: str) -> dict[str, float]:
    """Return nDCG@10 of each order."""
    qrels = judgements(folder)
    found = first_stage(folder)

    def quality(run: Run) -> float:
        return ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]

    def by(score: Callable[[dict[str, Any]], float], lists: list[list[dict[str, Any]]]) -> Run:
        # Places, not scores: what the caller sorted stays sorted among equals.
        run = {}
        for query, docs in zip(found, lists, strict=True):
            ordered = sorted(docs, key=lambda d: -score(d))
            run[query] = {d["id"]: -float(place) for place, d in enumerate(ordered)}
        return run

    first = [docs for _, docs in found.values()]
    chance = np.random.default_rng(0)
    result = {
        "chance": statistics.mean(
            quality(by(lambda _: chance.random(), first)) for _ in range(_SHUFFLES)
        ),
        "BM25": quality(by(lambda d: d["first_stage_score"], first)),
        "teacher": quality(by(_cosines(found), first)),
    }
    for name, thinking in _THINKING.items():
        with Reranker(model, thinking=thinking) as reranker:
            lists = list(reranker.rerank_many(list(found.values())))
        result[name] = quality(by(lambda d: -d["rank"], lists))
        for alpha in _ALPHAS:
            hybrids = [hybrid_scores(docs, alpha) for docs in lists]
            result[f"{name}, hybrid {alpha}"] = quality(by(lambda d: -d["rank"], hybrids))
    return {name: round(value, 4) for name, value in result.items()}


def _cosines(
    found: dict[str, tuple[str, list[dict[str, Any]]]],
) -> Callable[[dict[str, Any]], float]:
    encoder = teacher()
    of_queries = embeddings(encoder, [query for query, _ in found.values()]).astype(np.float32)
    cosines: dict[int, float] = {}
    for vector, (_, docs) in zip(of_queries, found.values(), strict=True):
        vectors = embeddings(encoder, [d["content"] for d in docs]).astype(np.float32)
        cosines |= {id(d): float(c) for d, c in zip(docs, vectors @ vector, strict=True)}
    return lambda d: cosines[id(d)]


def held_out(work: Path) -> tuple[list[tuple[str, list[dict[str, Any]]]], list[float]]:
    """Return `_ANSWERS` pairs that were never trained on, by query, and the teacher's cosines."""
    stored = np.load(work / "pairs.npz")
    queries, documents = _rows(work / "queries.jsonl"), _rows(work / "documents.jsonl")
    of_held_out = np.flatnonzero(stored["pairs"][:, 0] >= len(queries) - HELD_OUT)[:_ANSWERS]
    jobs: dict[int, list[dict[str, Any]]] = {}
    for query, document in stored["pairs"][of_held_out]:
        jobs.setdefault(int(query), []).append({"content": documents[document]["text"]})
    cosines = stored["cosines"][of_held_out].tolist()
    return [(queries[q]["text"], docs) for q, docs in jobs.items()], cosines


def answers(
    jobs: list[tuple[str, list[dict[str, Any]]]], model: str, thinking: str
) -> tuple[list[dict[str, Any]], float]:
    """Return the results in the order of `jobs`, and documents per second."""
    with Reranker(model, thinking=thinking) as reranker:
        reranker.rerank(*jobs[0])  # the first call reads the template's part
        begun = time.perf_counter()
        results = [
            result
            for ranked in reranker.rerank_many(jobs)
            for result in sorted(ranked, key=lambda r: r["index"])
        ]
        return results, len(results) / (time.perf_counter() - begun)


def summary(results: list[dict[str, Any]], cosines: list[float]) -> dict[str, Any]:
    scores = [r["score"] for r in results]
    rank_scores = [r["rank_score"] or 0.0 for r in results]
    return {
        "read": sum(r["failure"] is None and not r["forced"] for r in results) / len(results),
        "how often each score": [scores.count(s) for s in range(11)],
        "correlation": round(float(spearmanr(rank_scores, cosines).statistic), 4),
    }


def truth(results: list[dict[str, Any]], jobs: list[tuple[str, list[dict[str, Any]]]]) -> float:
    """Return the share of reasonings that say what is so."""
    meant = [reasoning(query, doc["content"]) for query, docs in jobs for doc in docs]
    said = [r["reasoning"].strip() for r in results]
    return sum(a == b for a, b in zip(said, meant, strict=True)) / len(said)


def agreement(results: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, float]:
    pairs = list(zip(results, first, strict=True))
    return {
        "same score": sum(a["score"] == b["score"] for a, b in pairs) / len(pairs),
        "mean difference of rank scores": round(
            statistics.mean(abs((a["rank_score"] or 0) - (b["rank_score"] or 0)) for a, b in pairs),
            4,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--collection", type=Path, action="extend", nargs="+", default=[])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--types", nargs="+", default=["BF16", "Q8_0", "Q4_K_M"])
    arguments = parser.parse_args()
    first, *others = (f"{arguments.model}:{kind}" for kind in arguments.types)
    report: dict[str, Any] = {
        "llama-cpp-python": version("llama-cpp-python"),
        "collections": {f.name: collection(f, first) for f in arguments.collection},
    }
    if arguments.work:
        jobs, cosines = held_out(arguments.work)
        report |= {"answers": {}, "types": {}, "speed": {}}
        for name, thinking in _THINKING.items():
            base, pace = answers(jobs, first, thinking)
            report["answers"][name] = summary(base, cosines)
            if thinking == "full":
                report["answers"][name]["true reasonings"] = truth(base, jobs)
            report["speed"][f"{first}, {name}"] = round(pace, 1)
            for other in others:
                results, pace = answers(jobs, other, thinking)
                report["types"][f"{other}, {name}"] = agreement(results, base)
                report["speed"][f"{other}, {name}"] = round(pace, 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
