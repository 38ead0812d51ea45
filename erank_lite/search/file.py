"""Where the index of one's files lies, and how it is removed; nothing else is needed for that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from erank_lite.models.cache import CachedFile, kept_database, remove_database
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.units import counted

KEPT_AS = "search"
"""What the index is called in the list of what the cache holds."""


def index_file() -> Path:
    """Return where the user's index is.

    Raises:
        ModelError: there is no cache.
    """
    return cache_folder() / "search.sqlite"


def kept_index() -> list[CachedFile]:
    """Return the index, as the list of what the cache holds has it; none where it is not.

    Raises:
        ModelError: there is no cache.
    """
    path = index_file()
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            count = database.execute("SELECT count(*) FROM files WHERE failure IS NULL").fetchone()
        what = counted(int(count[0]), "file")
    except sqlite3.Error:
        what = "damaged"
    return [kept_database(KEPT_AS, what, path)]


def clear_index() -> int:
    """Remove the index, and return the bytes that it had.

    Raises:
        ModelError: there is no cache, or it cannot be removed.
    """
    return remove_database(index_file())
