"""The first stage: BM25 as in the paper, or somebody else's run; and the files of runs."""

from __future__ import annotations

import gzip
import json
import logging
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.errors import InputError, missing_extra
from erank_lite.text.words import STOP_WORDS, WORD, Stemmer, without_possessives
from erank_lite.util.files import atomic, name_like
from erank_lite.util.json_lines import fault

Candidates = dict[str, list[tuple[str, float]]]
"""For each query the documents found, best first, with the scores of the first stage."""

PAPER_DEPTH = 100
BM25 = "BM25 (k1 0.9, b 0.4, Porter)"
"""Pyserini's defaults, by which the paper's first stages were made (arXiv 2509.00520)."""

BM25_VERSION = 2
"""Raised where BM25 ranks otherwise than before, so that runs that are kept are made again."""

_K1, _B = 0.9, 0.4
_STEP = 1e-5  # more than a 32-bit float parts at 10, which is what trec_eval reads


def bm25(collection: Collection, depth: int) -> Candidates:
    """Return BM25's first `depth` documents of each query, without those that are excluded.

    Raises:
        ModelError: the extra `eval` is not installed.
    """
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise missing_extra("BM25", str(error.name), "eval") from None

    logging.getLogger("bm25s").setLevel(logging.ERROR)  # it reports each step
    porter = Stemmer("BM25", "eval")

    def words(texts: list[str]) -> Any:
        return bm25s.tokenize(
            [without_possessives(text) for text in texts],
            token_pattern=WORD,
            stopwords=STOP_WORDS,
            stemmer=porter.stems,
            show_progress=False,
        )

    ids: list[str] = []
    texts: list[str] = []
    for name, text in collection.read():
        ids.append(name)
        texts.append(text)
    index = bm25s.BM25(k1=_K1, b=_B, method="lucene")
    index.index(words(texts), show_progress=False)
    del texts
    asked = words(list(collection.queries.values()))
    found: Candidates = {}
    tokens = bm25s.tokenization.convert_tokenized_to_string_list(asked)
    for query, terms in zip(collection.queries, tokens, strict=True):
        excluded = collection.excluded.get(query, frozenset())
        scores = index.get_scores(terms) if terms else np.zeros(0, np.float32)
        best = _best(scores, depth + len(excluded))
        kept = [(ids[i], float(scores[i])) for i in best if ids[i] not in excluded]
        found[query] = kept[:depth]
    return found


def _best(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the indices of the `count` highest scores above 0; of equals, the first."""
    if len(scores) > count:
        lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = np.flatnonzero((scores >= lowest) & (scores > 0))
    else:
        found = np.flatnonzero(scores > 0)
    return [int(i) for i in found[np.lexsort((found, -scores[found]))][:count]]


def own_candidates(collection: Collection, depth: int) -> Candidates:
    """Return the documents that the collection itself names, in its order, scored by their ranks.

    FollowIR's lists come without scores.
    """
    assert collection.candidates is not None
    return {
        query: [(name, -float(rank)) for rank, name in enumerate(names[:depth], 1)]
        for query, names in collection.candidates.items()
    }


def candidates_from_run(path: Path, collection: Collection, depth: int) -> Candidates:
    """Return the first `depth` documents of each query by a saved run, without those excluded.

    In the order in which trec_eval reads them: by their scores in 32 bits, of equals the greater id
    first. The order of the lines and their ranks do not count.

    Raises:
        InputError: the file cannot be read, or has none of the collection's queries.
    """
    run = read_run(path)
    found: Candidates = {}

    def key(pair: tuple[str, float]) -> tuple[np.float32, str]:
        with np.errstate(over="ignore"):  # in C, what 32 bits do not hold is infinite
            return np.float32(pair[1]), pair[0]

    for query in collection.queries:
        excluded = collection.excluded.get(query, frozenset())
        scored = run.get(query, {}).items()
        ranked = sorted(scored, key=key, reverse=True)
        found[query] = [(name, score) for name, score in ranked if name not in excluded][:depth]
    if not any(found.values()):
        raise InputError(f"`{path}` has none of the {len(found)} queries of {collection.name}")
    return found


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Return the scores of a run, by query and document.

    A TREC run (`QUERY Q0 DOCUMENT RANK SCORE TAG`); or, where the name ends in .json, an object
    `{QUERY: {DOCUMENT: SCORE}}`, as BRIGHT's and ReasonIR's `run.py` write `score.json`. A file
    whose name ends further in .gz is decompressed.

    Raises:
        InputError: the file cannot be read; the message names the line, or the query.

    Example:
        >>> _ = Path("score.json").write_text('{"q1": {"d1": 0.71, "d2": 0.64}}')
        >>> read_run(Path("score.json"))
        {'q1': {'d1': 0.71, 'd2': 0.64}}
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else "it is damaged"
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8"
        raise InputError(f"`{path}` cannot be read: {reason}", name_like(path)) from None
    if path.name.removesuffix(".gz").endswith(".json"):
        return _scores_of_json(path, text)
    return _scores_of_trec(path, text)


def _scores_of_trec(path: Path, text: str) -> dict[str, dict[str, float]]:
    run: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            query, _, document, _, score, *_ = line.split()
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"`{path}`, line {number}: not a line of a TREC run: {line[:60]!r}",
                "write QUERY Q0 DOCUMENT RANK SCORE TAG",
            )
        if document in run.setdefault(query, {}):
            raise InputError(f"`{path}`, line {number}: {document} comes twice for query {query}")
        run[query][document] = value
    return run


def _scores_of_json(path: Path, text: str) -> dict[str, dict[str, float]]:
    shape = "write {QUERY: {DOCUMENT: SCORE}}"
    try:
        run = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is not valid JSON: {fault(error)}", shape) from None
    if not isinstance(run, dict):
        raise InputError(f"`{path}` is no object of queries", shape)
    for query, scores in run.items():
        if not isinstance(scores, dict):
            raise InputError(f"`{path}`: query {query} has no object of scores", shape)
        for document, score in scores.items():
            if not (isinstance(score, float) and math.isfinite(score)):
                raise InputError(
                    f"`{path}`: the score of {document} for query {query} is no number", shape
                )
    return run


def write_run(path: Path, run: Mapping[str, Iterable[tuple[str, float | None]]], tag: str) -> None:
    """Write a TREC run whose scores keep the order given.

    Where two scores are equal, or there is none, 0.00001 is put between them, so that every reader
    of the file, which breaks ties by its own rules, ranks as this project does.

    Args:
        path: of the file, which appears whole or not at all.
        run: for each query its documents, best first, with their scores.
        tag: the run's name; white space in it becomes "-".

    Raises:
        InputError: the file cannot be written, or an id has white space in it.
    """
    word = "-".join(tag.split()) or "run"
    lines = []
    for query, documents in run.items():
        last = math.inf
        for rank, (document, score) in enumerate(documents, 1):
            if len(f"{query} {document}".split()) != 2:
                raise InputError(
                    f"a TREC run cannot hold the ids {query!r} and {document!r}: an id is one word"
                )
            ceiling = last - max(_STEP, abs(last) * 1e-6) if rank > 1 else math.inf
            last = min(ceiling, 0.0 if score is None else round(score, 6))
            lines.append(f"{query} Q0 {document} {rank} {last:.6f} {word}\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            partial.write_text("".join(lines), "utf-8")
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from None
