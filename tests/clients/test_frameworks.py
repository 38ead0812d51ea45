"""The adapters, each with its framework. Each is skipped where that is not installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.answering import answering

from erank_lite import Reranker

pytestmark = pytest.mark.clients

QUERY = "how does bread stay fresh"
DOCS = ["The bakery opens at six.", "Bread stays fresh in a bread box.", "Bread is baked."]


@pytest.fixture
def reranker() -> Reranker:
    return Reranker(answering({DOCS[0]: 0, DOCS[1]: 9, DOCS[2]: 6}))


def test_langchain(reranker: Reranker) -> None:
    documents = pytest.importorskip("langchain_core.documents")
    from erank_lite.integrations.langchain import ERankCrossEncoder, ERankRerank

    given = [documents.Document(page_content=d, metadata={"n": {"at": i}}, id=str(i))
             for i, d in enumerate(DOCS)]  # fmt: skip
    compressor = ERankRerank(model=reranker, top_n=2)
    found = compressor.compress_documents(given, QUERY)
    assert [d.id for d in found] == ["1", "2"]
    assert found[0].metadata == {"n": {"at": 1}, "relevance_score": pytest.approx(0.45)}
    assert given[1].metadata == {"n": {"at": 1}}
    assert compressor.compress_documents([], QUERY) == []
    threshold = ERankRerank(model=reranker, score_threshold=0.4)
    assert len(threshold.compress_documents(given, QUERY)) == 1
    assert asyncio.run(compressor.acompress_documents(given, QUERY))[0].id == "1"
    runnable = compressor.as_runnable()
    assert runnable.invoke({"query": QUERY, "documents": given})[0].id == "1"
    scores = ERankCrossEncoder(reranker).score([(QUERY, d) for d in DOCS])
    assert scores == pytest.approx([0.0, 0.45, 0.3])


def test_llama_index(reranker: Reranker) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    from llama_index.postprocessor.erank_lite import ERankRerank

    nodes = [schema.NodeWithScore(node=schema.TextNode(text=d), score=0.5) for d in DOCS]
    post = ERankRerank(top_n=2, keep_retrieval_score=True)
    from erank_lite.integrations.ranking import ranker

    post._ranker = ranker(reranker)
    found = post.postprocess_nodes(nodes, query_str=QUERY)
    assert [n.node.get_content() for n in found] == [DOCS[1], DOCS[2]]
    assert found[0].node.metadata == {"retrieval_score": 0.5}
    assert nodes[1].node.metadata == {} and nodes[1].score == 0.5
    assert post.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="query"):
        post.postprocess_nodes(nodes)
    again = ERankRerank.from_dict(post.to_dict())
    assert (again.model, again.top_n) == ("erank-tiny", 2)
    assert "BaseNodePostprocessor" in [c.__name__ for c in ERankRerank.__mro__]


def test_haystack(reranker: Reranker) -> None:
    haystack = pytest.importorskip("haystack")
    from haystack_integrations.components.rankers.erank_lite import ERankRanker

    from erank_lite.integrations.ranking import ranker

    documents = [haystack.Document(content=d) for d in DOCS]
    found = ERankRanker(top_k=2)
    found._ranker = ranker(reranker)
    kept = found.run(query=QUERY, documents=documents)["documents"]
    assert [d.content for d in kept] == [DOCS[1], DOCS[2]] and documents[1].score is None
    assert found.run(query=QUERY, documents=[]) == {"documents": []}
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="top_k"):
            found.run(query=QUERY, documents=documents, top_k=wrong)
    assert asyncio.run(found.run_async(query=QUERY, documents=documents))["documents"]
    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", ERankRanker(model="erank-tiny", top_k=1))
    again = haystack.Pipeline.loads(pipeline.dumps())
    assert again.get_component("ranker").top_k == 1


def test_rerankers() -> None:
    rerankers = pytest.importorskip("rerankers")
    import erank_lite.integrations.rerankers  # noqa: F401

    ranker = rerankers.Reranker("erank-tiny", model_type="ERankRanker")
    found = ranker.rank(QUERY, DOCS)
    assert found.results[0].doc_id == 1
    assert [r.rank for r in found.results] == [1, 2, 3]


def test_pyterrier(reranker: Reranker) -> None:
    pytest.importorskip("pyterrier")
    import pandas as pd

    from erank_lite.integrations.pyterrier import ERankReranker

    frame = pd.DataFrame(
        {"qid": ["1"] * 3, "query": [QUERY] * 3, "docno": list("abc"), "text": DOCS,
         "score": 0.0, "rank": [0, 1, 2], "own": [7, 8, 9]}
    )  # fmt: skip
    found = ERankReranker(reranker).transform(frame).sort_values("rank")
    assert found["docno"].tolist() == ["b", "c", "a"] and found["rank"].tolist() == [0, 1, 2]
    assert found["own"].tolist() == [8, 9, 7]
    assert len(ERankReranker(reranker).transform(frame.head(0))) == 0


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with a file for each of the documents."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number, text in enumerate(DOCS):
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_langchain_retriever(reranker: Reranker, notes: Path, tmp_path: Path) -> None:
    pytest.importorskip("langchain_core.documents")
    from erank_lite.integrations.langchain import ERankRetriever

    retriever = ERankRetriever(
        folders=[str(notes)], model=reranker, k=2, index=str(tmp_path / "index")
    )
    found = retriever.invoke(QUERY)
    assert [d.page_content for d in found] == [DOCS[1], DOCS[2]]
    assert found[0].metadata["line"] == 1 and found[0].metadata["source"].endswith("1.txt")
    assert len(retriever.invoke(QUERY, k=1)) == 1
    assert len(asyncio.run(retriever.ainvoke(QUERY))) == 2


def test_llama_index_retriever(reranker: Reranker, notes: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_index.core.schema")
    from llama_index.retrievers.erank_lite import ERankRetriever

    retriever = ERankRetriever([str(notes)], reranker, 2, index=str(tmp_path / "index"))
    found = retriever.retrieve(QUERY)
    assert [n.node.get_content() for n in found] == [DOCS[1], DOCS[2]]
    assert found[0].score == pytest.approx(0.45)


def test_mcp_searches_the_folders_alone(reranker: Reranker, notes: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    from mcp import Client

    from erank_lite.mcp import make_server
    from erank_lite.search import Folders

    (tmp_path / "secret.txt").write_text("bread")
    (notes / ".hidden.txt").write_text("bread")

    async def calls() -> list[Any]:
        async with Client(make_server(reranker, Folders([notes], tmp_path / "index"))) as client:
            tools = await client.list_tools()
            assert sorted(tool.name for tool in tools.tools) == ["read", "rerank", "search"]
            return [
                await client.call_tool("search", {"query": QUERY, "top_n": 1}),
                await client.call_tool("search", {"query": QUERY, "rerank": False}),
                await client.call_tool("read", {"path": "notes/1.txt"}),
                await client.call_tool("read", {"path": "notes/../secret.txt"}),
                await client.call_tool("read", {"path": "notes/.hidden.txt"}),
                await client.call_tool("read", {"path": str(tmp_path / "secret.txt")}),
                await client.call_tool("search", {"query": QUERY, "folder": "elsewhere"}),
            ]

    judged, plain, read, *refused = asyncio.run(calls())
    (best,) = judged.structured_content["passages"]
    assert (best["path"], best["line"], best["text"]) == ("notes/1.txt", 1, DOCS[1])
    assert judged.structured_content["left_out"] == 1
    assert all(p["relevance"] is None for p in plain.structured_content["passages"])
    assert read.structured_content["lines"] == [DOCS[1]]
    assert all(answer.is_error for answer in refused)


def test_mcp(reranker: Reranker) -> None:
    pytest.importorskip("mcp")
    from mcp import Client

    from erank_lite.mcp import make_server

    async def calls() -> Any:
        async with Client(make_server(reranker)) as client:
            (tool,) = (await client.list_tools()).tools
            good = await client.call_tool("rerank", {"query": QUERY, "documents": DOCS, "top_n": 2})
            bad = await client.call_tool("rerank", {"query": QUERY, "documents": []})
            return tool, good, bad

    tool, good, bad = asyncio.run(calls())
    assert tool.name == "rerank" and "top_n" in tool.input_schema["properties"]
    assert [d["index"] for d in good.structured_content["documents"]] == [1, 2]
    assert good.structured_content["left_out"] == 1 and bad.is_error
