"""The server, in the dialects of its clients: what they send, and what they read of the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
import itertools

from starlette.testclient import TestClient
from support.answering import answering

from erank_lite import ModelError, Reranker
from erank_lite.search import Folders
from erank_lite.serve.app import Server, Settings
from erank_lite.serve.guard import Guard
from erank_lite.serve.models import Models
from erank_lite.serve.relevance import relevance

DOCS = ["The bakery opens at six.", "A loaf stays fresh in a bread box.", "Bread is baked."]
ANSWERS = {DOCS[0]: 0, DOCS[1]: 9, DOCS[2]: 6, "empty-headed": 3}
OBJECTS = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/v2/rerank", "/v1/v2/rerank",
           "/v1/v1/rerank")  # fmt: skip
ARRAYS = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")


def served(
    settings: Settings | None = None, folders: Folders | None = None, **models: Any
) -> TestClient:
    found = Models(["small", "other"], lambda name: Reranker(answering(ANSWERS)), **models)
    settings = settings or Settings(Guard(hosts=frozenset({"testserver"})))
    return TestClient(Server(found, settings, folders).app())


@pytest.fixture
def client() -> Iterator[TestClient]:
    with served() as found:
        wait_until_ready(found)
        yield found


def wait_until_ready(client: TestClient) -> None:
    for _ in range(200):
        if client.get("/health").status_code == 200:
            return
    raise AssertionError("it is not ready")


def body(**more: Any) -> dict[str, Any]:
    return {"query": "bread fresh box", "documents": DOCS, **more}


# As llama-server is tested


@pytest.mark.parametrize("path", OBJECTS)
def test_documents_come_back_best_first(client: TestClient, path: str) -> None:
    answer = client.post(path, json=body())
    assert answer.status_code == 200
    found = answer.json()
    assert [r["index"] for r in found["results"]] == [1, 2, 0]
    assert [r["relevance_score"] for r in found["results"]] == pytest.approx([0.45, 0.3, 0.0])
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"] > 0
    assert found["id"] and found["model"] == "small"
    assert ("object" in found) == path.startswith("/v1")


@pytest.mark.parametrize("path", ARRAYS)
def test_texts_come_back_as_a_bare_list(client: TestClient, path: str) -> None:
    found = client.post(path, json={"query": "bread", "texts": DOCS}).json()
    assert [set(r) for r in found] == [{"index", "score"}] * 3
    assert [r["index"] for r in found] == [1, 2, 0]
    shown = client.post(path, json={"query": "bread", "texts": DOCS, "return_text": True}).json()
    assert [r["text"] for r in shown] == [DOCS[1], DOCS[2], DOCS[0]]


@pytest.mark.parametrize("path", OBJECTS)
@pytest.mark.parametrize("documents", [[], None, 123, [1, 2, 3], [{"id": 1}], [None]])
def test_what_are_no_documents_is_refused(client: TestClient, path: str, documents: Any) -> None:
    answer = client.post(path, json={"query": "bread", "documents": documents})
    assert answer.status_code == 400
    found = answer.json()
    assert found["message"] == found["detail"] == found["error"]["message"]
    assert found["error"]["code"] == 400 and found["error"]["param"] == "documents"


@pytest.mark.parametrize("top_n", [None, 0, 2, 4, 99])
def test_the_first_n_are_given(client: TestClient, top_n: int | None) -> None:
    wanted = min(top_n or 3, 3)
    assert len(client.post("/rerank", json=body(top_n=top_n)).json()["results"]) == wanted
    texts = {"query": "bread", "texts": DOCS, "top_n": top_n}
    assert len(client.post("/rerank", json=texts).json()) == wanted
    assert len(client.post("/rerank", json=body(top_k=top_n)).json()["results"]) == wanted


# What clients send

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere v2": ("/v2/rerank", body(model="m", top_n=2)),
    "cohere v2, all fields": (
        "/v2/rerank",
        body(model="m", max_tokens_per_doc=100, relevant_spans={"mode": "enabled"}, priority=1),
    ),
    "cohere v1": (
        "/v1/rerank",
        body(documents=[{"text": d, "id": "x"} for d in DOCS], top_n=2, return_documents=True),
    ),
    "langchain-cohere": ("/v2/rerank", body(model="m", top_n=2, max_tokens_per_doc=None)),
    "jina": ("/v1/rerank", body(model="jina-reranker-v1-base-en", top_n=2)),
    "rerankers": ("/v1/rerank", body(model="rerank-x", top_n=3, return_documents=True)),
    "infinity": ("/rerank", body(model="m", return_documents=False, raw_scores=False)),
    "vllm, haystack": ("/v1/rerank", body(model="m", top_n=2, instruction="beir")),
    "xinference": ("/v1/rerank", body(model="m", return_documents="true", return_len="true")),
    "litellm": ("/v2/rerank", body(model="rerank-v3.5", top_n=2, return_documents=True)),
    "librechat": (
        "/v1/rerank",
        body(model="jina-reranker-v2-base-multilingual", top_n=2, return_documents=True),
    ),
    "open webui": ("/v1/rerank", body(model="m", top_n=3)),
    "a document alone": ("/v1/rerank", body(documents=DOCS[1])),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_clients_send_is_answered(client: TestClient, name: str) -> None:
    path, sent = REQUESTS[name]
    answer = client.post(path, json=sent)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    single = isinstance(sent["documents"], str)
    assert found["results"][0]["index"] == (0 if single else 1)
    assert found["model"] == sent.get("model", "small")
    given = sent.get("return_documents")
    shown = given in (True, "true") or (given is None and not path.startswith("/v2"))
    for result in found["results"]:
        assert ("document" in result) == shown
    assert found["meta"]["api_version"]["version"] == ("2" if path.startswith("/v2") else "1")


ARRAY_REQUESTS: dict[str, dict[str, Any]] = {
    "tei, haystack": {"raw_scores": False, "truncate": True, "truncation_direction": "Left"},
    "tei, litellm": {"top_n": 2, "return_text": True, "truncation_direction": "Right"},
    "tei, llama-index": {},
    "rerankers": {"model": "x", "top_n": 3, "return_text": True},
}


@pytest.mark.parametrize("name", ARRAY_REQUESTS)
def test_what_clients_of_tei_send_is_answered(client: TestClient, name: str) -> None:
    sent = {"query": "bread fresh box", "texts": DOCS} | ARRAY_REQUESTS[name]
    found = client.post("/rerank", json=sent).json()
    assert found[0]["index"] == 1 and len(found) == sent.get("top_n", 3)


def test_an_object_keeps_its_own_keys(client: TestClient) -> None:
    documents = [{"text": DOCS[0], "id": 7}, {"content": DOCS[1], "page": 3}]
    found = client.post("/v1/rerank", json=body(documents=documents)).json()["results"]
    assert found[0]["document"] == {"content": DOCS[1], "page": 3, "text": DOCS[1]}
    assert found[1]["document"] == {"text": DOCS[0], "id": 7}


def test_fields_to_rank_by_become_yaml(client: TestClient) -> None:
    documents = [{"title": "a", "body": "b", "other": "c"}]
    sent = body(documents=documents, rank_fields=["title", "body"], return_documents=True)
    found = client.post("/v1/rerank", json=sent).json()["results"]
    assert found[0]["document"]["text"] == "title: a\nbody: b"


def test_each_document_has_an_entry_a_failed_one_too(client: TestClient) -> None:
    found = client.post("/v1/rerank", json=body(documents=[*DOCS, " "])).json()["results"]
    assert sorted(r["index"] for r in found) == [0, 1, 2, 3]
    assert found[-1]["relevance_score"] == 0 and found[-1]["failure"] == "the document is empty"


def test_what_is_our_own_is_told_beside(client: TestClient) -> None:
    found = client.post("/v1/rerank", json=body(return_reasoning=True)).json()["results"][0]
    assert (found["score"], found["probability"], found["rank_score"]) == (9, 0.5, 4.5)
    assert found["level"] == "full" and found["reasoning"] == ""
    raw = client.post("/v1/rerank", json=body(raw_scores=True)).json()["results"][0]
    assert raw["relevance_score"] == 4.5


def test_a_request_may_think_in_its_own_way_and_read_less(client: TestClient) -> None:
    found = client.post("/v1/rerank", json=body(thinking="none", depth=1)).json()["results"]
    assert [r["level"] for r in found] == ["full", None, None]
    assert [r["index"] for r in found] == [0, 1, 2]


@pytest.mark.parametrize(
    "sent",
    [
        {"text_1": "q", "text_2": DOCS},
        {"queries": ["q"], "documents": DOCS},
        {"data_1": ["q", "q", "q"], "data_2": DOCS},
        {"queries": "q", "items": DOCS},
    ],
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_pairs_are_scored_in_their_order(
    client: TestClient, path: str, sent: dict[str, Any]
) -> None:
    found = client.post(path, json=sent).json()
    assert [r["index"] for r in found["data"]] == [0, 1, 2]
    assert [r["score"] for r in found["data"]] == pytest.approx([0, 0.45, 0.3], abs=1e-8)


def test_many_pairs_of_many_queries_are_scored(client: TestClient) -> None:
    sent = {"text_1": [f"q{i}" for i in range(60)], "text_2": DOCS * 20}
    found = client.post("/score", json=sent).json()["data"]
    assert [r["index"] for r in found] == list(range(60))
    assert [r["score"] for r in found] == pytest.approx([0.0, 0.45, 0.3] * 20)


def test_pairs_of_other_lengths_are_refused(client: TestClient) -> None:
    answer = client.post("/score", json={"text_1": ["q", "r"], "text_2": DOCS})
    assert answer.status_code == 400 and "1:1, 1:N or N:N" in answer.json()["error"]["message"]


# What cannot be answered

WRONG: dict[str, tuple[dict[str, Any], int]] = {
    "no query": ({"documents": DOCS}, 400),
    "a query of another type": (body(query=3), 400),
    "an empty query": (body(query=" "), 400),
    "a negative number": (body(top_n=-1), 400),
    "a number with a fraction": (body(top_n=1.5), 400),
    "a number as text": (body(top_n="2"), 400),
    "no boolean": (body(return_documents="perhaps"), 400),
    "no mode of thinking": (body(thinking="deeply"), 400),
    "no depth": (body(depth=0), 400),
    "no model's name": (body(model=7), 400),
    "an instruction of another type": (body(instruction=["a"]), 400),
    "too many documents": (body(documents=["a"] * 1_001), 413),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_told(client: TestClient, name: str) -> None:
    sent, status = WRONG[name]
    answer = client.post("/v1/rerank", json=sent)
    assert answer.status_code == status
    assert "\n" not in answer.json()["message"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b'"text"', b"null", b"[" * 100_000, b'{"query": NaN}', b"\xff\xfe{}"],
)
def test_a_body_that_is_no_object_is_refused(client: TestClient, data: bytes) -> None:
    answer = client.post("/v1/rerank", content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == 400


def test_a_lone_surrogate_is_a_character_like_others(client: TestClient) -> None:
    data = b'{"query": "\\ud800 q", "documents": ["a \\udfff b", "c"]}'
    answer = client.post("/v1/rerank", content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and len(answer.json()["results"]) == 2


def test_another_type_of_content_is_refused(client: TestClient) -> None:
    """A page of another site can post text without asking first."""
    sent = json.dumps(body())
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/rerank", content=sent, headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_a_query_too_long_for_the_model_is_told(client: TestClient) -> None:
    for sent in (body(query="sky " * 9_000), body(instruction="sky " * 9_000)):
        answer = client.post("/rerank", json=sent)
        assert answer.status_code == 400 and "before any document" in answer.json()["message"]
    pairs = {"text_1": ["sky " * 9_000, "q"], "text_2": ["a", "b"]}
    assert client.post("/score", json=pairs).status_code == 400
    assert client.post("/rerank", json=body(query="a" * 100_001)).status_code == 413


def test_a_number_that_json_lacks_comes_back_as_null(client: TestClient) -> None:
    data = b'{"query": "q", "documents": [{"text": "a", "x": 1e999}]}'
    answer = client.post("/v1/rerank", content=data, headers={"Content-Type": "application/json"})
    assert answer.json()["results"][0]["document"] == {"text": "a", "x": None}


def test_what_is_wrong_is_not_repeated_at_length(client: TestClient) -> None:
    for name, value in (("within", 10**400), ("depth", [["x" * 9_000]]), ("token_budget", {})):
        answer = client.post("/rerank", json=body(**{name: value}))
        assert answer.status_code == 400 and len(answer.text) < 600
        assert answer.json()["error"]["param"] == name


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post("/rerank", content=b"{}", headers=headers).status_code == 415


def test_errors_of_tei_are_in_its_form(client: TestClient) -> None:
    answer = client.post("/rerank", json={"query": "", "texts": DOCS})
    assert answer.status_code == 400 and answer.json()["error_type"] == "Validation"


def test_other_routes_and_methods(client: TestClient) -> None:
    assert client.get("/nowhere").status_code == 404
    assert client.get("/v1/rerank").status_code == 405
    assert client.get("/nowhere").json()["error"]["type"] == "not_found_error"


def test_a_body_that_is_too_large() -> None:
    guard = Guard(hosts=frozenset({"testserver"}), max_body=1_000)
    with served(Settings(guard)) as client:
        wait_until_ready(client)
        answer = client.post("/rerank", json=body(documents=["a" * 2_000]))
        assert answer.status_code == 413


def test_no_more_documents_wait_than_there_is_room_for() -> None:
    settings = Settings(Guard(hosts=frozenset({"testserver"})), max_waiting=2)
    server = Server(Models(["small"], lambda _: Reranker(answering(ANSWERS))), settings)
    with TestClient(server.app()) as client:
        wait_until_ready(client)
        assert client.post("/rerank", json=body()).status_code == 200  # alone, it may be large
        server._waiting = 1
        answer = client.post("/rerank", json=body())
        assert answer.status_code == 429 and answer.headers["retry-after"]


# Who may ask


def test_the_key_is_taken_from_any_header() -> None:
    guard = Guard(key="SECRET", hosts=frozenset({"testserver"}))
    with served(Settings(guard)) as client:
        wait_until_ready(client)  # health is open
        assert client.get("/").status_code == 200
        for headers in ({}, {"Authorization": "Bearer bad"}, {"X-Api-Key": ""}):
            for path in ("/rerank", "/v2/rerank", "/score", "/erank/stream"):
                answer = client.post(path, json=body(), headers=headers)
                assert answer.status_code == 401
                assert answer.json()["detail"] == "the API key is missing or wrong"
            assert client.get("/v1/models", headers=headers).status_code == 401
            assert client.get("/metrics", headers=headers).status_code == 401
        for headers in (
            {"Authorization": "Bearer SECRET"},
            {"Authorization": "SECRET"},
            {"X-Api-Key": "SECRET"},
            {"X-Api-Key": "SECRET", "Authorization": "Basic abc"},
        ):
            assert client.post("/rerank", json=body(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200), ("localhost", 200), ("[::1]:80", 200), ("testserver", 200),
        ("evil.example", 403), ("evil.example:8765", 403), ("localhost.evil.example", 403),
        ("localhost:1/health?", 400), ("localhost:pw@evil.example", 400), ("[127.0.0.1", 400),
        ("127.0.0.1:x", 400), ("", 400),
    ],
)  # fmt: skip
def test_a_page_that_has_the_browser_ask_is_refused(
    client: TestClient, host: str, status: int
) -> None:
    assert client.get("/v1/models", headers={"Host": host}).status_code == status


# Models


def test_an_unknown_name_gets_the_default_model_and_is_echoed(client: TestClient) -> None:
    assert client.post("/rerank", json=body(model="rerank-v3.5")).json()["model"] == "rerank-v3.5"
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["small", "other"]
    assert client.get("/info").json()["model_type"].keys() == {"reranker"}


def test_another_model_is_loaded_when_it_is_asked_for_and_the_idle_one_put_away() -> None:
    loaded: list[str] = []

    def load(name: str) -> Reranker:
        loaded.append(name)
        return Reranker(answering(ANSWERS))

    models = Models(["small", "other"], load, memory=lambda _: 100, free=lambda: 50)
    app = Server(models, Settings(Guard(hosts=frozenset({"testserver"})))).app()
    with TestClient(app) as client:
        wait_until_ready(client)
        client.post("/rerank", json=body(model="other"))
        assert loaded == ["small", "other"] and list(models.loaded()) == ["other"]
        client.post("/rerank", json=body())
        assert loaded == ["small", "other", "small"]


def test_while_the_model_is_loading() -> None:
    class Slow(Models):
        ready = False  # type: ignore[assignment]

    models = Slow(["small"], lambda _: Reranker(answering(ANSWERS)))
    with TestClient(Server(models, Settings(Guard(hosts=frozenset({"testserver"})))).app()) as c:
        answer = c.get("/health")
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "message": "Loading model", "type": "unavailable_error", "param": None, "code": 503,
        }  # fmt: skip


def test_a_model_that_fails_is_loaded_anew() -> None:
    engines = [answering(ANSWERS), answering(ANSWERS)]
    engines[0].close()
    served = iter(engines)
    models = Models(["small"], lambda _: Reranker(next(served)))
    with TestClient(Server(models, Settings(Guard(hosts=frozenset({"testserver"})))).app()) as c:
        wait_until_ready(c)
        first = c.post("/rerank", json=body())
        assert first.status_code == 503 and first.headers["retry-after"]
        assert c.post("/rerank", json=body()).status_code == 200


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def load(_: str) -> Reranker:
        raise ModelError("there is no file `a.gguf`")

    app = Server(Models(["a.gguf"], load), Settings(Guard(hosts=frozenset({"testserver"})))).app()
    with TestClient(app) as client:
        for _ in range(200):
            answer = client.post("/rerank", json=body())
            if "Loading" not in answer.json()["message"]:
                break
        assert answer.status_code == 503
        assert answer.json()["message"] == "the model cannot answer now"  # names no file
        assert client.get("/health").json()["message"] == "the model cannot be loaded"


# The page, and what it uses


def test_the_stream_tells_each_document_and_the_order(client: TestClient) -> None:
    with client.stream("POST", "/erank/stream", json=body()) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[0] == {"model": "small", "documents": 3}
    assert sorted(line["index"] for line in lines[1:-1]) == [0, 1, 2]
    assert lines[-1]["order"] == [1, 2, 0]


def test_the_page_asks_no_other_host(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("app.js", "style.css"):
        found = client.get(f"/page/{name}")
        assert found.status_code == 200 and "http://" not in found.text
    assert "http" not in page.text.replace("<!doctype html>", "")
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/other.txt").status_code == 404


def test_the_key_holds_whatever_the_host_header_says() -> None:
    guard = Guard(key="SECRET", hosts=frozenset({"testserver"}))
    with served(Settings(guard)) as client:
        answer = client.post("/rerank", json=body(), headers={"Host": "localhost:1/health?"})
        assert answer.status_code == 400


def test_what_others_ask_for_does_not_fill_the_metrics(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/page/{number}")
        client.get(f"/nowhere/{number}")
    text = client.get("/metrics").text
    assert 'route="/page/{name}",status="404"} 20.0' in text
    assert 'route="other",status="404"} 20.0' in text and "/nowhere" not in text


def test_the_stream_is_refused_as_other_routes_are() -> None:
    settings = Settings(Guard(hosts=frozenset({"testserver"})), max_waiting=2)
    server = Server(Models(["small"], lambda _: Reranker(answering(ANSWERS))), settings)
    with TestClient(server.app()) as client:
        wait_until_ready(client)
        assert client.post("/erank/stream", json=body()).status_code == 200
        assert 'level="full"} 3.0' in client.get("/metrics").text
        server._waiting = 1
        assert client.post("/erank/stream", json=body()).status_code == 429


def test_a_model_is_asked_for_by_the_name_that_was_typed() -> None:
    loaded: list[str] = []

    def load(name: str) -> Reranker:
        loaded.append(name)
        return Reranker(answering(ANSWERS))

    models = Models(["small", "a, b=1"], load, aliases={"a,b=1": "a, b=1"})
    with TestClient(Server(models, Settings(Guard(hosts=frozenset({"testserver"})))).app()) as c:
        wait_until_ready(c)
        assert c.post("/rerank", json=body(model="a,b=1")).json()["model"] == "a,b=1"
        assert loaded == ["small", "a, b=1"]


def test_metrics_count(client: TestClient) -> None:
    client.post("/rerank", json=body())
    text = client.get("/metrics").text
    assert 'erank_lite_documents_total{level="full"} 3.0' in text
    assert 'erank_lite_requests_total{route="/rerank",status="200"} 1.0' in text


# Relevance


def result(rank_score: float | None, expected: float | None = None, **more: Any) -> dict[str, Any]:
    return {"rank_score": rank_score, "expected_score": expected, **more}


def test_the_number_carries_the_order_of_ties() -> None:
    found = relevance([result(10.0, 9.9), result(0.0, 0.3), result(0.0, 0.2), result(0.0, 0.2)])
    assert found == [1.0, 1e-9, 0.0, 0.0]


def test_a_thousand_ties_stay_within_a_millionth() -> None:
    results = [result(3.0, 3.0 - i / 2_000) for i in range(1_000)]
    found = relevance(results)
    assert all(a > b for a, b in itertools.pairwise(found))
    assert all(math.isclose(number, 0.3, abs_tol=1e-6) for number in found)


def test_it_never_exceeds_one() -> None:
    found = relevance([result(10.0, 10.0 - i / 100) for i in range(50)])
    assert found[0] == 1.0 and found[-1] < found[-2] <= 1.0


def test_what_was_not_read_is_placed_by_its_estimate() -> None:
    found = relevance(
        [
            result(8.0, 8.0),
            result(None, None, estimate=4.0, level=None),
            result(None, None, estimate=4.0, level=None),
            result(1.0, 1.0),
            result(None, None, failure="broken"),
        ]
    )
    assert found == pytest.approx([0.8, 0.4, 0.4, 0.1, 0.0]) and found[1] > found[2]


# Files


def test_files_are_searched_by_their_names_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, text in enumerate(DOCS):
        (notes / f"{number}.txt").write_text(text)
    key = {"Authorization": "Bearer K"}
    settings = Settings(Guard("K", frozenset({"testserver"})))
    with served(settings, Folders([notes], tmp_path / "index")) as client:
        wait_until_ready(client)
        assert client.post("/erank/search", json={"query": "bread"}).status_code == 401
        assert client.get("/erank/folders").status_code == 401
        assert client.get("/erank/folders", headers=key).json() == {"folders": ["notes"]}
        answer = client.post("/erank/search", json={"query": "bread fresh box"}, headers=key)
        first, *results, last = [json.loads(line) for line in answer.text.splitlines()]
        assert str(tmp_path) not in answer.text
        assert {p["path"] for p in first["passages"]} == {"notes/1.txt", "notes/2.txt"}
        assert first["passages"][0]["number"] == 1 and first["unread"] == 0
        best = first["passages"][last["order"][0]]
        assert best["text"] == DOCS[1] and best["sentences"] == [DOCS[1]]
        assert sorted(r["index"] for r in results) == [0, 1]
        for wrong in ({"query": ""}, {"query": 3}, {"query": "b", "candidates": 0},
                      {"query": "b", "candidates": "many"}, {"query": "b", "folder": 3},
                      {"query": "b", "folder": "elsewhere"}):  # fmt: skip
            assert client.post("/erank/search", json=wrong, headers=key).status_code == 400
        nothing = client.post("/erank/search", json={"query": "xylophone"}, headers=key)
        assert json.loads(nothing.text.splitlines()[-1])["order"] == []


def test_without_folders_nothing_is_searched(client: TestClient) -> None:
    assert client.get("/erank/folders").json() == {"folders": []}
    assert client.post("/erank/search", json={"query": "bread"}).status_code == 404
