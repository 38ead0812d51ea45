"""llama-server on the same file, with as many places as documents under way, and a client for each.

Its own defaults otherwise: flash attention where it chooses so, prompts kept in each place.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from erank_lite.benchmarks.speed.job import Job, Outcome
from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.errors import ModelError

_PATIENCE = 600.0  # seconds for a large model to be loaded
_STEP = 256  # llama.cpp pads a sequence's cells to this


def run(job: Job) -> Outcome:
    """Start the server, run all documents through it, and end it; `options`: its program."""
    with _server(job) as (address, number):

        def complete(ids: Sequence[int], tokens: int = job.work.tokens) -> tuple[int, float]:
            body = {"prompt": list(ids), "n_predict": tokens, "temperature": 0}
            answer = _ask(f"{address}/completion", body | {"ignore_eos": True})
            return int(answer["tokens_predicted"]), time.perf_counter()

        complete(job.warm_up()[0], 1)
        with ThreadPoolExecutor(job.work.together) as clients:
            start = time.perf_counter()
            done = list(clients.map(complete, job.prompts()))
        marks = sorted(mark - start for _, mark in done)
        what = f"{_version(job)}, {job.work.sequences} places, a client for each"
        return Outcome(what, marks[0], marks[-1], sum(n for n, _ in done), peak_memory(number))


@contextlib.contextmanager
def _server(job: Job) -> Iterator[tuple[str, int]]:
    """Yield the address of a server that is ready, and its process's id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cells = -(-job.work.cells // _STEP) * _STEP
    options = {"-m": job.path, "--host": "127.0.0.1", "--port": port, "-t": job.threads}
    options |= {"-np": job.work.sequences, "-c": cells * job.work.sequences}
    process = subprocess.Popen(
        [job.options["program"], *(str(part) for pair in options.items() for part in pair)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _await(address, process)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ModelError(f"llama-server ended with code {process.returncode} as it started")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return
        except OSError:  # not there yet, or still loading
            time.sleep(0.1)
    raise ModelError(f"llama-server was not ready after {_PATIENCE:.0f} seconds")


def _ask(address: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise ModelError(f"llama-server answered {error.code} to a document") from None
    except OSError as error:
        raise ModelError(f"llama-server stopped answering: {error}") from None
    return answer


def _version(job: Job) -> str:
    """Return the server's name with its own build number."""
    said = subprocess.run(
        [job.options["program"], "--version"], capture_output=True, text=True, errors="replace"
    )
    lines = [x for x in (said.stderr + said.stdout).splitlines() if x.startswith("version:")]
    return f"llama-server {lines[0].split(':', 1)[1].strip()}" if lines else "llama-server"
