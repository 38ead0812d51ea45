"""Measure a model as its users run it: converted to GGUF and reranked by erank_lite.

    python -m training.evaluate MODEL --work WORK --collection FOLDER... --types BF16 Q8_0 Q4_K_M

MODEL is a checkpoint folder, or `erank-tiny` for the one in the package. Prints JSON with

- collections: for each FOLDER in BEIR's layout (WORK/heldout has three, see `training.heldout`),
  nDCG@10 of BM25's first 20 documents (bm25s, English stop words) in the orders of chance, BM25,
  both teachers, the mean of both, the model, and its hybrids with BM25;
- everyday, plain, short: of the 40 queries of everyday.jsonl, whose answers have other words than
  the query, of the 40 of plain.jsonl, whose answers have its words, and the 40 of short.jsonl,
  where all documents are of a few words too, in how many the answer comes first of eight, and the
  mean score of the answers;
- places: of 30 held-out answers, by how much the score differs when the answer stands at the
  start, in the middle or at the end of a document of 600 tokens;
- answers: of 500 held-out pairs of WORK, how many answers were written to their end and read, how
  often each score came, Spearman's correlation of rank scores with the teachers' grades, and how
  many scores are the same without reasoning;
- types: the same pairs by each type against the first one;
- speed: documents per second on those pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bm25s
import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import nDCG
from scipy.stats import spearmanr
from tokenizers import Tokenizer as HFTokenizer

from erank_lite import Reranker, hybrid_scores
from training.examples import HELD_OUT
from training.pairs import read_graded
from training.teachers import TEACHERS, embeddings, teacher
from training.texts import QUERIES, queries, read_rows

_DEPTH = 20
_ANSWERS = 500
_SHUFFLES = 20
_PLACED, _LONG_TOKENS = 30, 600
_ALPHAS = (0.2, 0.5)

Run = dict[str, dict[str, float]]
Job = tuple[str, list[dict[str, Any]]]


def first_stage(folder: Path) -> dict[str, Job]:
    """Return each judged query's text and BM25's first documents for it."""
    documents = read_rows(folder / "corpus.jsonl")
    texts = [f"{d.get('title') or ''} {d['text']}".strip() for d in documents]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    judged = judgements(folder)
    found = {}
    for query in read_rows(folder / "queries.jsonl"):
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


def collection(folder: Path, model: str, work: Path) -> dict[str, float]:
    """Return nDCG@10 of each order."""
    qrels = judgements(folder)
    found = first_stage(folder)
    first = [docs for _, docs in found.values()]

    def quality(run: Run) -> float:
        return ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]

    def by(score: Callable[[dict[str, Any]], float], lists: list[list[dict[str, Any]]]) -> Run:
        # Places, not scores: what the caller sorted stays sorted among equals.
        run = {}
        for query, docs in zip(found, lists, strict=True):
            ordered = sorted(docs, key=lambda d: -score(d))
            run[query] = {d["id"]: -float(place) for place, d in enumerate(ordered)}
        return run

    def by_cosines(cosines: npt.NDArray[np.float64]) -> Run:
        of = {id(d): c for docs, row in zip(first, cosines, strict=True)
              for d, c in zip(docs, row, strict=True)}  # fmt: skip
        return by(lambda d: float(of[id(d)]), first)

    chance = np.random.default_rng(0)
    result = {
        "chance": statistics.mean(
            quality(by(lambda _: chance.random(), first)) for _ in range(_SHUFFLES)
        ),
        "BM25": quality(by(lambda d: d["first_stage_score"], first)),
    }
    of_teachers = [_cosines(list(found.values()), name, work, folder.name) for name in TEACHERS]
    for name, cosines in zip(TEACHERS, of_teachers, strict=True):
        result[name] = quality(by_cosines(cosines))
    result["mean of both"] = quality(by_cosines(np.mean(of_teachers, axis=0)))
    with Reranker(model) as reranker:
        lists = list(reranker.rerank_many(list(found.values())))
    result["model"] = quality(by(lambda d: -d["rank"], lists))
    for alpha in _ALPHAS:
        hybrids = [hybrid_scores(docs, alpha) for docs in lists]
        result[f"model, hybrid {alpha}"] = quality(by(lambda d: -d["rank"], hybrids))
    return {name: round(value, 4) for name, value in result.items()}


def _cosines(jobs: list[Job], name: str, work: Path, collection: str) -> npt.NDArray[np.float64]:
    """Return a teacher's (queries, documents) cosines, kept in WORK for the next model."""
    path = work / "cosines" / f"{collection}-{name}.npy"
    if not path.exists():
        encoder = teacher(name, work)
        of_queries = embeddings(encoder, [query for query, _ in jobs]).astype(np.float64)
        texts = [d["content"] for _, docs in jobs for d in docs]
        of_texts = embeddings(encoder, texts).astype(np.float64).reshape(len(jobs), _DEPTH, -1)
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.einsum("qe,qde->qd", of_queries, of_texts))
    return np.asarray(np.load(path), np.float64)


def first_by_teachers(name: str, work: Path) -> dict[str, int]:
    """Return in how many queries of a file each teacher has the answer first, and both."""
    rows = queries(name)
    found: dict[str, npt.NDArray[np.float64]] = {}
    for model in TEACHERS:
        encoder = teacher(model, work)
        of_queries = embeddings(encoder, [r["query"] for r in rows]).astype(np.float64)
        texts = embeddings(encoder, [d for r in rows for d in r["documents"]]).astype(np.float64)
        texts = texts.reshape(len(rows), -1, texts.shape[-1])
        found[model] = np.einsum("qe,qde->qd", of_queries, texts)
    found["mean of both"] = np.mean([found[model] for model in TEACHERS], axis=0)
    wanted = np.array([r["answer"] for r in rows])
    return {model: int((cosines.argmax(1) == wanted).sum()) for model, cosines in found.items()}


