"""The remote engine: as if the model were here, whatever the server does."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.command import skip_where_ignored
from support.completion_server import LLAMA, VLLM, CompletionServer, serving
from support.engines import engine_writing
from support.tokenizers import CHAT_TEMPLATE, byte_tokenizer

from erank_lite import InputError, ModelError, Reranker
from erank_lite.engines.choose import plan
from erank_lite.engines.fake import FakeEngine
from erank_lite.engines.remote import engine as remote
from erank_lite.engines.remote import pool
from erank_lite.engines.remote.engine import RemoteEngine
from erank_lite.machine.hardware import probe
from erank_lite.machine.shapes import ModelInfo
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Prompt, Request

TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode_trusted("<|im_end|>")[0]
GOOD = "<think>so it is</think><answer>7</answer>"
KINDS = pytest.mark.parametrize("kind", [VLLM, LLAMA])


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BACKOFF", 0.01)


def load_remote(url: str, **options: object) -> RemoteEngine:
    return RemoteEngine(url, plan(ModelInfo("server"), probe(), "remote", options))


def write_folder(
    path: Path, tokenizer: Tokenizer = TOKENIZER, template: str = CHAT_TEMPLATE
) -> Path:
    """Write what a checkpoint folder says of its text; there are no weights."""
    path.mkdir(exist_ok=True)
    tokenizer._backend.save(str(path / "tokenizer.json"))
    end = tokenizer.encode_trusted("<|im_end|>")[0]
    (path / "config.json").write_text(json.dumps({"eos_token_id": end}))
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "checkpoint")


def by_document(answers: dict[str, str]) -> FakeEngine:
    """Return an engine that writes `answers` by the document's text."""

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        text = TOKENIZER.decode(prompt.ids)
        wanted = [*TOKENIZER.encode_trusted(next(a for d, a in answers.items() if d in text)), END]
        follows = wanted[: len(ids)] == list(ids)
        return [(wanted[len(ids)] if follows and len(ids) < len(wanted) else END, 0.5)]

    return FakeEngine(TOKENIZER, script, CHAT_TEMPLATE, [END])


@pytest.fixture(params=[VLLM, LLAMA])
def server(request: pytest.FixtureRequest) -> Iterator[CompletionServer]:
    with serving(CompletionServer(engine_writing(GOOD), request.param)) as served:
        yield served


