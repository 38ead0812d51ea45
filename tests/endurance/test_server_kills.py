"""A server that is killed under load: clients ask again, and what was kept is whole."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.serving import serving

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytestmark = pytest.mark.slow

QUERY = "how does bread stay fresh"
KILLS, CLIENTS, REQUESTS = 3, 8, 4


def documents(client: int, request: int) -> list[str]:
    return [f"{client}.{request}.{n} A loaf stays fresh in a bread box." for n in range(4)]


def ask(address: str, client: int, answers: dict[tuple[int, int], Any]) -> None:
    """Send a client's requests one after another, each until it is answered."""
    for request in range(REQUESTS):
        body = {"query": QUERY, "documents": documents(client, request)}
        while (client, request) not in answers:
            try:
                answer = httpx.post(f"{address}/rerank", json=body, timeout=60)
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 503:  # it is being loaded
                time.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            answers[client, request] = answer.json()["results"]


def test_clients_that_ask_again_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    answers: dict[tuple[int, int], Any] = {}
    clients = [
        threading.Thread(target=ask, args=(f"http://127.0.0.1:{port}", client, answers))
        for client in range(CLIENTS)
    ]
    for kill in range(KILLS + 1):
        with serving("--strict", port=port, keep=True) as (_, process):
            if kill == 0:
                for client in clients:
                    client.start()
            if kill < KILLS:
                had = len(answers)
                while len(answers) < min(had + 8, CLIENTS * REQUESTS):
                    time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
                process.wait()
                continue
            for client in clients:
                client.join(120)
    assert len(answers) == CLIENTS * REQUESTS
    # Asked once more, each is as it was told, and nothing is kept twice.
    with serving("--strict", port=port, keep=True) as (address, _):
        for (client, request), results in answers.items():
            body = {"query": QUERY, "documents": documents(client, request)}
            again = httpx.post(f"{address}/rerank", json=body, timeout=60).json()
            assert again["results"] == results
    command = [sys.executable, "-m", "erank_lite", "cache", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"{CLIENTS * REQUESTS * 4} documents" in listed.stdout.replace(",", "")
