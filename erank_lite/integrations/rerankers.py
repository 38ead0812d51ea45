"""A ranker for the package rerankers.

Example:
    from rerankers import Reranker
    import erank_lite.integrations.rerankers  # registers it

    Reranker("erank-tiny", model_type="ERankRanker").rank("why is the sky blue", texts)
"""

from __future__ import annotations

from typing import Any

from rerankers.models import AVAILABLE_RANKERS
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults, Result
from rerankers.utils import prep_docs

from erank_lite.integrations.ranking import ranker


class ERankRanker(BaseRanker):
    """Ranks as `rerankers.Reranker` has it."""

    def __init__(self, model_name_or_path: Any, verbose: int = 1, **options: Any) -> None:
        """Take a model's name, the address of `erank-lite serve`, or a `Reranker`."""
        self.verbose = verbose
        self._ranker = ranker(model_name_or_path, **options)

    def score(self, query: str, doc: str) -> float:
        """Return the relevance of a text, from 0 to 1."""
        return self._ranker.rank(query, [doc])[0].relevance

    def rank(
        self,
        query: str,
        docs: Any,
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> RankedResults:
        """Rank texts, best first."""
        documents = prep_docs(docs, doc_ids, metadata)
        ranked = self._ranker.rank(query, [document.text for document in documents])
        results = [
            Result(document=documents[each.index], score=each.relevance, rank=place)
            for place, each in enumerate(ranked, 1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)


AVAILABLE_RANKERS["ERankRanker"] = ERankRanker
