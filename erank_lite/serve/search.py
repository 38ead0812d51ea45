"""What the page asks of a search, and what it is told of the passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erank_lite.search.folders import Folders
from erank_lite.search.index import Found
from erank_lite.search.search import CANDIDATES, documents, judged
from erank_lite.serve.dialects import MAX_QUERY, Refused

_MAX_CANDIDATES = 200


@dataclass(frozen=True)
class SearchRequest:
    """What is looked for.

    Attributes:
        query: the words.
        candidates: how many passages are read.
        folder: the name of the only folder to search, or None.
    """

    query: str
    candidates: int
    folder: str | None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> SearchRequest:
        """Read the body of a request.

        Raises:
            Refused: a field is wrong.

        Example:
            >>> SearchRequest.parse({"query": "bread"})
            SearchRequest(query='bread', candidates=20, folder=None)
        """
        query, folder = body.get("query"), body.get("folder")
        if not isinstance(query, str) or not query.strip() or len(query) > MAX_QUERY:
            raise Refused("query must be a text that is not empty", param="query")
        if folder is not None and not isinstance(folder, str):
            raise Refused("folder must be a name", param="folder")
        candidates = body.get("candidates")
        candidates = CANDIDATES if candidates is None else candidates
        if type(candidates) is not int or not 1 <= candidates <= _MAX_CANDIDATES:
            raise Refused(f"candidates must be from 1 to {_MAX_CANDIDATES}", param="candidates")
        return cls(query, candidates, folder)

    def as_rerank(self, body: Mapping[str, Any], found: Sequence[Found]) -> dict[str, Any]:
        """Return the body of a request to rerank what was found."""
        texts = [each["content"] for each in documents(found)]
        return {**body, "documents": texts, "texts": None, "top_n": None, "top_k": None}


def told(folders: Folders, query: str, found: Sequence[Found]) -> dict[str, Any]:
    """Return what is said of the passages before they are read, as JSON has it."""
    passages = [
        {
            "path": folders.name(each.found.path), "unit": each.found.unit, "number": each.number,
            "heading": each.found.heading, "text": each.found.text,
            "sentences": [each.found.text[start:end] for start, end in each.marks],
        }
        for each in next(judged(query, found, None, folders.index.stemmer))
    ]  # fmt: skip
    update = folders.update
    return {"passages": passages, "files": update.files, "unread": len(update.failures)}
