"""A server of the Model Context Protocol: the tool `rerank`, and with folders `search` and `read`.

`erank-lite mcp` runs it over standard input and output, for programs that start it themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server import MCPServer
from pydantic import BaseModel, Field

from erank_lite.integrations.ranking import Model, Ranker, ranker
from erank_lite.version import __version__

if TYPE_CHECKING:
    from erank_lite.search import Folders, Found

_MAX_DOCUMENTS = 1_000
_MAX_CANDIDATES, _MAX_LINES = 100, 2_000


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


class FoundPassage(BaseModel):
    """A passage of a file."""

    path: str = Field(description="The file, as `read` takes it.")
    line: int | None = Field(description="Where the passage begins; null where there are no lines.")
    page: int | None = Field(description="Of a PDF, the page.")
    heading: str
    text: str
    relevance: float | None = Field(description="From 0 to 1; null without reranking.")


class SearchResult(BaseModel):
    """The best passages, best first."""

    passages: list[FoundPassage]
    left_out: int = Field(description="How many candidates follow these.")
    unread: int = Field(description="How many files could not be read.")


class Lines(BaseModel):
    """Lines of a file."""

    lines: list[str]


def make_server(model: Model, folders: Folders | None = None, **options: Any) -> MCPServer:
    """Return the server; the model is loaded when a tool is first called.

    Args:
        model: its name, the address of `erank-lite serve`, or a `Reranker`.
        folders: that may be searched; None offers no search.
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

    if folders is not None:
        _add_search(server, ranks, folders)
    return server


def _add_search(server: MCPServer, ranks: Ranker, folders: Folders) -> None:
    about = "Find passages of the user's files that answer a query, best first. "

    @server.tool(description=f"{about}The folders are {', '.join(folders.names)}.")
    def search(
        query: Annotated[str, Field(description="What to look for.", min_length=1)],
        folder: Annotated[
            str | None, Field(description="Name of the only folder to search; null for all.")
        ] = None,
        top_n: Annotated[int, Field(description="How many passages to return.", ge=1)] = 10,
        rerank: Annotated[
            bool, Field(description="Have the model judge the candidates; else BM25's order.")
        ] = True,
        candidates: Annotated[
            int,
            Field(description="How many passages the model reads.", ge=1, le=_MAX_CANDIDATES),
        ] = 20,
    ) -> SearchResult:
        """Find passages of the user's files that answer a query, best first."""
        from erank_lite.search.search import documents

        found = folders.search(query, candidates, folder)
        order: list[tuple[int, float | None]] = [(place, None) for place in range(len(found))]
        if rerank and found:
            texts = [each["content"] for each in documents(found)]
            order = [(each.index, each.relevance) for each in ranks.rank(query, texts)]
        passages = [
            FoundPassage(
                path=folders.name(found[place].path),
                line=_first(found[place], "line"), page=_first(found[place], "page"),
                heading=found[place].heading, text=found[place].text, relevance=relevance,
            )
            for place, relevance in order[:top_n]
        ]  # fmt: skip
        return SearchResult(
            passages=passages, left_out=max(0, len(order) - top_n),
            unread=len(folders.update.failures),
        )  # fmt: skip

    @server.tool()
    def read(
        path: Annotated[str, Field(description="A file, as `search` names it.", min_length=1)],
        start_line: Annotated[
            int, Field(description="The first line; of a PDF, the first page.", ge=1)
        ] = 1,
        lines: Annotated[int, Field(description="How many lines.", ge=1, le=_MAX_LINES)] = 100,
    ) -> Lines:
        """Read lines of a file that a search found."""
        return Lines(lines=folders.read(path, start_line, lines))


def _first(found: Found, unit: str) -> int | None:
    return found.places[0] if found.unit == unit and found.places else None
