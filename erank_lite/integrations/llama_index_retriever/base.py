"""A retriever for LlamaIndex that finds passages of files.

Example:
    from llama_index.retrievers.erank_lite import ERankRetriever

    nodes = ERankRetriever(["~/notes"]).retrieve("how long does bread keep")
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from erank_lite.integrations.ranking import Model, ranker
from erank_lite.search.folders import Folders
from erank_lite.search.search import documents, metadata


class ERankRetriever(BaseRetriever):
    """Finds passages of files: BM25's candidates, in the order of the model."""

    def __init__(
        self,
        folders: list[str],
        model: Model = "erank-tiny",
        top_n: int = 4,
        candidates: int = 20,
        index: str | None = None,
        **options: Any,
    ) -> None:
        """Take the folders; the index is brought up to date at each search.

        Args:
            folders: folders or files; what is hidden or ignored below them is not read.
            model: its name, the address of `erank-lite serve`, or a `Reranker`.
            top_n: how many passages are returned.
            candidates: how many the model reads.
            index: the index's file; None means the user's.
            options: of `Reranker`, such as `thinking`.

        Raises:
            InputError: a folder is not there.
            ModelError: the index cannot be used.
        """
        super().__init__()
        self._folders = Folders(folders, index)
        self._ranker = ranker(model, **options)
        self._top_n, self._candidates = top_n, max(top_n, candidates)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        found = self._folders.search(query, self._candidates)
        texts = [each["content"] for each in documents(found)]
        ranked = self._ranker.rank(query, texts) if found else []
        return [
            NodeWithScore(
                node=TextNode(text=found[each.index].text, metadata=metadata(found[each.index])),
                score=each.relevance,
            )
            for each in ranked[: self._top_n]
        ]
