"""Scores in the user's cache, found by all that decides them.

One SQLite file, for the user alone. It holds no text: a result is found by a keyed hash (HMAC) of
the model, of how it runs, and of the tokens that it read, whose key is a secret of the file. The
reasoning quotes documents, and is kept only where that is asked for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from erank_lite.errors import ErankLiteError
from erank_lite.models.cache import CachedFile, kept_database, remove_database
from erank_lite.types import Score
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.units import counted

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_NAME = "results.sqlite"
_VERSION = 1
_MAX_BYTES = 256 * 1024**2
_WAIT = 1.0  # seconds for another process that writes
_EVERY = 512  # results after which the size is looked at
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    key BLOB PRIMARY KEY, used INTEGER NOT NULL, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON results (used);
"""


KEPT_AS = "results"
"""What the results are called in the list of what the cache holds."""


def kept_results() -> list[CachedFile]:
    """Return the file of results, as the list of what the cache holds has it; none where it is not.

    Raises:
        ModelError: there is no cache.
    """
    path = results_file()
    if not path.is_file():
        return []
    with ResultStore(path) as store:
        count = len(store)
    return [kept_database(KEPT_AS, counted(count, "document"), path)]


def clear_results() -> int:
    """Remove the file of results, and return the bytes that it had.

    Raises:
        ModelError: there is no cache, or it cannot be removed.
    """
    return remove_database(results_file())


def results_file() -> Path:
    """Return where results are kept.

    Raises:
        ModelError: there is no cache.
    """
    return cache_folder() / _NAME


@dataclass(frozen=True)
class KeptScore:
    """A score with what it took.

    Attributes:
        score: what was read.
        tokens: that the model wrote.
        engine: what computed it.
    """

    score: Score
    tokens: int
    engine: str


class ResultStore:
    """The results that are kept. It may be used from several threads, and processes.

    What is wrong with the file is no error of a caller's: nothing is then found, and nothing kept.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> score = Score(7, 0.9, 6.8, "It answers.", False, None, "<answer>7</answer>")
        >>> with ResultStore(Path(folder.name) / "results.sqlite") as store:
        ...     key = store.key({"weights": "4f1a"}, [1, 2, 3])
        ...     store.put(key, KeptScore(score, 40, "llama.cpp on the CPU"))
        ...     found = store.get(key)
        ...     found.score.rank_score == score.rank_score, found.score.reasoning, len(store)
        (True, '', 1)
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path | str | None = None,
        keep_reasoning: bool = False,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Open the file, or make it.

        Args:
            path: of the file; None means the one in the user's cache.
            keep_reasoning: keep what the model wrote too; results without it are then not found.
            max_bytes: how large the file may grow; what was not used for the longest goes first.
        """
        self._reasoning, self._max_bytes = keep_reasoning, max_bytes
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._secret = b""
        self._added = 0
        try:
            self.path = results_file() if path is None else Path(path)
            self._database = self._open(self.path)
        except (ErankLiteError, OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _open(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made here, for the user alone: SQLite's own files beside it take its permissions.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(
            path, timeout=_WAIT, check_same_thread=False, isolation_level=None
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_TABLES)
            # One process at a time: two that begin at once must have the same secret.
            database.execute("BEGIN IMMEDIATE")
            facts = dict(database.execute("SELECT name, value FROM facts"))
            version = str(_VERSION).encode()
            if facts.get("version") != version or not isinstance(facts.get("secret"), bytes):
                database.execute("DELETE FROM results")
                facts = {"version": version, "secret": secrets.token_bytes(32)}
                database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            database.execute("COMMIT")
            self._secret = facts["secret"]
        except BaseException:
            database.close()
            raise
        return database

    def key(self, facts: dict[str, Any], ids: Sequence[int]) -> bytes:
        """Return what a result is found by.

        Args:
            facts: all that decides it beside the tokens, as JSON has it.
            ids: of the prompt.
        """
        text = json.dumps(facts, sort_keys=True).encode() + b"\0" + array("I", ids).tobytes()
        return hmac.digest(self._secret, text, hashlib.sha256)

    def get(self, key: bytes) -> KeptScore | None:
        """Return what is kept under a key; None where nothing is."""

        def find(database: sqlite3.Connection) -> KeptScore | None:
            row = database.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            try:
                found = json.loads(row[0])
                score = Score(**({"reasoning": "", "completion": ""} | found["score"]))
                tokens, engine = int(found["tokens"]), str(found["engine"])
            except (ValueError, KeyError, TypeError):  # somebody edited it
                database.execute("DELETE FROM results WHERE key = ?", (key,))
                return None
            if self._reasoning and "reasoning" not in found["score"]:
                return None
            now = (time.time_ns(), key)
            database.execute("UPDATE results SET used = ? WHERE key = ?", now)
            return KeptScore(score, tokens, engine)

        return self._do(find, None)

    def put(self, key: bytes, kept: KeptScore) -> None:
        """Keep a result, in place of the one that is there."""
        value = asdict(kept)
        if not self._reasoning:
            del value["score"]["reasoning"], value["score"]["completion"]
        row = (key, time.time_ns(), json.dumps(value))

        def add(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", row)
            self._added += 1
            if self._added % _EVERY == 0:
                self._shrink(database)

        self._do(add, None)

    def _shrink(self, database: sqlite3.Connection) -> None:
        """Let go of what was not used for the longest, down to nine tenths of what is allowed."""
        pages, free, page = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        size = (pages - free) * page
        if size > self._max_bytes:
            count = database.execute("SELECT count(*) FROM results").fetchone()[0]
            gone = count - int(count * 0.9 * self._max_bytes / size)
            oldest = "SELECT key FROM results ORDER BY used LIMIT ?"
            database.execute(f"DELETE FROM results WHERE key IN ({oldest})", (gone,))

    def __len__(self) -> int:
        return self._do(
            lambda database: int(database.execute("SELECT count(*) FROM results").fetchone()[0]), 0
        )

    def clear(self) -> None:
        """Forget all results."""

        def forget(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM results")
            database.execute("VACUUM")

        self._do(forget, None)

    def _do(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Return what comes of the database; where it fails, it is left alone from then on."""
        with self._lock:
            if self._database is None:
                return otherwise
            try:
                return work(self._database)
            except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
                self._give_up(error)
                return otherwise

    def _give_up(self, error: Exception) -> None:
        where = getattr(self, "path", None) or _NAME
        hint = "`erank-lite cache clear results` begins anew"
        _log.warning("results are not kept: `%s`: %s; %s", where, error, hint)
        if self._database is not None:
            self._database.close()
            self._database = None

    def close(self) -> None:
        """Close the file."""
        if self._added:
            self._do(self._shrink, None)
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
