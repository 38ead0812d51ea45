"""A server of the Model Context Protocol with one tool: `rerank`.

`erank-lite mcp` runs it over standard input and output, for programs that start it themselves.
"""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import BaseModel, Field

from erank_lite.integrations.ranking import Model, ranker
from erank_lite.version import __version__

_MAX_DOCUMENTS = 1_000


class RankedDocument(BaseModel):
    """A document with its place."""

    index: int = Field(description="Place in the documents given, from 0.")
    relevance: float = Field(description="From 0 to 1.")
    score: int | None = Field(description="The model's own score, 0 to 10; null if it has none.")
    text: str
    reasoning: str = Field(description="What the model thought of it.")


class Ranking(BaseModel):
    """The best documents, best first."""

    documents: list[RankedDocument]
    left_out: int = Field(description="How many documents follow these.")


def make_server(model: Model, **options: Any) -> MCPServer:
    """Return the server; the model is loaded when the tool is first called.

    Args:
        model: its name, the address of `erank-lite serve`, or a `Reranker`.
        options: of `Reranker`.
    """
    server = MCPServer("erank-lite", version=__version__)
    ranks = ranker(model, **options)

    @server.tool()
    def rerank(
        query: Annotated[str, Field(description="What to look for.", min_length=1)],
        documents: Annotated[
            list[str],
            Field(description="Texts to rank.", min_length=1, max_length=_MAX_DOCUMENTS),
        ],
        top_n: Annotated[int, Field(description="How many to return.", ge=1)] = 10,
        instruction: Annotated[
            str | None, Field(description="What relevance means; a search query's otherwise.")
        ] = None,
    ) -> Ranking:
        """Rank documents by how well they answer a query, best first."""
        ranked = ranks.rank(query, documents, instruction)
        best = [
            RankedDocument(
                index=each.index, relevance=each.relevance, score=each.result.get("score"),
                text=documents[each.index], reasoning=each.result.get("reasoning") or "",
            )
            for each in ranked[:top_n]
        ]  # fmt: skip
        return Ranking(documents=best, left_out=max(0, len(ranked) - top_n))

    return server
