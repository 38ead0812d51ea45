"""Documents in the shapes that people have them in, as texts and dicts."""

from __future__ import annotations

from collections.abc import Mapping
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
    single = isinstance(docs, str | bytes | Mapping)
    rows = None if single else _rows(docs)
    if rows is None:
        hint = "give an iterable of documents"
        if hasattr(docs, "collect"):  # a lazy frame of polars
            hint = "collect it first"
        elif single or any(hasattr(docs, name) for name in _TEXT):
            hint = "put a single document in a list"
        raise InputError(f"docs must be a list of documents, not {type(docs).__name__}", hint)
    return [_document(doc, index) for index, doc in enumerate(rows)]


def _rows(docs: Any) -> list[Any] | None:
    """Return the documents, of a frame its rows; None where there is no list of them.

    To iterate over a frame would give the names of its columns.
    """
    if hasattr(docs, "collect"):
        return None
    if not hasattr(docs, "columns"):
        try:
            each = iter(docs)
        except TypeError:
            return None
        return list(each)  # what it raises itself is its owner's to see
    names = list(docs.columns)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two columns of the frame are named {twice!r}", "rename one")
    if hasattr(docs, "to_dicts"):  # polars
        return list(docs.to_dicts())
    if hasattr(docs, "to_dict"):  # pandas
        return list(docs.to_dict("records"))
    return None


def _document(doc: Any, index: int) -> Doc:
    if isinstance(doc, str):
        return str(doc)
    own = doc if isinstance(doc, Mapping) else None
    values = {
        name: own.get(name) if own is not None else getattr(doc, name, None) for name in _TEXT
    }
    name = next((name for name, value in values.items() if value is not None), None)
    text = None if name is None else values[name]
    if not isinstance(text, str):
        raise InputError(
            f"document {index} {_fault(doc, name, text)}",
            "give a text, a dict with a text under content, or an object with one",
        )
    if own is None:
        return {"content": str(text), "document": doc}
    return doc if own.get("content") is text else {**own, "content": str(text)}


def _fault(doc: Any, name: str | None, text: Any) -> str:
    """Return what is wrong with a document whose text, found under `name`, is none."""
    if name is not None:
        missing = isinstance(text, float) and text != text
        return f"has {'nothing (nan)' if missing else type(text).__name__} for its {name}"
    if isinstance(doc, Mapping):
        keys = ", ".join(map(str, list(doc)[:5])) or "none"
        return f"has no text under content or text; its keys are {keys}"
    return "is nothing" if doc is None else f"is {type(doc).__name__}, without a text"
