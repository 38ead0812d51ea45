"""Folders that are searched for somebody else: a browser, an assistant.

Files are told by their names below the folders, never by where these are, and nothing can be read
that the index does not have.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from erank_lite.errors import InputError
from erank_lite.search.index import Found, Index, Update, resolved

_FRESH = 5.0  # seconds for which an index that was brought up to date counts as such


class Folders:
    """Folders with their index. It is safe from several threads.

    Attributes:
        update: what the last update of the index did.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     notes = Path(home, "notes"); notes.mkdir()
        ...     _ = (notes / "bread.md").write_text("It stays fresh in a box.\\n")
        ...     folders = Folders([notes], Path(home, ".index"))
        ...     [hit] = folders.search("fresh bread", 5)
        ...     print(folders.name(hit.path), folders.read("notes/bread.md", 1, 10))
        ...     folders.close()
        notes/bread.md ['It stays fresh in a box.']
    """

    def __init__(self, folders: Sequence[Path | str], index: Path | str | None = None) -> None:
        """Take the folders; the index is brought up to date at the first search.

        Args:
            folders: each with a name of its own.
            index: the index's file; None means the user's.

        Raises:
            InputError: a folder is not there, or two have one name.
            ModelError: the index cannot be used.
        """
        self._roots: dict[str, Path] = {}
        for root in resolved(folders):
            if root.name in self._roots:
                raise InputError(
                    f"`{self._roots[root.name]}` and `{root}` have one name", "give one of them"
                )
            self._roots[root.name] = root
        self._index = Index(index)
        self._lock = threading.Lock()
        self._updated = float("-inf")
        self.update = Update()

    @property
    def names(self) -> list[str]:
        """Of the folders."""
        return list(self._roots)

    @property
    def index(self) -> Index:
        """The index."""
        return self._index

    def search(self, query: str, count: int, folder: str | None = None) -> list[Found]:
        """Bring the index up to date, and return the passages that BM25 finds, best first.

        Args:
            query: what to look for.
            count: how many at most.
            folder: the name of the only folder to search, or None.

        Raises:
            InputError: the query is empty, or there is no such folder.
            ModelError: the index cannot be read.
        """
        if folder is not None and folder not in self._roots:
            raise InputError(
                f"there is no folder {folder!r} here", f"there are {', '.join(self._roots)}"
            )
        roots = list(self._roots.values()) if folder is None else [self._roots[folder]]
        with self._lock:
            if time.monotonic() - self._updated > _FRESH:
                self.update = self._index.update(self._roots.values())
                self._updated = time.monotonic()
            return self._index.search(query, roots, count)

    def name(self, path: Path) -> str:
        """Return how a file is told: the folder's name, and the way below it."""
        for name, root in self._roots.items():
            if path == root:
                return name
            if path.is_relative_to(root):
                return f"{name}/{path.relative_to(root).as_posix()}"
        raise InputError("the file is in none of the folders")

    def read(self, name: str, first: int, count: int) -> list[str]:
        """Return lines of a file, as the index has them.

        Args:
            name: as `name` returns it.
            first: number of the first line, page, cell or message.
            count: how many lines at most.

        Raises:
            InputError: the index does not have the file.
        """
        root, _, below = name.partition("/")
        path = self._roots.get(root)
        if path is not None and below:
            path = Path(os.path.normpath(path / below))
        if path is None or not path.is_relative_to(self._roots[root]):
            raise InputError(f"there is no file {name!r} here", "give a name that a search found")
        with self._lock:
            try:
                return self._index.read(path, first, count)
            except InputError:
                raise InputError(
                    f"there is no file {name!r} here", "give a name that a search found"
                ) from None

    def close(self) -> None:
        """Close the index."""
        self._index.close()