def first_by(name: str, model: str) -> dict[str, Any]:
    """Return in how many queries of a file the answer comes first, and which are missed."""
    rows = queries(name)
    with Reranker(model) as reranker:
        ranked = list(reranker.rerank_many([(r["query"], r["documents"]) for r in rows]))
    missed = [
        r["id"] for r, docs in zip(rows, ranked, strict=True) if docs[0]["index"] != r["answer"]
    ]
    scores = [
        d["score"]
        for r, docs in zip(rows, ranked, strict=True)
        for d in docs
        if d["index"] == r["answer"]
    ]
    return {
        "first": len(rows) - len(missed),
        "of": len(rows),
        "mean score of the answers": round(statistics.mean(scores), 2),
        "missed": missed,
    }


def places(work: Path, tokenizer: HFTokenizer, model: str) -> dict[str, float]:
    """Return the mean difference of the expected place's score from that of the answer alone."""
    texts = {d["id"]: d["text"] for d in read_rows(work / "documents.jsonl")}
    chance = random.Random(0)
    others = chance.sample(sorted(texts), 3_000)
    jobs: list[tuple[str, list[str]]] = []
    for group in read_graded(work / "graded.jsonl")[-HELD_OUT:]:
        identifier, grade = max(group.documents, key=lambda d: d[1])
        if grade < 7 or "+" in identifier or len(jobs) == _PLACED:
            continue
        answer = texts[identifier]
        room = _LONG_TOKENS - len(tokenizer.encode(answer).ids)
        around: list[str] = []
        while room > 0:
            around.append(texts[others.pop()])
            room -= len(tokenizer.encode(around[-1]).ids)
        half = len(around) // 2
        jobs.append(
            (group.query,
             [answer, "\n".join([answer, *around]),
              "\n".join([*around[:half], answer, *around[half:]]), "\n".join([*around, answer])])
        )  # fmt: skip
    with Reranker(model) as reranker:
        ranked = [sorted(docs, key=lambda d: d["index"]) for docs in reranker.rerank_many(jobs)]
    found: dict[str, float] = {"answers": len(jobs)}
    for place, name in enumerate(("start", "middle", "end"), 1):
        differences = [docs[place]["score"] - docs[0]["score"] for docs in ranked]
        found[name] = round(statistics.mean(differences), 2)
        found[f"{name}, mean absolute"] = round(statistics.mean(map(abs, differences)), 2)
        found[f"{name}, within 1.5"] = round(
            sum(abs(d) <= 1.5 for d in differences) / len(differences), 2
        )
    return found


def held_out(work: Path) -> tuple[list[Job], list[float]]:
    """Return `_ANSWERS` pairs that were never trained on, by query, and the teachers' grades."""
    texts = {d["id"]: d["text"] for d in read_rows(work / "documents.jsonl")}
    jobs: list[Job] = []
    grades: list[float] = []
    for group in read_graded(work / "graded.jsonl")[-HELD_OUT:]:
        short = [(i, g) for i, g in group.documents if "+" not in i][: _ANSWERS - len(grades)]
        if short:
            jobs.append((group.query, [{"content": texts[i]} for i, _ in short]))
            grades += [g for _, g in short]
    return jobs, grades


def answers(jobs: list[Job], model: str, thinking: str) -> tuple[list[dict[str, Any]], float]:
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


def summary(results: list[dict[str, Any]], grades: list[float]) -> dict[str, Any]:
    scores = [r["score"] for r in results]
    rank_scores = [r["rank_score"] or 0.0 for r in results]
    return {
        "read": sum(r["failure"] is None and not r["forced"] for r in results) / len(results),
        "how often each score": [scores.count(s) for s in range(11)],
        "correlation": round(float(spearmanr(rank_scores, grades).statistic), 4),
    }


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
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--collection", type=Path, action="extend", nargs="+", default=[])
    parser.add_argument("--types", nargs="+", default=["BF16", "Q8_0", "Q4_K_M"])
    parser.add_argument(
        "--short", action="store_true", help="collections and files of queries only"
    )
    arguments = parser.parse_args()
    first, *others = (f"{arguments.model}:{kind}" for kind in arguments.types)
    work = arguments.work
    report: dict[str, Any] = {
        "llama-cpp-python": version("llama-cpp-python"),
        **{
            name: {"model": first_by(name, first)} | first_by_teachers(name, work)
            for name in QUERIES
        },
        "collections": {f.name: collection(f, first, work) for f in arguments.collection},
    }
    if not arguments.short:
        package = Path(__file__).parents[1] / "erank_lite" / "erank-tiny" / "tokenizer.json"
        report["places"] = places(work, HFTokenizer.from_file(str(package)), first)
        jobs, grades = held_out(work)
        base, pace = answers(jobs, first, "full")
        at_once, pace_at_once = answers(jobs, first, "none")
        report["answers"] = summary(base, grades)
        report["answers"]["without reasoning"] = agreement(at_once, base)
        report["speed"] = {first: round(pace, 1), f"{first}, at once": round(pace_at_once, 1)}
        report["types"] = {}
        for other in others:
            results, pace = answers(jobs, other, "full")
            report["types"][other] = agreement(results, base)
            report["speed"][other] = round(pace, 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
