"""From what a user names to collections: folders of BEIR, BRIGHT and FollowIR, or `ir_datasets`.

- BEIR: `corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv` (arXiv 2104.08663 and its repository);
- BRIGHT: `documents/SUBSET`, `examples/SUBSET` (arXiv 2407.12883; data set xlangai/BRIGHT);
- FollowIR: `corpus`, `queries`, `instruction`, `qrel_diff`, `top_ranked` and judgements
  (arXiv 2403.15246; data sets jhu-clsp/core17-instructions-mteb, …);
- anything else is a name of `ir_datasets` (ir-datasets.com).
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import textwrap
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.quality.collection import Collection, Texts
from erank_lite.benchmarks.quality.files import Row, grades, ids_of, part, rows
from erank_lite.errors import InputError, missing_extra
from erank_lite.families.erank.prompt import INSTRUCTIONS
from erank_lite.util.units import counted

# Their queries are documents of the collection, and found first by every first stage.
_log = logging.getLogger(__name__)
_QUERIES_AMONG_DOCUMENTS = ("arguana", "quora")
_BRIGHT = {
    "theoremqa_theorems": "theoremqa-t",
    "theoremqa_questions": "theoremqa-q",
}
_FOLLOWIR = ("core17", "news21", "robust04")
_DL_RELEVANT = 2  # TREC DL's passages: grades 2 and 3 are relevant (its overview papers)


def open_collections(name: str) -> list[Collection]:
    """Return the collections that `name` means: one, or every subset of a folder of BRIGHT.

    Args:
        name: a folder; for BRIGHT, `FOLDER/SUBSET` is one of its subsets; else a name that
            `ir_datasets` knows, which downloads it.

    Raises:
        InputError: there is nothing of that name, or it cannot be read.
        ModelError: the extra `eval` is not installed.
    """
    folder = Path(name)
    if folder.is_dir():
        if part(folder, "qrel_diff"):
            return [_followir(folder)]
        if part(folder, "corpus") and part(folder, "queries"):
            return [_beir(folder)]
        subsets = _bright_subsets(folder)
        if subsets:
            return [_bright(folder, subset) for subset in subsets]
        raise InputError(
            f"`{folder}` is not a collection",
            "give a folder of BEIR (corpus.jsonl, queries.jsonl, qrels/test.tsv), BRIGHT "
            "(documents/, examples/) or FollowIR (corpus, queries, qrel_diff)",
        )
    if folder.name in _bright_subsets(folder.parent):
        return [_bright(folder.parent, folder.name)]
    return [_ir_datasets(name)]


def _beir(folder: Path) -> Collection:
    judged = grades(_needed(folder, "qrels/test", "qrels"))
    excluded: dict[str, frozenset[str]] = {}
    queries: dict[str, str] = {}
    for row in rows(_needed(folder, "queries"), ids=["_id"], texts=["text"]):
        query = row["_id"]
        if query in judged:
            _once(queries, query, row["text"], folder)
            excluded[query] = _excluded(row, folder)
    return _collection(
        folder.resolve().name,
        "beir",
        queries,
        partial(_documents, _needed(folder, "corpus")),
        judged,
        excluded,
        folder,
    )


def _documents(files: list[Path]) -> Any:
    for row in rows(files, "text", ids=["_id"], blanks=["title", "text"]):
        yield row["_id"], _titled(row["title"], row["text"])


def _titled(title: str | None, text: str | None) -> str:
    return f"{title or ''} {text or ''}".strip()


def _once(queries: dict[str, str], query: str, text: str, where: Path) -> None:
    if queries.setdefault(query, text) != text:
        raise InputError(f"`{where}`: query {query!r} comes twice, with two different texts")


def _excluded(row: Row, where: Path) -> frozenset[str]:
    """Return the ids that must not be ranked, as BRIGHT names them ("N/A" means none)."""
    metadata = row.get("metadata")
    source = row if "excluded_ids" in row or not isinstance(metadata, dict) else metadata
    return frozenset(ids_of(source, "excluded_ids", where)) - {"N/A"}


def _bright_subsets(folder: Path) -> list[str]:
    names = {f.name.split("-")[0].split(".")[0] for f in (folder / "examples").glob("*")}
    return sorted(n for n in names if part(folder, f"examples/{n}") and not n.startswith("."))


def _bright(folder: Path, subset: str) -> Collection:
    queries: dict[str, str] = {}
    judged, excluded = {}, {}
    for row in rows(_needed(folder, f"examples/{subset}"), "gold_ids", ids=["id"], texts=["query"]):
        query = row["id"]
        _once(queries, query, row["query"], folder)
        judged[query] = dict.fromkeys(ids_of(row, "gold_ids", folder), 1)
        excluded[query] = _excluded(row, folder)
    files = _needed(folder, f"documents/{subset}")
    known = f"bright/{_BRIGHT.get(subset, subset.replace('_', '-'))}"
    if known not in INSTRUCTIONS:
        raise InputError(f"`{folder}`: BRIGHT has no subset {subset!r}")

    def read() -> Texts:
        for row in rows(files, ids=["id"], texts=["content"]):
            yield row["id"], row["content"]

    return _collection(known, known, queries, read, judged, excluded, folder)


def _followir(folder: Path) -> Collection:
    """A topic is asked twice, with its instruction as it was and as it was changed."""
    wanted = {
        row["query-id"]: row["instruction"]
        for row in rows(_needed(folder, "instruction"), ids=["query-id"], texts=["instruction"])
    }
    queries = {
        query: f"{row['text']} {wanted[query]}".strip()
        for row in rows(_needed(folder, "queries"), ids=["_id"], texts=["text"])
        if (query := row["_id"]) in wanted
    }
    candidates = _lists(_needed(folder, "top_ranked"))
    changed = _lists(_needed(folder, "qrel_diff"))
    if not changed:
        raise InputError(f"`{folder}`: qrel_diff names no topic")
    asked = {row["_id"] for row in rows(_needed(folder, "queries"), ids=["_id"])}
    known_by = {"queries": asked, "instruction": wanted, "top_ranked": candidates}
    for topic, which, (name, ids) in product(changed, ("og", "changed"), known_by.items()):
        if f"{topic}-{which}" not in ids:
            raise InputError(f"`{folder}`: {name} lacks '{topic}-{which}', which qrel_diff implies")
    queries = {q: text for q, text in queries.items() if q.rpartition("-")[0] in changed}
    known = next((n for n in _FOLLOWIR if n in folder.resolve().name.lower()), None)
    collection = _collection(
        f"followir/{known}" if known else folder.resolve().name,
        "followir",
        queries,
        partial(_documents, _needed(folder, "corpus")),
        grades(_needed(folder, "qrels", "default", "qrels/test", "data", "test")),
        {},
        folder,
    )
    return Collection(
        **vars(collection) | {"candidates": {q: candidates[q] for q in queries}, "changed": changed}
    )


def _lists(files: list[Path]) -> dict[str, list[str]]:
    return {
        row["query-id"]: ids_of(row, "corpus-ids", files[0])
        for row in rows(files, "corpus-ids", ids=["query-id"])
    }


def _ir_datasets(name: str) -> Collection:
    try:
        import ir_datasets
    except ModuleNotFoundError:
        feature = f"`{name}`, which is not a folder here,"
        raise missing_extra(feature, "ir_datasets", "eval") from None
    try:
        found = ir_datasets.load(name)
    except KeyError:
        close = difflib.get_close_matches(name, list(ir_datasets.registry), 3, cutoff=0.6)
        raise InputError(
            f"`{name}` is neither a folder nor a name that ir_datasets knows",
            f"did you mean {' or '.join(close)}?" if close else None,
        ) from None
    if not (found.has_docs() and found.has_queries() and found.has_qrels()):
        raise InputError(
            f"`{name}` has no documents, queries and judgements of its own", "name a part of it"
        )
    judged: dict[str, dict[str, int]] = {}
    with _reading(name):
        for row in found.qrels_iter():
            judged.setdefault(row.query_id, {})[row.doc_id] = int(row.relevance)
        queries = {
            q.query_id: q.default_text() for q in found.queries_iter() if q.query_id in judged
        }

    def read() -> Texts:
        with _reading(name):
            for document in found.docs_iter():
                title, text = getattr(document, "title", None), getattr(document, "text", None)
                whole = document.default_text() if text is None else _titled(title, text)
                yield document.doc_id, whole

    deep = "trec-dl" in name
    collection = _collection(
        name, "trec-dl" if deep else "beir", queries, read, judged, {}, Path(name)
    )
    return Collection(**vars(collection) | {"min_relevant": _DL_RELEVANT if deep else 1})


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what keeps ir_datasets from downloading or reading into one clear error."""
    try:
        yield
    # It reads a hundred collections by as many libraries: there is nothing narrower.
    except Exception as error:
        reason = textwrap.shorten(str(error), 240, placeholder=" …") or type(error).__name__
        raise InputError(
            f"ir_datasets cannot fetch `{name}`: {reason}",
            "see its page on ir-datasets.com for what to download by hand",
        ) from None


def _collection(
    name: str,
    benchmark: str,
    queries: Mapping[str, str],
    read: Any,
    judged: Mapping[str, Mapping[str, int]],
    excluded: Mapping[str, frozenset[str]],
    where: Path,
) -> Collection:
    if not queries:
        raise InputError(f"`{where}` has no judged query")
    missing = [q for q in judged if q not in queries]
    if missing and benchmark != "followir":
        _log.warning(
            "`%s`: left out are the judgements of %s that %s not there, %r first",
            where, counted(len(missing), "query"), "is" if len(missing) == 1 else "are", missing[0],
        )  # fmt: skip
    if any(part_ in _QUERIES_AMONG_DOCUMENTS for part_ in name.lower().split("/")):
        excluded = {q: excluded.get(q, frozenset()) | {q} for q in queries}
    return Collection(
        name,
        benchmark,
        queries,
        read,
        {q: judged[q] for q in queries if q in judged},
        {q: ids for q, ids in excluded.items() if ids},
    )


def _needed(folder: Path, *names: str) -> list[Path]:
    found = part(folder, *names)
    if not found:
        raise InputError(f"`{folder}` has no {names[0]} (.jsonl, .tsv or .parquet)")
    return found
