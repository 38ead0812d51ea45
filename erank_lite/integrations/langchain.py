"""LangChain: a document compressor, a cross-encoder, and a retriever over one's own files.

    pip install 'erank-lite[langchain]'

Example:
    from erank_lite.integrations.langchain import ERankRerank

    compressor = ERankRerank(model="erank-tiny", top_n=3)
    best = compressor.compress_documents(documents, "why is the sky blue")
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import ConfigDict, Field, PrivateAttr

from erank_lite.integrations.ranking import Ranker, pair_scores, ranker
from erank_lite.search.folders import Folders
from erank_lite.search.search import documents, metadata


class ERankRerank(BaseDocumentCompressor):
    """Keeps the documents that answer the query, best first.

    Documents come back as copies, with `relevance_score` in their metadata.
    """

    model: Any = "erank-tiny"
    """A model's name, the address of `erank-lite serve`, or a `Reranker`."""
    top_n: int | None = Field(default=3, ge=1)
    """How many documents are kept; None keeps all."""
    score_threshold: float | None = None
    """Documents below are left out."""
    instruction: str | None = None
    """What relevance means."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of `Reranker`, such as `thinking`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    _ranker: Ranker | None = PrivateAttr(default=None)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best documents for `query`."""
        if not documents:
            return []
        if self._ranker is None:
            self._ranker = ranker(self.model, **self.options)
        ranked = self._ranker.rank(query, [d.page_content for d in documents], self.instruction)
        kept = []
        for each in ranked[: self.top_n]:
            if self.score_threshold is not None and each.relevance < self.score_threshold:
                continue
            given = documents[each.index]
            metadata = copy.deepcopy(given.metadata) | {"relevance_score": each.relevance}
            kept.append(Document(page_content=given.page_content, metadata=metadata, id=given.id))
        return kept

    def as_runnable(self) -> RunnableLambda[dict[str, Any], Sequence[Document]]:
        """Return a runnable that takes `{"query": …, "documents": …}`."""
        return RunnableLambda(
            lambda given: self.compress_documents(given["documents"], given["query"])
        )


class ERankCrossEncoder(BaseCrossEncoder):
    """Scores pairs of query and text, for LangChain's CrossEncoderReranker."""

    def __init__(self, model: Any = "erank-tiny", **options: Any) -> None:
        """Take the model; see `ERankRerank`."""
        self._ranker = ranker(model, **options)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return the relevance of each pair, from 0 to 1."""
        return pair_scores(self._ranker, text_pairs)


class ERankRetriever(BaseRetriever):
    """Finds passages of files: BM25's candidates, in the order of the model.

    Documents have `source`, `heading`, `line` (or `page`, `cell`, `message`) and `relevance_score`
    in their metadata.
    """

    folders: list[str]
    """Folders or files; what is hidden or ignored below them is not read."""
    model: Any = "erank-tiny"
    """As for `ERankRerank`."""
    k: int = Field(default=4, ge=1)
    """How many passages are returned."""
    candidates: int = Field(default=20, ge=1)
    """How many the model reads."""
    index: str | None = None
    """The index's file; None means the user's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of `Reranker`, such as `thinking`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    _ranker: Ranker | None = PrivateAttr(default=None)
    _folders: Folders | None = PrivateAttr(default=None)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        if self._ranker is None:
            self._ranker = ranker(self.model, **self.options)
        if self._folders is None:
            self._folders = Folders(self.folders, self.index)
        count = self.k if k is None else k
        found = self._folders.search(query, max(count, self.candidates))
        texts = [each["content"] for each in documents(found)]
        ranked = self._ranker.rank(query, texts) if found else []
        return [
            Document(
                page_content=found[each.index].text,
                metadata=metadata(found[each.index]) | {"relevance_score": each.relevance},
            )
            for each in ranked[:count]
        ]