def same(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    numbers = ("probability", "rank_score", "expected_score")
    other = (*numbers, "engine")
    assert {k: v for k, v in theirs.items() if k not in other} == {
        k: v for k, v in ours.items() if k not in other
    }
    for name in numbers:
        assert theirs[name] == pytest.approx(ours[name], abs=1e-9)


@KINDS
@pytest.mark.parametrize(
    ("text", "thinking", "options"),
    [
        (GOOD, "full", {}),
        ("<think>so</think>\n\n<answer>10</answer>", "full", {}),
        ("<think>so</think><answer>0</answer>", "full", {}),
        ("<think>so</think><answer> 1 ", "full", {}),
        ("<think>so</think><answer>seven</answer>", "full", {}),
        ("<think>it ended before it", "full", {}),
        ("<think>so</think>, no answer", "full", {"after_force": "10</answer>"}),
        ("<think>na\u00efve \U0001f600 \u4f60</think><answer>9</answer>", "full", {}),
        ("<think>a < b <answer </think><b><answer>4</answer>", "full", {}),
        ("<think>" + "again and " * 60, "full", {}),
        ("<think>a long reasoning, longer than its budget</think>", 12, {}),
        ("<think>\U0001f600\U0001f600\U0001f600</think><answer>9</answer>", 9, {}),
        (GOOD, 100, {}),
        ("", "none", {}),
        ("", "none", {"after_force": "0</answer>"}),
        ("", "none", {"after_force": "10</answer>"}),
        ("", "none", {"after_force": "well"}),
        ("so</think><answer>5</answer>", "full", {"thought": "<think>\n"}),
    ],
)
def test_results_are_those_of_an_engine_that_is_here(
    tmp_path: Path, kind: str, text: str, thinking: str | int, options: dict[str, str]
) -> None:
    options = dict(options)
    docs = ["one", "two"]
    opening = "assistant\n" + options.pop("thought", "")
    template = CHAT_TEMPLATE.replace("assistant\n", opening)
    here = engine_writing(text, template=template, **options)  # type: ignore[arg-type]
    ours = Reranker(here, thinking=thinking).rerank("query", docs)
    folder = write_folder(tmp_path / "c", template=template)
    with (
        serving(CompletionServer(here, kind, opening=f"<|im_start|>{opening}")) as server,
        Reranker(server.url, tokenizer=folder, thinking=thinking) as reranker,
    ):
        theirs = reranker.rerank("query", docs)
        assert reranker.engine.tokens_generated == here.tokens_generated
    for a, b in zip(theirs, ours, strict=True):
        same(a, b)


def test_probabilities_are_asked_for_only_where_they_are_wanted(
    server: CompletionServer, folder: Path
) -> None:
    with Reranker(server.url, tokenizer=folder) as reranker:
        server.misbehave(lambda number, body: None)
        reranker.rerank("query", ["document"])
    first, second = server.bodies
    assert not first.get("logprobs") and not first.get("n_probs")
    assert second.get("logprobs") == 20 or second.get("n_probs") == 20
    # The second goes on where the first was closed.
    written = second["prompt"][len(first["prompt"]) :]
    assert second["prompt"][: len(first["prompt"])] == first["prompt"]
    assert TOKENIZER.decode(written) == "<think>so it is</think><"


@KINDS
def test_an_end_that_the_server_keeps_to_itself_is_an_end(folder: Path, kind: str) -> None:
    engine = engine_writing("<think>it ended before it")
    served = CompletionServer(engine, kind, ends_silently=True)
    with serving(served), Reranker(served.url, tokenizer=folder) as reranker:
        (result,) = reranker.rerank("query", ["document"])
    assert (result["score"], result["forced"]) == (3, True)
    assert result["reasoning"] == "it ended before it"


def test_strict_takes_one_at_a_time_and_nothing_from_the_cache(
    server: CompletionServer, folder: Path
) -> None:
    running = threading.Lock()

    def alone(number: int, body: dict[str, Any]) -> None:
        assert running.acquire(timeout=0)
        time.sleep(0.02)
        running.release()

    with Reranker(server.url, tokenizer=folder, strict=True) as reranker:
        server.misbehave(alone)
        results = reranker.rerank("query", ["a", "b", "c"])
    assert [r["score"] for r in results] == [7, 7, 7]
    if server.kind == LLAMA:
        assert not any(body["cache_prompt"] for body in server.bodies)
    else:
        assert len({body["cache_salt"] for body in server.bodies}) == len(server.bodies)


def test_so_many_requests_are_under_way_at_once(server: CompletionServer, folder: Path) -> None:
    together = threading.Barrier(5)
    with Reranker(server.url, tokenizer=folder, sequences=5, thinking="none") as reranker:
        server.misbehave(lambda number, body: together.wait(10) and None if number < 5 else None)
        results = reranker.rerank("query", [f"document {i}" for i in range(12)])
    assert not together.broken
    assert [r["score"] for r in results] == [3] * 12


def test_llama_server_says_how_many_places_it_has(folder: Path) -> None:
    together = threading.Barrier(3)
    served = CompletionServer(engine_writing(GOOD), LLAMA, places=3)
    with serving(served), Reranker(served.url, tokenizer=folder, thinking="none") as reranker:
        served.misbehave(lambda number, body: together.wait(10) and None if number < 3 else None)
        assert len(reranker.rerank("query", ["a", "b", "c", "d"])) == 4
    assert not together.broken


def requests_for(reranker: Reranker, count: int, taken: list[int]) -> Iterator[Request[Any]]:
    prompts = reranker._asker.query("query", None, None)
    for key in range(count):
        taken.append(key)
        prompt = prompts.document(f"document {key}", 4000)
        asker = reranker._asker
        make = functools.partial(asker.guide, prompt)
        yield Request(key, prompt, make, asker.max_tokens())


def test_requests_are_read_as_places_become_free(server: CompletionServer, folder: Path) -> None:
    taken: list[int] = []
    with Reranker(server.url, tokenizer=folder, sequences=2, thinking="none") as reranker:
        completions = reranker.engine.run(requests_for(reranker, 100, taken))
        next(completions)
        assert len(taken) <= 12  # two under way, and four times as many waiting
        completions.close()
        assert len(taken) <= 12


def test_closing_early_hangs_up(server: CompletionServer, folder: Path) -> None:
    hanging = threading.Semaphore(0)

    def hang(number: int, body: dict[str, Any]) -> str | None:
        if number == 0:
            return None
        hanging.release()
        return "hang"

    with Reranker(server.url, tokenizer=folder, sequences=4, thinking="none") as reranker:
        server.misbehave(hang)
        results = reranker.iter_rerank("query", [f"document {i}" for i in range(9)])
        next(results)
        for _ in range(3):
            assert hanging.acquire(timeout=5)
        start = time.monotonic()
        results.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 2
        server.misbehave(lambda number, body: None)
        assert len(reranker.rerank("query", ["a", "b"])) == 2


def test_runs_share_the_server(server: CompletionServer, folder: Path) -> None:
    with Reranker(server.url, tokenizer=folder, sequences=2, thinking="none") as reranker:
        first = reranker.engine.run(requests_for(reranker, 20, []))
        next(first)
        assert len(list(reranker.engine.run(requests_for(reranker, 5, [])))) == 5
        assert len(list(first)) == 19


def test_a_closed_engine_says_so(server: CompletionServer, folder: Path) -> None:
    engine = load_remote(server.url, tokenizer=folder)
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        list(engine.run([]))


# What may pass


@pytest.mark.parametrize(
    "fault", [500, 503, 429, "cut", "cut later", "end later", "garbage", "error", "html"]
)
def test_a_fault_that_passes_changes_nothing(
    server: CompletionServer, folder: Path, fault: int | str
) -> None:
    with Reranker(server.url, tokenizer=folder, sequences=1) as reranker:
        server.misbehave(lambda number, body: fault if number in (0, 3) else None)
        results = reranker.rerank("query", ["one", "two"])
        written = TOKENIZER.encode_trusted(GOOD)
        assert reranker.engine.tokens_generated == 2 * len(written) - 2 * len("</answer>") + 4
    assert [r["completion"] for r in results] == ["<think>so it is</think><answer>7</"] * 2
    assert [r["probability"] for r in results] == pytest.approx([0.5, 0.5])


def test_a_server_that_hangs_is_asked_again(server: CompletionServer, folder: Path) -> None:
    with Reranker(server.url, tokenizer=folder, timeout=1) as reranker:
        server.misbehave(lambda number, body: "hang later" if number == 0 else None)
        (result,) = reranker.rerank("query", ["document"])
    assert result["score"] == 7


def test_retry_after_is_heeded(server: CompletionServer, folder: Path) -> None:
    server.retry_after = "1"
    with Reranker(server.url, tokenizer=folder) as reranker:
        server.misbehave(lambda number, body: 429 if number == 0 else None)
        start = time.monotonic()
        (result,) = reranker.rerank("query", ["document"])
    assert result["score"] == 7
    assert time.monotonic() - start > 0.9


# What does not pass


def faulty_for(word: str, fault: int | str) -> Callable[[int, dict[str, Any]], int | str | None]:
    word_ids = list(TOKENIZER.encode_trusted(word))

    def decide(number: int, body: dict[str, Any]) -> int | str | None:
        ids = body["prompt"]
        found = any(ids[i : i + len(word_ids)] == word_ids for i in range(len(ids)))
        return fault if found else None

    return decide


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (500, "it answers 500: the fixture fails"),
        (400, "it answers 400: the fixture fails"),
        (413, "it answers 413"),
        ("cut", "the connection broke"),
        ("end", "broke the stream off"),
        ("garbage", "JSON that is malformed"),
        ("error", "the engine died"),
        ("html", "text/html"),
        ("hang", "said nothing for 1 seconds"),
        ("no logprobs", "no log-probabilities"),
        ("nan", "no numbers (NaN)"),
    ],
)
def test_a_document_that_cannot_be_completed_fails_alone(
    server: CompletionServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: int | str,
    reason: str,
) -> None:
    timeout = 1 if fault == "hang" else 30
    if fault == "hang":
        monkeypatch.setattr(remote, "_ATTEMPTS", 2)
    with Reranker(server.url, tokenizer=folder, timeout=timeout, thinking="none") as reranker:
        server.misbehave(faulty_for("poison", fault))
        results = reranker.rerank("query", ["poison", "a", "b", "c", "d"])
    assert [r["score"] for r in results] == [3, 3, 3, 3, None]
    assert results[-1]["content"] == "poison"
    assert reason in results[-1]["failure"]
    assert "\n" not in results[-1]["failure"]


