"""An index of files: what is written in them, by passages, found by BM25.

One SQLite database in the user's cache, for the user alone (0600), whose search is SQLite's FTS5
(https://www.sqlite.org/fts5.html) over the words that `text.words` makes; Chinese and Japanese
characters are indexed alone and in pairs. Nothing is written to the folders that are searched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from erank_lite.errors import InputError, ModelError, missing_extra
from erank_lite.search.chunks import Chunk, chunks
from erank_lite.search.file import index_file
from erank_lite.search.files import FOREIGN, FileText, NoText, NotNow, Unreadable, read_file
from erank_lite.search.foreign import read_foreign
from erank_lite.search.walk import walk
from erank_lite.text.words import ALONE, Stemmer
from erank_lite.util.reporter import SILENT, Reporter

_VERSION = 1
_WAIT = 30.0  # seconds for another process that brings the index up to date
_TOGETHER = 64  # files that are kept at once: what an interruption may cost
_UNSURE = 2_000_000_000  # nanoseconds within which a file may change again and keep its time
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, changed INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, unit TEXT, failure TEXT
);
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files (id), heading TEXT NOT NULL,
    first INTEGER, places TEXT, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_file ON chunks (file);
CREATE VIRTUAL TABLE IF NOT EXISTS terms USING fts5 (
    words, content='', tokenize="unicode61 remove_diacritics 0 tokenchars '''.\u2019_'"
);
"""


_Changed = tuple[Path, int, int]
"""A file, the time of its last change in nanoseconds, its size in bytes."""


@dataclass(frozen=True)
class Found:
    """A passage that was found.

    Attributes:
        path: of its file.
        heading: what it stands under.
        text: of the passage.
        places: the number of each of its lines in the file, or of its page, cell or message; empty
            where the file has none.
        unit: what these count; None where there are none.
        score: BM25's, higher is better.
    """

    path: Path
    heading: str
    text: str
    places: Sequence[int]
    unit: str | None
    score: float


@dataclass
class Update:
    """What an update did.

    Attributes:
        files: that are in the index now, below the folders given.
        passages: of these.
        read: files that were new, or had changed.
        removed: files that are gone.
        other: files without text, such as images.
        failures: why others could not be read, by path.
    """

    files: int = 0
    passages: int = 0
    read: int = 0
    removed: int = 0
    other: int = 0
    failures: dict[Path, str] = field(default_factory=dict)


