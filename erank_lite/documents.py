"""Documents in the shapes that people have them in, as texts and dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from erank_lite.errors import InputError

Doc = Mapping[str, Any] | str
_TEXT = ("content", "page_content", "text")
"""The keys or attributes that a document's text may have, the first that is there."""


def as_documents(docs: Any) -> list[Doc]:
    """Return `docs` as texts and as dicts with a string under `content`; nothing is changed.

    Taken are iterables of texts, of mappings with `content` or `text`, and of objects with a
    `content`, `page_content` or `text` (such as LangChain's `Document`), which are kept under
    `document`; and frames and series of pandas and polars: a frame's documents are its rows.

    Raises:
        InputError: `docs` is something else, or a document in it is; the message names which.

    Example:
        >>> class Page:
        ...     page_content = "Tea cools."
        >>> page = Page()
        >>> as_documents(["Bread.", {"text": "Salt.", "id": 1}, page]) == [
        ...     "Bread.",
        ...     {"text": "Salt.", "id": 1, "content": "Salt."},
        ...     {"content": "Tea cools.", "document": page},
        ... ]
        True
    """
    if isinstance(docs, str | bytes | Mapping) or not isinstance(docs, Iterable):
        raise InputError(
            f"docs must be a list of documents, not {type(docs).__name__}",
            "put a single document in a list",
        )
    return [_document(doc, index) for index, doc in enumerate(_rows(docs))]


def _rows(docs: Any) -> Iterable[Any]:
    """Return the rows of a frame, which would itself give the names of its columns."""
    if not hasattr(docs, "columns"):
        return list(docs)
    if hasattr(docs, "to_dicts"):  # polars
        return list(docs.to_dicts())
    if hasattr(docs, "to_dict"):  # pandas
        return list(docs.to_dict("records"))
    raise InputError(
        f"docs must be a list of documents, not {type(docs).__name__}", "give its rows as dicts"
    )


def _document(doc: Any, index: int) -> Doc:
    if isinstance(doc, str):
        return str(doc)
    own = doc if isinstance(doc, Mapping) else None
    found = (own.get(name) if own is not None else getattr(doc, name, None) for name in _TEXT)
    text = next((text for text in found if text is not None), None)
    if not isinstance(text, str):
        was = "nothing" if doc is None else type(doc).__name__
        if text is not None:
            was += f" with {type(text).__name__} for its text"
        raise InputError(
            f"document {index} is {was}",
            "give a text, a dict with a text under content, or an object with one",
        )
    if own is None:
        return {"content": str(text), "document": doc}
    return doc if own.get("content") is text else {**own, "content": str(text)}