def test_a_document_too_long_for_the_server_fails_alone(
    server: CompletionServer, folder: Path
) -> None:
    with Reranker(server.url, tokenizer=folder, thinking="none") as reranker:
        server.engine.context_length = 700
        results = reranker.rerank("query", ["a", "long " * 40])
    assert [r["failure"] is None for r in results] == [True, False]
    assert "longer than the context" in results[1]["failure"]


@pytest.mark.parametrize("fault", [500, 401, "cut", "hang", "garbage", "no logprobs"])
def test_a_server_that_is_gone_ends_the_run_after_what_was_finished(
    server: CompletionServer, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    finished = []
    timeout = 1 if fault == "hang" else 30
    if fault == "hang":
        monkeypatch.setattr(remote, "_ATTEMPTS", 2)
    with Reranker(server.url, tokenizer=folder, sequences=2, timeout=timeout) as reranker:
        # A document takes two requests.
        server.misbehave(lambda number, body: None if number < 8 else fault)
        start = time.monotonic()
        with pytest.raises(ModelError, match="gone") as caught:
            for result in reranker.iter_rerank("query", [f"document {i}" for i in range(1000)]):
                finished.append(result)
    assert time.monotonic() - start < 20
    assert "\n" not in caught.value.message and server.url in str(caught.value)
    scores = [r["score"] for r in finished]
    assert 2 <= scores.count(7) <= 4
    assert scores.count(None) <= 6


def test_a_server_that_stops_listening_is_gone(folder: Path) -> None:
    results = []
    with serving(CompletionServer(engine_writing(GOOD))) as server:
        reranker = Reranker(server.url, tokenizer=folder, sequences=2)
        waiting = reranker.iter_rerank("query", [f"document {i}" for i in range(1000)])
        results.append(next(waiting))
    with pytest.raises(ModelError, match="gone"):
        results += waiting
    reranker.close()


# Several servers


@pytest.fixture
def two(folder: Path) -> Iterator[tuple[CompletionServer, CompletionServer]]:
    """Two servers of one model, vLLM and llama-server."""
    with (
        serving(CompletionServer(engine_writing(GOOD), VLLM)) as one,
        serving(CompletionServer(engine_writing(GOOD), LLAMA)) as other,
    ):
        yield one, other


def at_both(one: CompletionServer, other: CompletionServer) -> str:
    return f"{one.url},{other.url}"


DOCUMENTS = [f"document {i}" for i in range(60)]


def test_servers_share_the_documents(
    two: tuple[CompletionServer, CompletionServer], folder: Path
) -> None:
    full = threading.Barrier(32 + 4)  # passed only where each server has all that it takes on

    def first(places: int) -> Callable[[int, dict[str, Any]], None]:
        def wait(number: int, body: dict[str, Any]) -> None:
            if number < places:
                full.wait(timeout=20)

        return wait

    with Reranker(at_both(*two), tokenizer=folder) as reranker:
        assert reranker.engine.plan.sequences == 32 + 4
        two[0].misbehave(first(32))
        two[1].misbehave(first(4))
        results = reranker.rerank("query", DOCUMENTS)
        assert all(server.url in reranker.engine.description for server in two)
    assert [r["score"] for r in results] == [7] * 60
    assert not full.broken


@pytest.mark.parametrize("fault", [500, 401, 404, "cut later", "garbage", "no logprobs"])
def test_what_one_server_fails_the_other_does(
    two: tuple[CompletionServer, CompletionServer], folder: Path, fault: int | str
) -> None:
    with Reranker(at_both(*two), tokenizer=folder) as reranker:
        two[0].misbehave(lambda number, body: fault)
        results = reranker.rerank("query", DOCUMENTS)
    assert [r["score"] for r in results] == [7] * 60


def test_a_server_that_fails_for_good_leaves_the_other_its_chance(
    two: tuple[CompletionServer, CompletionServer], folder: Path
) -> None:
    with Reranker(at_both(*two), tokenizer=folder) as reranker:
        two[0].misbehave(lambda number, body: 404)
        two[1].misbehave(lambda number, body: 503 if number < 2 else None)
        results = reranker.rerank("query", DOCUMENTS)
    assert [r["score"] for r in results] == [7] * 60


def test_a_server_that_comes_back_is_tried_again(
    two: tuple[CompletionServer, CompletionServer],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Reranker(at_both(*two), tokenizer=folder, sequences=2) as reranker:
        two[0].misbehave(lambda number, body: 503 if number < 3 else None)
        for _ in range(20):
            reranker.rerank("query", DOCUMENTS[:6])
            time.sleep(0.05)
    assert len(two[0].bodies) > 10
    assert f"{two[0].url} is left out" in caplog.text


def test_a_server_that_is_not_there_at_the_start_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(CompletionServer(engine_writing(GOOD))) as server:
        server.page = b"<html>not ready</html>"
        with serving(CompletionServer(engine_writing(GOOD))) as other:
            reranker = Reranker(f"{server.url},{other.url}", tokenizer=folder, sequences=2)
            assert f"{server.url} is left out" in caplog.text
            assert len(reranker.rerank("query", DOCUMENTS[:4])) == 4 and not server.bodies
            server.page = None
        # The other is gone now, and the first is there.
        results = reranker.rerank("query", DOCUMENTS[:4])
        assert [r["score"] for r in results] == [7] * 4
        reranker.close()
    with pytest.raises(ModelError, match="cannot be used"):
        load_remote(f"{server.url},{other.url}", tokenizer=folder)


def test_when_all_are_gone_the_run_ends(
    two: tuple[CompletionServer, CompletionServer], folder: Path
) -> None:
    with Reranker(at_both(*two), tokenizer=folder, sequences=2) as reranker:
        for server in two:
            server.misbehave(lambda number, body: None if number < 4 else 500)
        with pytest.raises(ModelError, match="gone") as caught:
            reranker.rerank("query", [f"document {i}" for i in range(1000)])
    assert all(server.url in str(caught.value) for server in two)


def test_a_document_that_all_refuse_fails_alone(
    two: tuple[CompletionServer, CompletionServer], folder: Path
) -> None:
    with Reranker(at_both(*two), tokenizer=folder, thinking="none") as reranker:
        for server in two:
            server.misbehave(faulty_for("poison", 400))
        results = reranker.rerank("query", ["poison", *DOCUMENTS])
    assert [r["score"] for r in results] == [3] * 60 + [None]


def test_a_server_of_another_model_is_found_out(
    two: tuple[CompletionServer, CompletionServer], folder: Path
) -> None:
    two[1].engine = FakeEngine(byte_tokenizer(["10"]), lambda *_: [], CHAT_TEMPLATE, [END])
    with pytest.raises(ModelError, match=r"tokenizer.*not that of the model at") as caught:
        load_remote(at_both(*two), tokenizer=folder)
    assert two[1].url in str(caught.value)


@pytest.mark.parametrize("end", ["127.0.0.1:8000", "http://", "http://127.0.0.1:99999", "ftp://a"])
def test_each_address_of_several_is_checked(end: str) -> None:
    with pytest.raises(InputError):
        load_remote(f"http://127.0.0.1:1,{end}")


# The start


def refusal(server: CompletionServer, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_remote(server.url, **options)
    message = str(caught.value)
    assert "\n" not in caught.value.message and server.url.removeprefix("http://") in message
    return message


def test_nothing_listens(folder: Path) -> None:
    with serving(CompletionServer(engine_writing(GOOD))) as server:
        pass
    message = refusal(server, tokenizer=folder)
    assert "cannot be reached" in message and "start it" in message


def test_a_web_page_is_no_server(server: CompletionServer, folder: Path) -> None:
    server.page = b"<html>Welcome to nginx</html>"
    assert "http://HOST:PORT" in refusal(server, tokenizer=folder)


def test_a_missing_path_says_what_to_give(server: CompletionServer, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)404.*http://HOST:PORT"):
        load_remote(f"{server.url}/elsewhere", tokenizer=folder)


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/", "/v1/completions"])
def test_the_usual_endings_of_an_address_are_fine(
    server: CompletionServer, folder: Path, ending: str
) -> None:
    load_remote(server.url + ending, tokenizer=folder).close()


def test_the_key_comes_from_the_environment(
    server: CompletionServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    assert "set ERANK_LITE_API_KEY" in refusal(server, tokenizer=folder)
    monkeypatch.setenv("ERANK_LITE_API_KEY", "wrong")
    message = refusal(server, tokenizer=folder)
    assert "is not the server's" in message and "wrong" not in message
    monkeypatch.setenv("ERANK_LITE_API_KEY", "secret")
    with Reranker(server.url, tokenizer=folder) as reranker:
        assert reranker.rerank("query", ["document"])[0]["score"] == 7


def test_an_unknown_model_is_named(server: CompletionServer, folder: Path) -> None:
    assert "it has erank" in refusal(server, tokenizer=folder, model="other")
    load_remote(server.url, tokenizer=folder, model="erank").close()


def test_another_tokenizer_is_found_out(server: CompletionServer, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", byte_tokenizer(["10"]))
    assert "give tokenizer=" in refusal(server, tokenizer=other)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("no logprobs", "only vLLM"),
        ("no ids", "only vLLM"),
        ("shifted", "tokenizer"),
        (500, "look at its log"),
        (400, "only vLLM"),
        ("html", "http://HOST:PORT"),
        ("garbage", "malformed"),
        ("cut", ""),
    ],
)
def test_a_server_that_cannot_do_it_says_so(folder: Path, fault: int | str, advice: str) -> None:
    with serving(CompletionServer(engine_writing(GOOD))) as server:
        server.fault = lambda number, body: fault if fault != "cut" or number else 500
        assert advice in refusal(server, tokenizer=folder)


def test_the_tokenizer_is_found_where_the_server_says(
    server: CompletionServer, folder: Path, tmp_path: Path
) -> None:
    assert "give tokenizer=" in refusal(server)
    if server.kind == VLLM:
        server.root = str(folder)
        with Reranker(server.url) as reranker:
            assert reranker.rerank("query", ["document"])[0]["score"] == 7


def test_a_tokenizer_that_is_missing_says_how_to_get_it(
    server: CompletionServer, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="hf download"):
        load_remote(server.url, tokenizer=tmp_path / "nothing")


def test_the_context_is_the_servers_or_shorter(server: CompletionServer, folder: Path) -> None:
    server.engine.context_length = 3000
    with load_remote(server.url, tokenizer=folder) as engine:
        assert engine.context_length == 3000
    with load_remote(server.url, tokenizer=folder, context_length=1000) as engine:
        assert engine.context_length == 1000


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("127.0.0.1:8000", {}),
        ("ftp://host", {}),
        ("http://", {}),
        ("http://127.0.0.1:99999", {}),
        ("http://127.0.0.1:1", {"sequences": 0}),
        ("http://127.0.0.1:1", {"context_length": 3}),
        ("http://127.0.0.1:1", {"timeout": 0}),
    ],
)
def test_options_are_checked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        load_remote(url, **options)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"choices": [{}]},
        {"choices": [{"token_ids": [-1], "finish_reason": None}]},
        {"choices": [{"token_ids": ["7"], "finish_reason": None}]},
        {"choices": [{"token_ids": [7], "finish_reason": "abort"}]},
        {"choices": [{"token_ids": [7, 8], "logprobs": {"token_logprobs": [-1.0]}}]},
        {"tokens": [7], "stop": False},
        {"tokens": [7], "stop": False, "tokens_predicted": "many"},
        {"tokens": 7, "stop": False, "tokens_predicted": 1},
        {"error": "no memory\nleft"},
        {"error": {"code": "x"}},
    ],
)
def test_events_that_are_not_as_agreed_are_failures(
    server: CompletionServer, folder: Path, event: dict[str, Any]
) -> None:
    server.replaced = event
    with Reranker(server.url, tokenizer=folder, thinking="none") as reranker:
        server.misbehave(faulty_for("poison", "replaced"))
        results = reranker.rerank("query", ["poison", "a"])
    assert [r["score"] for r in results] == [3, None]
    assert "\n" not in results[1]["failure"]


