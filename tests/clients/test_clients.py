"""Real clients against a real server. Each is skipped where it is not installed.

They need three environments: cohere 7, Haystack 3, rerankers and infinity-client (`--no-deps`,
which wants an older httpx) in one; LangChain and LlamaIndex, which want an older cohere, in
another; litellm in a third. The clients for Node are in the folder that ERANK_LITE_NODE names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from support.serving import KEY

pytestmark = pytest.mark.clients

QUERY = "how does bread stay fresh"
DOCS = ["The bakery opens at six.", "Bread stays fresh in a bread box.", "Bread is baked."]


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


@pytest.mark.parametrize(
    ("name", "options", "path"),
    [
        ("any", {"model_type": "cohere"}, "/v1/rerank"),
        ("any", {"model_type": "text-embeddings-inference"}, "/rerank"),
        ("jina", {}, "/v1/rerank"),
    ],
)
def test_rerankers(address: str, name: str, options: dict[str, str], path: str) -> None:
    rerankers = pytest.importorskip("rerankers")
    ranker = rerankers.Reranker(name, api_key=KEY, url=f"{address}{path}", **options)
    assert ranker.rank(QUERY, DOCS).top_k(1)[0].doc_id == 1


def test_infinity(address: str) -> None:
    client = pytest.importorskip("infinity_client")
    rerank = pytest.importorskip("infinity_client.api.default.rerank")
    body = pytest.importorskip("infinity_client.models").RerankInput(
        query=QUERY, documents=DOCS, model="m"
    )
    found = rerank.sync(client=client.AuthenticatedClient(base_url=address, token=KEY), body=body)
    assert [r.index for r in found.results] == [1, 2, 0]


def haystack_rankers(address: str, secret: Any) -> dict[str, Any]:
    """Return what makes each of Haystack's rankers, by their module and class."""
    rankers = "haystack_integrations.components.rankers"
    return {
        f"{rankers}.cohere.CohereRanker": {
            "model": "m", "api_key": secret, "api_base_url": address,
        },
        f"{rankers}.jina.JinaRanker": {
            "model": "m", "api_key": secret, "base_url": f"{address}/v1/rerank",
        },
        f"{rankers}.vllm.VLLMRanker": {
            "model": "m", "api_key": secret, "api_base_url": f"{address}/v1",
            "extra_parameters": {"instruction": "beir"},
        },
        f"{rankers}.huggingface_api.HuggingFaceTEIRanker": {"url": address, "token": secret},
    }  # fmt: skip


@pytest.mark.parametrize("name", list(haystack_rankers("", None)))
def test_haystack(address: str, name: str) -> None:
    haystack = pytest.importorskip("haystack")
    module, _, class_name = name.rpartition(".")
    ranker_class = getattr(pytest.importorskip(module), class_name)
    options = haystack_rankers(address, haystack.utils.Secret.from_token(KEY))[name]
    ranker = ranker_class(top_k=2, **options)
    documents = [haystack.Document(content=d) for d in DOCS]
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    assert [d.content for d in found] == [DOCS[1], DOCS[2]]


def test_langchain_cohere(address: str) -> None:
    langchain_cohere = pytest.importorskip("langchain_cohere")
    client = langchain_cohere.CohereRerank(cohere_api_key=KEY, base_url=address, model="m", top_n=2)
    assert [r["index"] for r in client.rerank(DOCS, QUERY)] == [1, 2]


