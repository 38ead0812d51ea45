"""Load a server with many clients, of whom some leave early and some send rubbish.

    python -m erank_lite.benchmarks.serve.load --clients 64 --seconds 600 --json FILE

starts `erank-lite serve` and tells requests and documents per second, how long requests took, what
was answered wrongly or not at all, how the server's memory went, how long a small request takes
alone and beside a large one, and what `Reranker.rerank_many` makes of the same documents.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from erank_lite import Reranker
from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import command_line, record
from erank_lite.benchmarks.speed.batch_invariance import NOTES

_QUERY = "Which of these notes praises a river?"
_LEAVES, _RUBBISH = 0.2, 0.1  # shares of the requests
_DOCUMENTS = (1, 20)
_SMALL, _LARGE = 3, 200  # documents, where one request runs beside another
_PLAIN = 60.0  # seconds of CPU time
_EVERY = 5.0  # seconds between two looks at the memory


@dataclass
class _Seen:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    documents: int = 0
    left: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)


def _documents(draw: random.Random, count: int | None = None) -> list[str]:
    """Return documents that nobody had before."""
    count = count or draw.randint(*_DOCUMENTS)
    return [f"{draw.random()} {' '.join(draw.sample(NOTES, 6))}" for _ in range(count)]


async def _client(address: str, number: int, end: float, seen: _Seen) -> None:
    draw = random.Random(number)
    async with httpx.AsyncClient(base_url=address, timeout=300) as client:
        while time.monotonic() < end:
            docs = _documents(draw)
            body: dict[str, Any] = {"query": _QUERY, "documents": docs}
            kind = draw.random()
            try:
                if kind < _RUBBISH:
                    rubbish: dict[str, Any] = draw.choice(
                        [{"json": {"query": 3}}, {"content": b"{"}, {"json": {"documents": docs}}]
                    )
                    headers = {"Content-Type": "application/json"}
                    answer = await client.post("/v1/rerank", headers=headers, **rubbish)
                    if answer.status_code != 400:
                        seen.wrong.append(f"rubbish got {answer.status_code}")
                    seen.refused += 1
                    continue
                if kind < _RUBBISH + _LEAVES:
                    with_timeout = draw.uniform(0.05, 1.0)
                    try:
                        await client.post("/v1/rerank", json=body, timeout=with_timeout)
                    except httpx.TimeoutException:
                        seen.left += 1
                    continue
                begun = time.monotonic()
                answer = await client.post("/v1/rerank", json=body)
                if answer.status_code == 429:
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    continue
                found = answer.json()
                indices = sorted(r["index"] for r in found.get("results", ()))
                if answer.status_code != 200 or indices != list(range(len(docs))):
                    seen.wrong.append(f"{answer.status_code}: {str(found)[:100]}")
                    continue
                seen.seconds.append(time.monotonic() - begun)
                seen.documents += len(docs)
            except httpx.HTTPError as error:
                seen.wrong.append(repr(error))


async def _load(address: str, process: psutil.Process, clients: int, seconds: float) -> _Seen:
    seen, begun = _Seen(), time.monotonic()

    async def watch() -> None:
        while True:
            seen.memory.append((time.monotonic() - begun, process.memory_info().rss))
            await asyncio.sleep(_EVERY)

    watching = asyncio.create_task(watch())
    await asyncio.gather(
        *(_client(address, number, begun + seconds, seen) for number in range(clients))
    )
    watching.cancel()
    return seen


async def _fairness(address: str) -> dict[str, float]:
    """Return the seconds of a small request alone, and beside a large one."""
    draw = random.Random(-1)

    async def ask(client: httpx.AsyncClient, count: int) -> float:
        begun = time.monotonic()
        body = {"query": _QUERY, "documents": _documents(draw, count)}
        (await client.post("/v1/rerank", json=body)).raise_for_status()
        return time.monotonic() - begun

    async with httpx.AsyncClient(base_url=address, timeout=300) as client:
        await ask(client, _SMALL)
        alone = await ask(client, _SMALL)
        large = asyncio.create_task(ask(client, _LARGE))
        await asyncio.sleep(alone)
        beside = await ask(client, _SMALL)
        return {"alone": alone, "beside": beside, "large": await large}


def _plain(model: str, least: float) -> float:
    """Return the documents that `rerank_many` scores per second of CPU time."""
    draw, process, documents, used = random.Random(-2), psutil.Process(), 0, 0.0
    with Reranker(model) as reranker:
        while used < least:
            batch = [(_QUERY, _documents(draw)) for _ in range(20)]
            before = process.cpu_times()
            for _ in reranker.rerank_many(batch):
                pass
            after = process.cpu_times()
            documents += sum(len(docs) for _, docs in batch)
            used += after.user + after.system - before.user - before.system
    return documents / used


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="erank-tiny")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    command = [
        str(Path(sys.executable).with_name("erank-lite")), "serve", "--port", "0", "--no-cache",
        "--model", arguments.model,
    ]  # fmt: skip
    log = Path("serve.log").open("w")  # noqa: SIM115 - closed with the process
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        found = re.search(r"http://\S+?(?=;)", server.stderr.readline())
        assert found is not None
        drained = subprocess.Popen(["cat"], stdin=server.stderr, stdout=log)
        address = found[0]
        while httpx.get(f"{address}/health").status_code != 200:
            time.sleep(0.2)
        fairness = asyncio.run(_fairness(address))
        process = psutil.Process(server.pid)
        before = process.cpu_times()
        begun = time.monotonic()
        seen = asyncio.run(_load(address, process, arguments.clients, arguments.seconds))
        took = time.monotonic() - begun
        after = process.cpu_times()
        server.terminate()
        drained.wait()
    used = after.user + after.system - before.user - before.system
    minutes: dict[int, list[int]] = {}
    for at, size in seen.memory:
        minutes.setdefault(int(at // 60), []).append(size)
    figures = {
        "model": arguments.model,
        "clients": arguments.clients,
        "seconds": took,
        "requests": len(seen.seconds),
        "requests_per_second": len(seen.seconds) / took,
        "documents_per_second": seen.documents / took,
        "documents_per_cpu_second": seen.documents / used,
        "rerank_many_documents_per_cpu_second": _plain(arguments.model, _PLAIN),
        "small_request_seconds": fairness,
        "request_seconds": dict(
            zip(("p50", "p95", "p99"), np.quantile(seen.seconds, (0.5, 0.95, 0.99)).tolist(),
                strict=True)
        ),
        "left": seen.left,
        "refused": seen.refused,
        "wrong": seen.wrong[:20],
        "memory_by_minute": {minute: max(sizes) for minute, sizes in minutes.items()},
    }  # fmt: skip
    command_typed = command_line(
        ["python", "-m", "erank_lite.benchmarks.serve.load", *sys.argv[1:]]
    )
    result = record("load", command_typed, **figures)
    print(figures)
    if arguments.json:
        write_json(arguments.json, result)
    return int(bool(seen.wrong))


if __name__ == "__main__":
    sys.exit(main())
