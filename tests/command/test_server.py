"""`erank-lite serve` as a process: its address, its end, and what it refuses to begin with."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from support.serving import serving

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

COMMAND = str(Path(sys.executable).with_name("erank-lite"))
DOCS = ["The bakery opens at six.", "Bread stays fresh in a bread box.", "Bread is baked."]
BODY = {"query": "how does bread stay fresh", "documents": DOCS}


def refused(*arguments: str) -> str:
    done = subprocess.run(
        [COMMAND, "serve", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_it_ranks_and_ends_when_told_to() -> None:
    with serving() as (address, process):
        found = httpx.post(f"{address}/v1/rerank", json=BODY, timeout=60).json()
        assert sorted(r["index"] for r in found["results"]) == [0, 1, 2]
        assert found["results"][0]["index"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines() if line]
        (line,) = [line for line in lines if line["path"] == "/v1/rerank"]
        assert line["status"] == 200 and line["documents"] == 3 and "bread" not in json.dumps(line)


def test_what_is_under_way_is_answered_before_it_ends() -> None:
    many = BODY | {"documents": [f"{n}. {text}" for n in range(40) for text in DOCS]}
    answers: list[httpx.Response] = []
    with serving() as (address, process):
        post = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/rerank", json=many, timeout=120))
        )
        post.start()
        for _ in range(200):
            waiting = httpx.get(f"{address}/metrics").text
            if re.search(r"^erank_lite_documents_waiting 120\.0$", waiting, re.MULTILINE):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        post.join(60)
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert answers[0].status_code == 200 and len(answers[0].json()["results"]) == 120


def test_a_client_that_leaves_frees_its_places() -> None:
    many = BODY | {"documents": [f"{n}. {text}" for n in range(100) for text in DOCS]}
    with serving() as (address, _):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{address}/rerank", json=many, timeout=0.5)
        begun = time.monotonic()
        assert httpx.post(f"{address}/rerank", json=BODY, timeout=60).status_code == 200
        waiting = httpx.get(f"{address}/metrics").text
        assert re.search(r"^erank_lite_documents_waiting 0\.0$", waiting, re.MULTILINE)
        assert time.monotonic() - begun < 30


def test_a_deadline_gives_the_best_order_so_far() -> None:
    many = BODY | {"documents": [f"{n}. {text}" for n in range(100) for text in DOCS]}
    with serving("--deadline", "2") as (address, _):
        begun = time.monotonic()
        found = httpx.post(f"{address}/rerank", json=many, timeout=60).json()["results"]
        assert time.monotonic() - begun < 10 and len(found) == 300
        assert any(r["level"] is None for r in found)
        scores = [r["relevance_score"] for r in found]
        assert scores == sorted(scores, reverse=True)


def test_a_body_cut_off_or_slow_harms_nobody() -> None:
    with serving() as (address, _):
        host, port = address.removeprefix("http://").split(":")
        head = "POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
            with socket.create_connection((host, int(port))) as cut:
                cut.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"query":'.encode())
            answer = httpx.post(f"{address}/rerank", json=BODY, timeout=60)
            assert answer.status_code == 200


def test_an_address_that_others_reach_needs_a_key(tmp_path: Path) -> None:
    assert "--api-key-file" in refused("--host", "0.0.0.0")
    empty = tmp_path / "key"
    empty.write_text("\n")
    assert "holds no key" in refused("--host", "0.0.0.0", "--api-key-file", str(empty))
    missing = str(tmp_path / "none")
    assert "cannot be read" in refused("--api-key-file", missing)


def test_an_address_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot be served" in refused("--port", port)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "erank-tiny", "--model", "erank-tiny"], "named twice"),
        (["--thinking", "deeply"], "thinking must be"),
        (["--folder", "."], "--api-key-file"),
        (["--folder", "nowhere", "--api-key-file", __file__], "no folder or file"),
        (["--host", "no.such.host.invalid", "--api-key-file", __file__], "cannot be served"),
        (["-o", "sequence"], "is not an option"),
        (["-o", "sequence=2"], "has no option sequence"),
        (["--model", "nosuch.gguf"], "nosuch.gguf"),
        (["--model", "erank-tiny", "--model", "nosuch.gguf"], "nosuch.gguf"),
    ],
)
def test_options_that_cannot_be_used(arguments: list[str], says: str) -> None:
    assert says in refused(*arguments)
