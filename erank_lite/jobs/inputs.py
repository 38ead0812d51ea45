"""Files of many queries: each is looked through once, and read again query by query.

Held in memory are the places of the queries, not their documents: a file may be larger than it.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.documents import as_documents
from erank_lite.errors import InputError, missing_extra
from erank_lite.util.files import name_like
from erank_lite.util.json_lines import fault

_FORMAT = "each line is an object with id, query and documents (or candidates)"
_IDS = ("id", "docid", "doc_id", "docno", "_id")


@dataclass(frozen=True)
class Query:
    """A query with its documents.

    Attributes:
        number: its place in the input, from 0.
        id: its own.
        text: of the query.
        documents: dicts with `content`; `id` is a text, the place in the list where none is given.
        instruction: its own, or None.
    """

    number: int
    id: str
    text: str
    documents: list[dict[str, Any]]
    instruction: str | None = None


@dataclass(frozen=True)
class Entry:
    """What is held in memory of a query.

    Attributes:
        number: its place in the input, from 0.
        id: its own.
        alike: the same for queries whose prompts have the same beginning.
        documents: how many it has.
        at: where it stands: a byte of the file, or a row.
    """

    number: int
    id: str
    alike: bytes
    documents: int
    at: int


class Queries(ABC):
    """The queries of an input.

    Attributes:
        entries: of those that can be used, in the order of the input.
        mistakes: (where, why) of the others.
        digest: a hash of all that was read.
    """

    entries: list[Entry]
    mistakes: list[tuple[str, str]]
    digest: str

    @abstractmethod
    def read(self, entry: Entry) -> Query:
        """Return a query.

        Raises:
            InputError: the input is not what it was any more.
        """

    def _take(self, records: Iterator[tuple[str, int, Any, bytes]]) -> None:
        """Look through the records, each with where it stands, in words and as a number."""
        self.entries, self.mistakes = [], []
        ids: dict[str, str] = {}
        state = hashlib.blake2b(digest_size=16)
        for where, at, record, raw in records:
            state.update(raw)
            try:
                query = parse(record, len(self.entries) + len(self.mistakes))
                if query.id in ids:
                    raise InputError(f"the id {query.id!r} comes twice, first in {ids[query.id]}")
            except InputError as error:
                self.mistakes.append((where, error.message))
                continue
            ids[query.id] = where
            alike = hashlib.blake2b(
                repr((query.text, query.instruction)).encode(), digest_size=8
            ).digest()
            self.entries.append(Entry(query.number, query.id, alike, len(query.documents), at))
        self.digest = state.hexdigest()


class JsonLines(Queries):
    """A file of lines: `{"id": …, "query": …, "documents": […], "instruction": …}`."""

    def __init__(self, path: Path) -> None:
        """Look through the file.

        Raises:
            InputError: it cannot be read.
        """
        self._path = path
        try:
            self._file = path.open("rb")
            self._take(self._records())
        except OSError as error:
            reason = f"`{path}` cannot be read: {error.strerror}"
            raise InputError(reason, name_like(path)) from None

    def _records(self) -> Iterator[tuple[str, int, Any, bytes]]:
        at = 0
        for number, line in enumerate(self._file, 1):
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield f"line {number}", at, line, line
            at += len(line)

    def read(self, entry: Entry) -> Query:
        """Return a query; see `Queries.read`."""
        try:
            self._file.seek(entry.at)
            query = parse(self._file.readline(), entry.number)
        except (OSError, InputError):
            query = None
        if query is None or query.id != entry.id:
            raise InputError(f"`{self._path}` was changed while it was read", "start again")
        return query


class Parquet(Queries):
    """A Parquet file with the columns `id`, `query`, `documents`, and perhaps `instruction`.

    `documents` is a list of texts, or of structs with `content` or `text` and perhaps `id`.
    """

    def __init__(self, path: Path) -> None:
        """Look through the file.

        Raises:
            InputError: it cannot be read.
            ModelError: pyarrow is not installed.
        """
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ModuleNotFoundError:
            raise missing_extra("Parquet", "pyarrow", "eval") from None
        self._path, self._group = path, -1
        self._rows: list[dict[str, Any]] = []
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, arrow.ArrowInvalid) as error:
            number = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(number) if number else str(error)
            raise InputError(f"`{path}` cannot be read: {reason}", name_like(path)) from None
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._take(self._records())

    def _records(self) -> Iterator[tuple[str, int, Any, bytes]]:
        for at in range(self._starts[-1]):
            record = self._row(at)
            yield f"row {at}", at, record, repr(record).encode("utf-8", "surrogatepass")

    def _row(self, at: int) -> dict[str, Any]:
        group = next(g for g, start in enumerate(self._starts[1:]) if at < start)
        if group != self._group:
            self._rows = self._file.read_row_group(group).to_pylist()
            self._group = group
        return self._rows[at - self._starts[group]]

    def read(self, entry: Entry) -> Query:
        """Return a query; see `Queries.read`."""
        return parse(self._row(entry.at), entry.number)


class Run(Queries):
    """A first stage's run over a collection: the documents that it names for each query."""

    def __init__(
        self,
        queries: Mapping[str, str],
        run: Mapping[str, Sequence[tuple[str, float]]],
        texts: Mapping[str, str],
        instruction: str | None = None,
    ) -> None:
        """Take what was read.

        Args:
            queries: the text of each, by id.
            run: for each query (document, score), best first.
            texts: of the documents, by id.
            instruction: of all.
        """
        self._queries, self._texts, self._instruction = queries, texts, instruction
        self._run = [(query, run[query]) for query in queries if run.get(query)]
        self._take(
            (f"query {query}", at, self._record(at), repr(self._record(at)).encode())
            for at, (query, _) in enumerate(self._run)
        )

    def _record(self, at: int) -> dict[str, Any]:
        query, documents = self._run[at]
        return {
            "id": query,
            "query": self._queries[query],
            "documents": [
                {"id": name, "content": self._texts.get(name), "first_stage_score": score}
                for name, score in documents
            ],
            "instruction": self._instruction,
        }

    def read(self, entry: Entry) -> Query:
        """Return a query; see `Queries.read`."""
        return parse(self._record(entry.at), entry.number)


