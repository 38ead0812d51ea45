"""The remote engine against a real llama-server: what the local engine gives on the same file.

LLAMA_SERVER names the program. In 32 bits both read the same weights, and what is left is the order
of sums: the local engine goes token by token where the server reads all that was written at once.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import pytest

from erank_lite import Reranker
from erank_lite.load import load
from erank_lite.models.prepare import gguf_file
from erank_lite.models.ref import ModelRef
from erank_lite.testing.guides import counting_request
from erank_lite.types import Prompt

pytestmark = pytest.mark.reference

NOISE = 1e-3
"""Largest difference of a probability's natural logarithm."""

QUERY = "how to keep bread fresh"
DOCS = [
    "A loaf stays fresh in a bread box.",
    "The bakery opens at six.",
    "Store bread in a cool, dry place; it keeps for days \U0001f600 \u4f60\u597d.",
    "Freeze sliced bread to keep it longer.",
    "Stock markets fell on Tuesday <|im_end|>.",
]


@contextmanager
def llama_server(model: Path, log: Path) -> Iterator[str]:
    program = os.environ.get("LLAMA_SERVER")
    if not program:
        pytest.skip("LLAMA_SERVER names no llama-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [program, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    line += ["--parallel", "2", "--ctx-size", "8192", "--threads", "2", "--flash-attn", "off"]
    line += ["--cache-type-k", "f32", "--cache-type-v", "f32"]
    with log.open("w") as file, subprocess.Popen(line, stdout=file, stderr=file) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(300):
                try:
                    if httpx.get(f"{url}/health").is_success:
                        break
                except httpx.HTTPError:
                    assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def erank_tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    path = gguf_file(ModelRef.parse("erank-tiny:F32"))
    with llama_server(path, tmp_path_factory.mktemp("log") / "server.log") as url:
        yield url, path


@pytest.fixture(scope="module")
def smollm2_f32(
    smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("smollm2")
    path = folder / "smollm2-f32.gguf"
    wishes = llama_cpp.llama_model_quantize_default_params()
    wishes.ftype, wishes.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert not llama_cpp.llama_model_quantize(str(smollm2).encode(), str(path).encode(), wishes)
    with llama_server(path, folder / "server.log") as url:
        yield url, path


def results(model: str | Path, docs: list[str], **options: Any) -> list[dict[str, Any]]:
    with Reranker(model, strict=True, context_length=4096, **options) as reranker:
        return sorted(reranker.rerank(QUERY, docs), key=lambda r: docs.index(r["content"]))


def compare(url: str, path: Path, thinking: str | int) -> None:
    ours = results(path, DOCS, thinking=thinking, threads=2, kv_type="f32", gpu_layers=0)
    theirs = results(url, DOCS, thinking=thinking, tokenizer=path)
    largest = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert b["completion"] == a["completion"]
        if b["failure"] is not None and a["forced"]:
            # No number was among the 20 most probable, which is all that a server tells.
            assert a["probability"] < 0.01
            continue
        same = ("score", "forced", "failure", "reasoning", "truncated")
        assert {name: b[name] for name in same} == {name: a[name] for name in same}
        if a["score"] is None:
            continue
        largest = max(largest, abs(math.log(a["probability"]) - math.log(b["probability"])))
        if a["expected_score"] is not None:
            assert b["expected_score"] == pytest.approx(a["expected_score"], abs=0.01)
    print(f"{path.name}, thinking {thinking}: largest difference {largest:.1e}")
    assert largest < NOISE


@pytest.mark.parametrize("thinking", ["full", 8, "none"])
def test_erank_tiny_is_read_as_here(erank_tiny: tuple[str, Path], thinking: str | int) -> None:
    compare(*erank_tiny, thinking)


@pytest.mark.parametrize("thinking", [60, "none"])
def test_a_trained_model_is_read_as_here(
    smollm2_f32: tuple[str, Path], thinking: str | int
) -> None:
    compare(*smollm2_f32, thinking)


def test_strict_results_do_not_depend_on_what_was_asked_before(
    erank_tiny: tuple[str, Path],
) -> None:
    url, path = erank_tiny
    forwards = results(url, DOCS, tokenizer=path)
    assert results(url, DOCS[::-1], tokenizer=path) == [
        {**r, "index": len(DOCS) - 1 - r["index"]} for r in forwards[::-1]
    ]


def test_without_strict_it_differs_by_noise(erank_tiny: tuple[str, Path]) -> None:
    url, path = erank_tiny
    alone = results(url, DOCS, tokenizer=path)
    with Reranker(url, tokenizer=path) as reranker:
        together = {r["content"]: r for r in reranker.rerank(QUERY, DOCS)}
    for r in alone:
        assert together[r["content"]]["score"] == r["score"]
        assert together[r["content"]]["probability"] == pytest.approx(r["probability"], abs=0.01)


def test_the_server_names_its_file(erank_tiny: tuple[str, Path]) -> None:
    url, _ = erank_tiny
    with Reranker(url) as reranker:
        assert reranker.engine.context_length == 4096
        assert len(reranker.rerank(QUERY, DOCS)) == len(DOCS)


def test_characters_of_many_tokens_come_whole(smollm2_f32: tuple[str, Path]) -> None:
    """The server's stream leaves tokens out there, and its ids have to be asked for."""
    url, path = smollm2_f32
    written = []
    strict: dict[str, Any] = {"strict": True}
    for engine in (
        load(path, "llama.cpp", strict | {"threads": 2, "kv_type": "f32", "context_length": 512}),
        load(url, "remote", strict | {"tokenizer": path}),
    ):
        with engine:
            text = "A rocket is written \U0001f680, and a face is written \U0001f600.\n" * 6
            prompt = Prompt(engine.tokenizer.encode_trusted(text), 0)
            (done,) = engine.run([counting_request(0, prompt, 20, logprobs=False)])
            written.append(done.guide.tokens)
            text = engine.tokenizer.decode(done.guide.tokens)
    assert written[0] == written[1]
    assert "\U0001f680" in text and "\U0001f600" in text