def test_langchain_jina(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{address}/v1/rerank")  # no setting for it
    client = jina.JinaRerank(jina_api_key=KEY, top_n=2)
    assert [r["index"] for r in client.rerank(DOCS, QUERY)] == [1, 2]


@pytest.mark.parametrize(
    ("module", "name", "base", "options"),
    [
        ("cohere_rerank", "CohereRerank", "", {"api_key": KEY, "model": "m"}),
        ("jinaai_rerank", "JinaRerank", "/v1", {"api_key": KEY}),
        ("tei_rerank", "TextEmbeddingInference", "", {"auth_token": f"Bearer {KEY}"}),
    ],
)
def test_llama_index(
    address: str, module: str, name: str, base: str, options: dict[str, str]
) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    client = getattr(pytest.importorskip(f"llama_index.postprocessor.{module}"), name)
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=d), score=0.5) for d in DOCS]
    post = client(base_url=f"{address}{base}", top_n=2, **options)
    found = post.postprocess_nodes(nodes, query_str=QUERY)
    assert [n.node.text for n in found] == [DOCS[1], DOCS[2]]


def test_llama_index_xinference(open_address: str) -> None:
    schema = pytest.importorskip("llama_index.core.schema")
    xinference = pytest.importorskip("llama_index.postprocessor.xinference_rerank")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=d), score=0.5) for d in DOCS]
    post = xinference.XinferenceRerank(base_url=open_address, model="m", top_n=2)  # sends no key
    found = post.postprocess_nodes(nodes, query_str=QUERY)
    assert [n.node.text for n in found] == [DOCS[1], DOCS[2]]


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("cohere/rerank-v3.5", ""),
        ("jina_ai/m", "/v1/rerank"),
        ("hosted_vllm/m", ""),
        ("huggingface/m", ""),
    ],
)
def test_litellm(address: str, model: str, base: str) -> None:
    litellm = pytest.importorskip("litellm")
    found = litellm.rerank(
        model=model, query=QUERY, documents=DOCS, top_n=2, api_base=f"{address}{base}", api_key=KEY
    )
    assert [r["index"] for r in found.results] == [1, 2]


NODE = {
    "cohere-ai, v2": """
        import {CohereClientV2} from "cohere-ai";
        const client = new CohereClientV2({token: KEY, environment: ADDRESS});
        const found = await client.rerank({model: "m", query: QUERY, documents: DOCS, topN: 2});
        console.log(JSON.stringify(found.results.map(r => r.index)));
    """,
    "cohere-ai, v1": """
        import {CohereClient} from "cohere-ai";
        const client = new CohereClient({token: KEY, baseUrl: ADDRESS});
        const found = await client.rerank({query: QUERY, documents: DOCS, topN: 2});
        console.log(JSON.stringify(found.results.map(r => r.index)));
    """,
    "@ai-sdk/cohere": """
        import {createCohere} from "@ai-sdk/cohere";
        import {rerank} from "ai";
        const cohere = createCohere({apiKey: KEY, baseURL: ADDRESS + "/v2"});
        const found = await rerank(
            {model: cohere.reranking("m"), query: QUERY, documents: DOCS, topN: 2});
        console.log(JSON.stringify(found.ranking.map(r => r.originalIndex)));
    """,
}


@pytest.mark.parametrize("client", list(NODE))
def test_node(address: str, client: str) -> None:
    folder = os.environ.get("ERANK_LITE_NODE")
    if folder is None or shutil.which("node") is None:
        pytest.skip("ERANK_LITE_NODE names no folder of modules, or there is no node")
    given = {"ADDRESS": address, "KEY": KEY, "QUERY": QUERY, "DOCS": DOCS}
    script = "".join(f"const {name} = {json.dumps(value)};" for name, value in given.items())
    done = subprocess.run(
        ["node", "--input-type=module", "-e", NODE[client].replace("const", script + "const", 1)],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 2]


def test_langchains_infinity(open_address: str) -> None:
    """LangChain's own compressor over infinity-client, which it wants without a key."""
    rerank = pytest.importorskip("langchain_community.document_compressors.infinity_rerank")
    client = pytest.importorskip("infinity_client").Client(base_url=open_address)
    page = pytest.importorskip("langchain_core.documents").Document
    compressor = rerank.InfinityRerank(client=client, model="m", top_n=2)
    found = compressor.compress_documents([page(page_content=text) for text in DOCS], QUERY)
    assert [document.page_content for document in found] == [DOCS[1], DOCS[2]]
