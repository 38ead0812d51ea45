"""Documents per second of this engine, of its peers, and the ceiling, in one run on one machine.

The same GGUF file, prompts (token ids) and number of generated tokens go through

- `loop`: `llama_cpp.Llama.create_completion`, one document after the other,
- `server`: llama-server with as many slots (`--server PATH`),
- `erank-lite`: this project's engine,

and `ceiling` is what llama-batched-bench reaches for these shapes (`--batched-bench PATH`), its
reading and its decoding each at full width. Every way runs `--repeat` times, in turn, so that a
slow minute of the machine meets them all; the fastest of each counts.

    python benchmarks/speed/compare.py MODEL.gguf --server llama-server \\
        --batched-bench llama-batched-bench --json results.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from erank_lite.engines._llama import Context
from erank_lite.engines.llama_cpp import LlamaCppEngine
from erank_lite.hardware import usable_cores
from erank_lite.types import Prompt, Request, Step


@dataclass(frozen=True)
class Workload:
    """What each document costs, in tokens."""

    documents: int
    shared: int
    own: int
    tokens: int
    sequences: int

    def prompts(self, vocabulary: int) -> list[tuple[int, ...]]:
        """Return the prompts: random ordinary tokens, so that no text ends early."""
        draw = random.Random(7)
        ids = range(1000, min(vocabulary, 40000))
        shared = tuple(draw.choices(ids, k=self.shared))
        return [shared + tuple(draw.choices(ids, k=self.own)) for _ in range(self.documents)]

    @property
    def cells(self) -> int:
        """Tokens of context that one document needs."""
        return self.shared + self.own + self.tokens + 1


class CountingReader:
    """Lets exactly `tokens` be generated; asks for no probability."""

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens + 1
        self._left = tokens

    def begin(self) -> Step:
        return Step(limit=self._left)

    def feed(self, token: int, logprobs: object) -> Step:
        self._left -= 1
        return Step(done=self._left == 0)


def run_engine(engine: LlamaCppEngine, work: Workload, prompts: list[tuple[int, ...]]) -> float:
    """Return the seconds that this project's engine takes."""
    requests = [
        Request(i, Prompt(ids, work.shared), lambda: CountingReader(work.tokens))
        for i, ids in enumerate(prompts)
    ]
    INSIDE.clear()
    start = time.perf_counter()
    done = sum(c.tokens for c in engine.run(requests))
    took = time.perf_counter() - start
    assert done == work.documents * work.tokens, f"{done} tokens"
    OUTSIDE.append(1 - sum(INSIDE) / took)
    return took


INSIDE: list[float] = []
"""Seconds of each call of llama_decode in the run under way."""
OUTSIDE: list[float] = []
"""Share of each run's time that was spent outside llama_decode."""


def watch_decode() -> None:
    """Time every call of llama_decode, on the thread that makes it."""
    decode = Context._decode

    def timed(self: Context) -> int:
        start = time.perf_counter()
        code = decode(self)
        INSIDE.append(time.perf_counter() - start)
        return code

    Context._decode = timed  # type: ignore[method-assign]


def run_loop(llama: object, work: Workload, prompts: list[tuple[int, ...]]) -> float:
    """Return the seconds of the plain loop over `Llama.create_completion`."""
    start = time.perf_counter()
    done = 0
    for ids in prompts:
        answer = llama.create_completion(  # type: ignore[attr-defined]
            list(ids), max_tokens=work.tokens, temperature=0.0
        )
        done += answer["usage"]["completion_tokens"]
    took = time.perf_counter() - start
    # A text that ends early would make the loop look faster than it is.
    return took * work.documents * work.tokens / done