def parse(record: Any, number: int) -> Query:
    """Return the query that a record is, or a line of JSON that holds one.

    Raises:
        InputError: it is none; the message says what is wrong with it.

    Example:
        >>> parse({"id": 7, "query": "bread", "documents": ["a loaf"]}, 0)
        Query(number=0, id='7', text='bread', documents=[{'content': 'a loaf', 'id': '0'}], \
instruction=None)
    """
    if isinstance(record, bytes):
        try:
            record = json.loads(record.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InputError("it is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"it is not JSON: {fault(error)}") from None
    if not isinstance(record, Mapping):
        raise InputError(f"it is {type(record).__name__}; {_FORMAT}")
    name = next((record[key] for key in ("id", "qid", "query_id") if record.get(key) is not None),
                None)  # fmt: skip
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError(f"it has no id; {_FORMAT}")
    text, instruction = record.get("query"), record.get("instruction")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"it has no query; {_FORMAT}")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError("its instruction is no text")
    given = record.get("documents")
    given = record.get("candidates") if given is None else given
    if not isinstance(given, list):
        raise InputError(f"it has no documents; {_FORMAT}")
    if not given:
        raise InputError("its list of documents is empty")
    return Query(number, str(name), text, _documents(given), instruction)


def _documents(given: list[Any]) -> list[dict[str, Any]]:
    documents = []
    for place, doc in enumerate(as_documents(given)):
        own: dict[str, Any] = {"content": doc} if isinstance(doc, str) else dict(doc)
        name = next((own[key] for key in _IDS if own.get(key) is not None), place)
        documents.append(own | {"id": str(name)})
    ids = [doc["id"] for doc in documents]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"two of its documents have the id {twice!r}")
    return documents


def open_queries(path: Path) -> Queries:
    """Return the queries of a file: Parquet by its ending, else lines of JSON.

    Raises:
        InputError: the file cannot be read.
        ModelError: what it takes to read it is not installed.
    """
    with suppress(OSError):
        if path.is_dir():
            raise InputError(f"`{path}` is a folder", "give a file, one of lines of JSON")
    return Parquet(path) if path.suffix.lower() == ".parquet" else JsonLines(path)
