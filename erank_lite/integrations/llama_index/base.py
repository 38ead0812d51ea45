"""A postprocessor for LlamaIndex that ranks nodes.

Example:
    from llama_index.postprocessor.erank_lite import ERankRerank

    engine = index.as_query_engine(node_postprocessors=[ERankRerank(model="erank-tiny", top_n=3)])
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from erank_lite.integrations.ranking import Ranker, ranker

_dispatcher = get_dispatcher(__name__)


class ERankRerank(BaseNodePostprocessor):
    """Keeps the nodes that answer the query, best first, with their relevance as score."""

    model: str = Field(default="erank-tiny", description="A model's name, or a server's address.")
    top_n: int = Field(default=3, gt=0, description="How many nodes are kept.")
    instruction: str | None = Field(default=None, description="What relevance means.")
    keep_retrieval_score: bool = Field(
        default=False,
        description="Keep the retriever's score as `retrieval_score` in the metadata.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Of Reranker, such as thinking."
    )
    _ranker: Ranker | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex knows it."""
        return "ERankRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ERankRerank needs a query")
        if not nodes:
            return []
        query = query_bundle.query_str
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n,
                             model_name=self.model)
        )  # fmt: skip
        with self.callback_manager.event(
            CBEventType.RERANKING,
            payload={EventPayload.NODES: nodes, EventPayload.QUERY_STR: query,
                     EventPayload.MODEL_NAME: self.model, EventPayload.TOP_K: self.top_n},
        ) as event:  # fmt: skip
            if self._ranker is None:
                self._ranker = ranker(self.model, **self.options)
            texts = [n.node.get_content(metadata_mode=MetadataMode.EMBED) for n in nodes]
            found = []
            for each in self._ranker.rank(query, texts, self.instruction)[: self.top_n]:
                given = nodes[each.index]
                node = given.node
                if self.keep_retrieval_score:
                    node = node.model_copy(
                        update={"metadata": node.metadata | {"retrieval_score": given.score}}
                    )
                found.append(NodeWithScore(node=node, score=each.relevance))
            event.on_end(payload={EventPayload.NODES: found})
        _dispatcher.event(ReRankEndEvent(nodes=found))
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)
