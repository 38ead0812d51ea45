"""Search one's own files: an index of their passages, kept up to date, and a model that judges."""

from __future__ import annotations

from erank_lite.search.folders import Folders
from erank_lite.search.index import Found, Index, Update
from erank_lite.search.search import Passage, search

__all__ = ["Folders", "Found", "Index", "Passage", "Update", "search"]