# The command line


COMMAND = [sys.executable, "-c", "from erank_lite.cli import main; main()", "rerank"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)


def test_the_command_line_takes_an_address(
    server: CompletionServer, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "docs.txt").write_text("one\ntwo\n")
    shared = ["--model", server.url, "--tokenizer", str(folder), "--query", "q"]
    done = command(*shared, "--json", str(tmp_path / "docs.txt"))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [7, 7]
    refused = command(*shared, "--threads", "2", str(tmp_path / "docs.txt"))
    assert refused.returncode == 1 and "threads is an option of llama.cpp" in refused.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_prints_what_is_finished(folder: Path, tmp_path: Path) -> None:
    skip_where_ignored(signal.SIGINT)
    (tmp_path / "docs.txt").write_text("".join(f"document {i}\n" for i in range(50)))
    hanging = threading.Event()

    def hang(number: int, body: dict[str, Any]) -> str | None:
        if number < 6:
            return None
        hanging.set()
        return "hang"

    with serving(CompletionServer(engine_writing(GOOD), fault=hang)) as server:
        shared = ["--model", server.url, "--tokenizer", str(folder), "--query", "q"]
        started = subprocess.Popen(
            [*COMMAND, *shared, "--sequences", "1", "--json", str(tmp_path / "docs.txt")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert hanging.wait(60)
        time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        out, errors = started.communicate(timeout=10)
    assert started.returncode == 130 and "Traceback" not in errors
    assert [json.loads(line)["score"] for line in out.splitlines()] == [7, 7]


def test_the_command_line_prints_what_was_finished_before_the_server_went(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "docs.txt").write_text("".join(f"document {i}\n" for i in range(50)))
    with serving(CompletionServer(engine_writing(GOOD))) as server:
        # Two requests to begin with, and two for each document.
        server.fault = lambda number, body: 401 if number >= 8 else None
        done = command(
            *("--model", server.url, "--tokenizer", str(folder), "--query", "q"),
            *("--sequences", "1", "--json", str(tmp_path / "docs.txt")),
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "gone" in done.stderr
    scores = [json.loads(line)["score"] for line in done.stdout.splitlines()]
    assert scores == [7, 7, 7, None, None, None]