class Server:
    """llama-server on a free port of this machine, as a context manager."""

    def __init__(self, binary: Path, model: Path, work: Workload, threads: int) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        cells = -(-work.cells // 256) * 256
        self._url = f"http://127.0.0.1:{port}"
        options = {"-m": model, "--host": "127.0.0.1", "--port": port, "-t": threads}
        options |= {"-np": work.sequences, "-c": cells * work.sequences}
        self._process = subprocess.Popen(
            [binary, *(str(part) for option in options.items() for part in option)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Server:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=1)
                return self
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("llama-server did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def run(self, work: Workload, prompts: list[tuple[int, ...]]) -> float:
        """Return the seconds that all documents take, with a client for each slot."""

        def complete(ids: tuple[int, ...]) -> int:
            body = {"prompt": list(ids), "n_predict": work.tokens, "temperature": 0}
            body |= {"ignore_eos": True, "cache_prompt": True}
            request = urllib.request.Request(
                f"{self._url}/completion",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as response:
                return int(json.load(response)["tokens_predicted"])

        start = time.perf_counter()
        with ThreadPoolExecutor(work.sequences) as clients:
            done = sum(clients.map(complete, prompts))
        assert done == work.documents * work.tokens, f"{done} tokens"
        return time.perf_counter() - start


def ceiling(binary: Path, model: Path, work: Workload, threads: int) -> tuple[float, float]:
    """Return llama-batched-bench's tokens per second, reading and decoding."""
    cells = -(-work.cells // 256) * 256
    command = [binary, "-m", model, "-t", str(threads), "-c", str(cells * work.sequences)]
    command += ["-b", "2048", "-ub", "512", "-npp", str(work.shared + work.own)]
    command += ["-ntg", str(work.tokens), "-npl", str(work.sequences)]
    found = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    row = next(line for line in found.stdout.splitlines() if re.match(r"\|\s*\d", line))
    values = [float(v) for v in row.strip("|").split("|")]
    return values[5], values[7]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--shared", type=int, default=61)
    parser.add_argument("--own", type=int, default=164)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--batched-bench", type=Path)
    parser.add_argument("--flash-attention", action="store_true", help="for erank-lite too")
    parser.add_argument("--no-loop", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = ("documents", "shared", "own", "tokens", "sequences")
    work = Workload(**{name: getattr(options, name) for name in names})
    threads = usable_cores()
    watch_decode()

    flash = options.flash_attention or None
    engine = LlamaCppEngine(options.model, sequences=work.sequences, flash_attention=flash)
    prompts = work.prompts(len(engine.tokenizer.pieces))
    ways: dict[str, Callable[[], float]] = {"erank-lite": lambda: run_engine(engine, work, prompts)}
    if not options.no_loop:
        from llama_cpp import Llama

        llama = Llama(str(options.model), n_ctx=work.cells, n_threads=threads, verbose=False)
        ways["loop"] = lambda: run_loop(llama, work, prompts)
    if options.server:

        def serve() -> float:
            with Server(options.server, options.model, work, threads) as server:
                return server.run(work, prompts)

        ways["server"] = serve
    best = {name: float("inf") for name in ways}
    reading = decoding = 0.0
    for _ in range(options.repeat):
        for name, way in ways.items():
            best[name] = min(best[name], way())
        if options.batched_bench:
            r, d = ceiling(options.batched_bench, options.model, work, threads)
            reading, decoding = max(reading, r), max(decoding, d)
    rates = {name: work.documents / seconds for name, seconds in best.items()}
    if options.batched_bench:
        own = work.own + work.shared / work.documents
        rates["ceiling"] = 1 / (own / reading + work.tokens / decoding)
    ours = rates["erank-lite"]
    print(f"{vars(work)}  threads={threads}  {cpu_name()}")
    if options.batched_bench:
        print(f"batched-bench: reading {reading:.0f} tok/s, decoding {decoding:.0f} tok/s")
    print(f"erank-lite outside llama_decode: {min(OUTSIDE):.1%} of its time")
    for name, rate in rates.items():
        print(f"{name:12} {rate:7.3f} documents/s   erank-lite is {ours / rate:5.2f} x")
    if options.json:
        record = {
            "command": " ".join(
                ["python benchmarks/speed/compare.py", *map(os.path.basename, sys.argv[1:])]
            ),
            "cpu": cpu_name(),
            "threads": threads,
            "work": vars(work),
            "documents_per_second": rates,
            "outside_llama_decode": min(OUTSIDE),
            "batched_bench_tokens_per_second": {"reading": reading, "decoding": decoding},
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    engine.close()


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    main()
