"""A component for Haystack that ranks documents.

Example:
    from haystack_integrations.components.rankers.erank_lite import ERankRanker

    ranker = ERankRanker(model="erank-tiny", top_k=3)
    ranker.warm_up()
    best = ranker.run(query="why is the sky blue", documents=documents)["documents"]
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret

from erank_lite.integrations.ranking import Ranker, ranker


@component
class ERankRanker:
    """Ranks documents for a query; they come back as copies with their relevance as `score`."""

    def __init__(
        self,
        model: str = "erank-tiny",
        top_k: int | None = 10,
        score_threshold: float | None = None,
        instruction: str | None = None,
        api_key: Secret | None = None,
        meta_fields_to_embed: list[str] | None = None,
        meta_data_separator: str = "\n",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Take the model; it is loaded by `warm_up`.

        Args:
            model: its name, or the address of `erank-lite serve`.
            top_k: how many documents are kept; None keeps all.
            score_threshold: documents below are left out.
            instruction: what relevance means.
            api_key: of the server.
            meta_fields_to_embed: fields of the documents' metadata that are read before the text.
            meta_data_separator: between these and the text.
            options: of `erank_lite.Reranker`, such as `thinking`.

        Raises:
            ValueError: `top_k` is not positive.
        """
        _check(top_k)
        self.model, self.top_k, self.score_threshold = model, top_k, score_threshold
        self.instruction, self.api_key = instruction, api_key
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.meta_data_separator = meta_data_separator
        self.options = options or {}
        self._ranker: Ranker | None = None

    def warm_up(self) -> None:
        """Load the model, once."""
        if self._ranker is None:
            key = self.api_key.resolve_value() if self.api_key else None
            self._ranker = ranker(self.model, api_key=key, **self.options)
            if not self.model.startswith(("http://", "https://")):
                self._ranker.rank("warm up", ["warm up"])

    async def warm_up_async(self) -> None:
        """Do what `warm_up` does, in a thread."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Free the model."""
        if self._ranker is not None:
            self._ranker.close()
            self._ranker = None

    async def close_async(self) -> None:
        """Do what `close` does, in a thread."""
        await asyncio.to_thread(self.close)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes."""
        return default_to_dict(
            self, model=self.model, top_k=self.top_k, score_threshold=self.score_threshold,
            instruction=self.instruction, api_key=self.api_key,
            meta_fields_to_embed=self.meta_fields_to_embed,
            meta_data_separator=self.meta_data_separator, options=self.options,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ERankRanker:
        """Return the component of `to_dict`."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Return the best documents for `query`, best first.

        Raises:
            ValueError: `top_k` is not positive.
        """
        _check(top_k)
        if not documents:
            return {"documents": []}
        self.warm_up()
        assert self._ranker is not None
        threshold = self.score_threshold if score_threshold is None else score_threshold
        ranked = self._ranker.rank(query, [self._text(d) for d in documents], self.instruction)
        found = [
            replace(documents[each.index], score=each.relevance)
            for each in ranked[: top_k or self.top_k]
            if threshold is None or each.relevance >= threshold
        ]
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k, score_threshold)

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[f]) for f in self.meta_fields_to_embed if document.meta.get(f)]
        return self.meta_data_separator.join([*fields, document.content or ""])


def _check(top_k: int | None) -> None:
    if top_k is not None and top_k <= 0:
        raise ValueError(f"top_k must be positive, not {top_k}")