class Index:
    """The index. It is for one thread at a time; several processes may have it open.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     notes = Path(folder, "notes"); notes.mkdir()
        ...     _ = (notes / "bread.md").write_text("# Bread\\n\\nIt stays fresh in a box.\\n")
        ...     with Index(Path(folder, "search.sqlite")) as index:
        ...         update = index.update([notes])
        ...         found = index.search("keep bread fresh", [notes])
        >>> update.read, [(hit.path.name, hit.heading, hit.places[0]) for hit in found]
        (1, [('bread.md', 'Bread', 1)])
    """

    def __init__(self, path: Path | str | None = None) -> None:
        """Open it, or make it.

        Args:
            path: of the database; None means the one in the user's cache.

        Raises:
            ModelError: it cannot be used here, or the extra `search` is not installed.
        """
        self.path = index_file() if path is None else Path(path)
        _check_installed()
        self._stemmer = Stemmer("searching files", "search")
        self._erased = False
        try:
            self._database = self._open()
        except sqlite3.OperationalError as error:
            if "fts5" in str(error):
                raise ModelError(
                    "this Python's SQLite was built without FTS5, which searching needs",
                    "use a Python from python.org, or from your system's packages",
                ) from None
            raise self._unusable(error) from None
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> ModelError:
        hint = "`erank-lite cache clear search` begins anew"
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            hint = "another process brings it up to date: wait for it"
        return ModelError(f"the index `{self.path}` cannot be used: {error}", hint)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Made here, for the user alone: SQLite's own files beside it take its permissions.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(
            self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("PRAGMA secure_delete=ON")  # what was deleted is overwritten
            database.executescript(_TABLES)
            database.execute("BEGIN IMMEDIATE")
            facts = dict(database.execute("SELECT name, value FROM facts"))
            if facts.get("version") != str(_VERSION):
                for table in ("chunks", "files"):
                    database.execute(f"DELETE FROM {table}")
                database.execute("INSERT INTO terms (terms) VALUES ('delete-all')")
                database.execute(
                    "INSERT OR REPLACE INTO facts VALUES ('version', ?)", (str(_VERSION),)
                )
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    # Keeping it up to date

    def update(self, folders: Iterable[Path | str], reporter: Reporter = SILENT) -> Update:
        """Bring the index up to date with what is below folders now.

        What is finished is kept, however the update ends; the next one goes on from there.

        Args:
            folders: folders, or single files.
            reporter: shows how many files are looked at.

        Raises:
            InputError: a folder is not there, or cannot be read.
            ModelError: the index cannot be written.
        """
        roots = resolved(folders)
        done = Update()
        try:
            for root in roots:
                self._update(root, done, reporter)
            if self._erased:
                self._tidy()
            for root in roots:
                self._count(root, done)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return done

    def _update(self, root: Path, done: Update, reporter: Reporter) -> None:
        known = {row[0]: row[1:] for row in self._database.execute(
            "SELECT path, id, changed, size, digest FROM files WHERE path >= ? AND path < ? "
            "OR path = ?", (*_below(root), os.fsencode(root)))}  # fmt: skip
        new: list[_Changed] = []
        unreadable: dict[Path, str] = {}
        for path, status in self._files(root, unreadable):
            row = known.pop(os.fsencode(path), None)
            if row is None or row[1:3] != (status.st_mtime_ns, status.st_size):
                new.append((path, status.st_mtime_ns, status.st_size))
        done.failures |= unreadable
        gone = [
            path for path in known
            if not any(os.fsencode(p) == path or path.startswith(os.fsencode(p) + _SEP)
                       for p in unreadable)
        ]  # fmt: skip
        with self._writing():
            for path in gone:
                self._forget(known[path][0])
        done.removed += len(gone)
        if new:
            self._read(new, done, reporter)

    def _files(
        self, root: Path, unreadable: dict[Path, str]
    ) -> Iterator[tuple[Path, os.stat_result]]:
        if root.is_file():
            yield root, root.stat()
            return
        for entry in walk(root, unreadable.__setitem__):
            try:
                yield Path(entry.path), entry.stat()
            except OSError:  # it went away
                continue

    def _read(self, new: list[_Changed], done: Update, reporter: Reporter) -> None:
        foreign = [each for each in new if each[0].suffix.lower() in FOREIGN]
        own = [each for each in new if each[0].suffix.lower() not in FOREIGN]
        count = 0
        for group in (own, foreign):
            for start in range(0, len(group), _TOGETHER):
                part = group[start : start + _TOGETHER]
                texts = self._texts([path for path, _, _ in part], foreign=group is foreign)
                with self._writing():
                    for changed, text in zip(part, texts, strict=True):
                        self._keep(changed, text, done)
                        count += 1
                        reporter.progress("files", count, len(new), "files")

    def _texts(self, paths: list[Path], foreign: bool) -> Iterator[FileText | Unreadable | None]:
        """Yield what is in each file; None where it went away."""
        if foreign:
            for path, text in read_foreign(paths):
                yield text if path.exists() else None
            return
        for path in paths:
            try:
                yield read_file(path)
            except Unreadable as error:
                yield error
            except FileNotFoundError:
                yield None
            except OSError as error:
                yield NotNow(error.strerror or str(error))

    def _keep(self, found: _Changed, text: FileText | Unreadable | None, done: Update) -> None:
        path, time_ns, size = found
        name = os.fsencode(path)
        old = self._database.execute(
            "SELECT id, digest FROM files WHERE path = ?", (name,)
        ).fetchone()
        if text is None:
            if old is not None:
                self._forget(old[0])
            return
        # A file that changed just now may change again without another time: look anew.
        unsure = time.time_ns() - time_ns < _UNSURE
        changed = 0 if unsure or isinstance(text, NotNow) else time_ns
        failure = str(text) if isinstance(text, Unreadable) else None
        other = isinstance(text, NoText)
        digest = _digest(text)
        if old is not None and old[1] == digest:
            self._database.execute(
                "UPDATE files SET changed = ?, size = ? WHERE id = ?",
                (changed, size, old[0]),
            )
            return
        done.read += not other and failure is None
        if old is not None:
            self._forget(old[0])
        unit = None if isinstance(text, Unreadable) else text.unit
        file = self._database.execute(
            "INSERT INTO files (path, changed, size, digest, unit, failure) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (name, changed, size, digest, unit, "" if other else failure),
        ).lastrowid
        if not isinstance(text, Unreadable):
            for chunk in chunks(text):
                self._add(file, path, chunk)

    def _add(self, file: int | None, path: Path, chunk: Chunk) -> None:
        lines = isinstance(chunk.places, range)
        places = None if lines else json.dumps(chunk.places)
        added = self._database.execute(
            "INSERT INTO chunks (file, heading, first, places, text) VALUES (?, ?, ?, ?, ?)",
            (file, _stored(chunk.heading), chunk.places[0] if lines else None, places,
             _stored(chunk.text)),
        )  # fmt: skip
        terms = self._terms(path, _stored(chunk.heading), _stored(chunk.text))
        self._database.execute(
            "INSERT INTO terms (rowid, words) VALUES (?, ?)", (added.lastrowid, terms)
        )

    def _forget(self, file: int) -> None:
        """Take a file out of the index, and its words."""
        self._erased = True
        path = self._database.execute("SELECT path FROM files WHERE id = ?", (file,)).fetchone()[0]
        for row, heading, text in self._database.execute(
            "SELECT id, heading, text FROM chunks WHERE file = ?", (file,)
        ).fetchall():
            terms = self._terms(Path(os.fsdecode(path)), heading, text)
            self._database.execute(
                "INSERT INTO terms (terms, rowid, words) VALUES ('delete', ?, ?)", (row, terms)
            )
        self._database.execute("DELETE FROM chunks WHERE file = ?", (file,))
        self._database.execute("DELETE FROM files WHERE id = ?", (file,))

    def _terms(self, path: Path, heading: str, text: str) -> str:
        """Return the words by which a passage is found: its file's name and headings count."""
        name = path.stem.replace("_", " ").replace("-", " ")
        return " ".join(self._stems(f"{_stored(name)}\n{heading}\n{text}"))

    def _stems(self, text: str) -> Iterator[str]:
        """Yield a text's words; of characters that are words alone, each pair as well."""
        before = ""
        for term in self._stemmer.terms(text):
            yield term
            alone = term if _is_alone(term) else ""
            if before and alone:
                yield before + alone
            before = alone

    def _tidy(self) -> None:
        """Let nothing of what was deleted stay behind in the words' own tables and the journal."""
        self._database.execute("INSERT INTO terms (terms) VALUES ('optimize')")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._erased = False

    def _count(self, root: Path, done: Update) -> None:
        where = "(path >= ? AND path < ? OR path = ?)"
        names = (*_below(root), os.fsencode(root))
        for path, failure in self._database.execute(
            f"SELECT path, failure FROM files WHERE {where} AND failure IS NOT NULL", names
        ):
            if failure:
                done.failures[Path(os.fsdecode(path))] = failure
            else:
                done.other += 1
        done.files += self._one(
            f"SELECT count(*) FROM files WHERE {where} AND failure IS NULL", names
        )
        done.passages += self._one(
            f"SELECT count(*) FROM chunks JOIN files ON files.id = file WHERE {where}", names
        )

    # Looking things up

    def search(
        self, query: str, folders: Iterable[Path | str] | None = None, count: int = 20
    ) -> list[Found]:
        """Return the passages that BM25 finds, best first.

        Args:
            query: what to look for.
            folders: below which; None for all that was ever indexed.
            count: how many at most.

        Raises:
            InputError: the query is empty.
            ModelError: the index cannot be read.
        """
        wanted = list(dict.fromkeys(self._stems(query)))
        wanted = wanted or [word.lower() for word in query.split()]
        if not query.strip():
            raise InputError("the query is empty", "give the words to look for")
        match = " OR ".join('"' + term.replace('"', '""') + '"' for term in wanted)
        where, names = "", []
        if folders is not None:
            roots = [Path(folder).expanduser().resolve() for folder in folders]
            parts = ["(path >= ? AND path < ? OR path = ?)"] * len(roots)
            where = f"AND ({' OR '.join(parts)})"
            names = [name for root in roots for name in (*_below(root), os.fsencode(root))]
        try:
            rows = self._database.execute(
                "SELECT path, heading, text, first, places, unit, bm25(terms) AS cost FROM terms "
                "JOIN chunks ON chunks.id = terms.rowid JOIN files ON files.id = chunks.file "
                f"WHERE terms MATCH ? {where} ORDER BY cost, chunks.id LIMIT ?",
                (match, *names, count),
            ).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return [_found(row) for row in rows]

    @property
    def stemmer(self) -> Stemmer:
        """What makes words of texts."""
        return self._stemmer

    def read(self, path: Path, first: int, count: int) -> list[str]:
        """Return lines of a file as the index has them.

        Args:
            path: of the file.
            first: number of the first line, page, cell or message.
            count: how many lines at most.

        Raises:
            InputError: the index does not have the file.
        """
        name = os.fsencode(path)
        if self._database.execute("SELECT 1 FROM files WHERE path = ?", (name,)).fetchone() is None:
            raise InputError(f"`{path}` is not in the index", "give a path that a search found")
        lines: list[str] = []
        for text, start, places in self._database.execute(
            "SELECT text, first, places FROM chunks "
            "JOIN files ON files.id = chunks.file WHERE path = ? ORDER BY chunks.id", (name,)
        ):  # fmt: skip
            split = text.split("\n")
            numbers = _places(start, places, len(split)) or [first] * len(split)
            lines += [line for line, at in zip(split, numbers, strict=False) if at >= first]
        return lines[:count]

    def __len__(self) -> int:
        return self._one("SELECT count(*) FROM files WHERE failure IS NULL", ())

    def _one(self, question: str, values: Sequence[Any]) -> int:
        return int(self._database.execute(question, values).fetchone()[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def resolved(folders: Iterable[Path | str]) -> list[Path]:
    """Return folders without those that lie in others, links resolved.

    Raises:
        InputError: one is not there, or there are none.
    """
    found: list[Path] = []
    for folder in folders:
        path = Path(folder).expanduser()
        if not path.exists():
            raise InputError(f"there is no folder or file `{folder}`", "check the path")
        found.append(path.resolve())
    if not found:
        raise InputError("no folder is given", "name the folders to search")
    roots = sorted(set(found))
    return [p for p in roots if not any(p != q and p.is_relative_to(q) for q in roots)]


_SEP = os.fsencode(os.sep)
_ALONE = re.compile(f"[{ALONE}]")


def _below(root: Path) -> tuple[bytes, bytes]:
    """Return the names between which those of a folder's files lie."""
    begin = os.fsencode(root).rstrip(_SEP) + _SEP
    return begin, begin[:-1] + bytes([begin[-1] + 1])


def _found(row: Sequence[Any]) -> Found:
    path, heading, text, first, places, unit, cost = row
    numbers = _places(first, places, text.count("\n") + 1)
    return Found(Path(os.fsdecode(path)), heading, text, numbers, unit, -cost)


def _places(first: int | None, places: str | None, count: int) -> Sequence[int]:
    if first is not None:
        return range(first, first + count)
    return json.loads(places) if places else []


def _is_alone(term: str) -> bool:
    return len(term) == 1 and _ALONE.match(term) is not None


def _stored(text: str) -> str:
    """Return a text as SQLite can hold it: without halves of characters."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _digest(text: FileText | Unreadable) -> bytes:
    if isinstance(text, Unreadable):
        return repr((type(text).__name__, str(text))).encode()
    state = hashlib.blake2b(text.text.encode("utf-8", "surrogatepass"), digest_size=16)
    state.update(repr((text.markdown, text.unit, text.places)).encode())
    return state.digest()


def _check_installed() -> None:
    from importlib.util import find_spec

    for name in ("pathspec", "semantic_text_splitter", "pypdfium2", "mammoth"):
        if find_spec(name) is None:
            raise missing_extra("searching files", name, "search")
