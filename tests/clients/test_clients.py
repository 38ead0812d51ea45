"""Real clients against a real server. Each is skipped where it is not installed.

They need two environments: cohere 7, haystack 3 and rerankers in one; langchain-cohere and
LlamaIndex, which want an older cohere, in another.
"""

from __future__ import annotations

import asyncio

import pytest
from support.serving import KEY

pytestmark = pytest.mark.clients

QUERY = "how does bread stay fresh"
DOCS = ["The bakery opens at six.", "A loaf stays fresh in a bread box.", "Bread is baked."]


def test_cohere_v2(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key=KEY, base_url=address)
    found = client.rerank(model="m", query=QUERY, documents=DOCS, top_n=2)
    assert [r.index for r in found.results] == [1, 2]
    assert found.results[0].relevance_score > found.results[1].relevance_score


def test_cohere_v2_without_a_wait(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.AsyncClientV2(api_key=KEY, base_url=address)
    found = asyncio.run(client.rerank(model="m", query=QUERY, documents=DOCS))
    assert found.results[0].index == 1


def test_cohere_v1(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key=KEY, base_url=address)
    found = client.rerank(
        query=QUERY, documents=[{"text": d} for d in DOCS], return_documents=True, model="m"
    )
    assert found.results[0].document.text == DOCS[1]


def test_cohere_reads_errors(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    with pytest.raises(cohere.UnauthorizedError) as caught:
        cohere.ClientV2(api_key="bad", base_url=address).rerank(
            model="m", query=QUERY, documents=DOCS
        )
    assert caught.value.body["message"] == "the API key is missing or wrong"
    with pytest.raises(cohere.BadRequestError):
        cohere.ClientV2(api_key=KEY, base_url=address).rerank(model="m", query=QUERY, documents=[])


def test_rerankers(address: str) -> None:
    rerankers = pytest.importorskip("rerankers")
    for options in (
        {"model_type": "cohere", "url": f"{address}/v1/rerank"},
        {"model_type": "text-embeddings-inference", "url": f"{address}/rerank"},
    ):
        ranker = rerankers.Reranker("any", api_key=KEY, **options)
        assert ranker.rank(QUERY, DOCS).top_k(1)[0].doc_id == 1


def test_haystack(address: str) -> None:
    haystack = pytest.importorskip("haystack")
    secret = haystack.utils.Secret.from_token(KEY)
    documents = [haystack.Document(content=d) for d in DOCS]
    rankers = []
    try:
        from haystack_integrations.components.rankers.cohere import CohereRanker

        rankers.append(CohereRanker(model="m", api_key=secret, api_base_url=address, top_k=2))
    except ImportError:
        pass
    try:
        from haystack_integrations.components.rankers.jina import JinaRanker

        rankers.append(
            JinaRanker(model="m", api_key=secret, base_url=f"{address}/v1/rerank", top_k=2)
        )
    except ImportError:
        pass
    if not rankers:
        pytest.skip("no ranker of haystack is installed")
    for ranker in rankers:
        found = ranker.run(query=QUERY, documents=documents, top_k=2)["documents"]
        assert [d.content for d in found] == [DOCS[1], DOCS[2]]


def test_langchain_cohere(address: str) -> None:
    langchain_cohere = pytest.importorskip("langchain_cohere")
    client = langchain_cohere.CohereRerank(cohere_api_key=KEY, base_url=address, model="m", top_n=2)
    assert [r["index"] for r in client.rerank(DOCS, QUERY)] == [1, 2]


def test_llama_index(address: str) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=d), score=0.5) for d in DOCS]
    found = tei.TextEmbeddingInference(
        base_url=address, auth_token=f"Bearer {KEY}", top_n=2
    ).postprocess_nodes(nodes, query_str=QUERY)
    assert [n.node.text for n in found] == [DOCS[1], DOCS[2]]


def test_litellm(address: str) -> None:
    litellm = pytest.importorskip("litellm")
    for model, base in (
        ("cohere/rerank-v3.5", address),
        ("jina_ai/m", f"{address}/v1/rerank"),
        ("hosted_vllm/m", address),
        ("huggingface/m", address),
    ):
        found = litellm.rerank(
            model=model, query=QUERY, documents=DOCS, top_n=2, api_base=base, api_key=KEY
        )
        assert found.results[0]["index"] == 1, model
