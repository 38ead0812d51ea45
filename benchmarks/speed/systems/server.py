"""llama-server on the same file, with a slot and a client for each document decoded together.

Its own defaults otherwise: flash attention where it chooses so, prompts kept in each slot.
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

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.errors import ModelError

_START_TIMEOUT = 600.0  # seconds for a large model to be loaded
_PADDING = 256  # llama.cpp pads a sequence's cells to this


def run(trial: Trial) -> Measurement:
    """Start the server, run all documents through it, and end it; `options`: its program."""
    with _server(trial) as (address, process_id):

        def complete(ids: Sequence[int], tokens: int = trial.workload.tokens) -> tuple[int, float]:
            body = {"prompt": list(ids), "n_predict": tokens, "temperature": 0}
            answer = _ask(f"{address}/completion", body | {"ignore_eos": True})
            return int(answer["tokens_predicted"]), time.perf_counter()

        complete(trial.warm_up()[0], 1)
        with ThreadPoolExecutor(trial.workload.concurrent) as clients:
            start = time.perf_counter()
            answers = list(clients.map(complete, trial.prompts()))
        marks = sorted(mark - start for _, mark in answers)
        what = f"{_version(trial)}, {trial.workload.sequences} slots, a client for each"
        tokens = sum(count for count, _ in answers)
        return Measurement(what, marks[0], marks[-1], tokens, peak_memory(process_id))


@contextlib.contextmanager
def _server(trial: Trial) -> Iterator[tuple[str, int]]:
    """Yield the address of a server that is ready, and its process's id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cells = -(-trial.workload.context_length // _PADDING) * _PADDING
    options = {"-m": trial.path, "--host": "127.0.0.1", "--port": port, "-t": trial.threads}
    options |= {"-np": trial.workload.sequences, "-c": cells * trial.workload.sequences}
    process = subprocess.Popen(
        [trial.options["program"], *(str(part) for pair in options.items() for part in pair)],
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
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ModelError(f"llama-server ended with code {process.returncode} as it started")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return
        except OSError:  # not there yet, or still loading
            time.sleep(0.1)
    raise ModelError(f"llama-server was not ready after {_START_TIMEOUT:.0f} seconds")


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


def _version(trial: Trial) -> str:
    """Return the server's name with its own build number."""
    done = subprocess.run(
        [trial.options["program"], "--version"], capture_output=True, text=True, errors="replace"
    )
    lines = [x for x in (done.stderr + done.stdout).splitlines() if x.startswith("version:")]
    return f"llama-server {lines[0].split(':', 1)[1].strip()}" if lines else "llama-server"
