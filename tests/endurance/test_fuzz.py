"""Random input of every kind that people give: each is used, or refused in a clear line.

ERANK_LITE_FUZZ_SECONDS is how long each kind is tried, 10 where it is not set. What was tried is
printed: `pytest -m fuzz -rP`. A failure names its seed, and
ERANK_LITE_FUZZ_SEED=SEED begins with it.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.checkpoints import SIZE, qwen3_config, write_checkpoint
from support.command import run_in_process, said
from support.gguf_files import write_gguf
from support.judged import beir, followir
from support.tokenizers import ADDED, CHAT_TEMPLATE, byte_tokenizer

from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.first_stage import bm25, candidates_from_run
from erank_lite.cli.documents import content_of, read_documents
from erank_lite.cli.inspect import describe
from erank_lite.convert.gguf.vocabulary import Vocabulary
from erank_lite.errors import ErankLiteError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.models.architecture import open_unquantized
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.text import ModelText
from erank_lite.util.json_lines import json_line

# A warning of numpy is as much on the user's terminal as a traceback.
pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("error::RuntimeWarning")]

SECONDS = float(os.environ.get("ERANK_LITE_FUZZ_SECONDS", 10))
FIRST_SEED = int(os.environ.get("ERANK_LITE_FUZZ_SEED", 0))
_EXAMPLES = 200  # of a seed

NUMBERS = [0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**63, 10**30, -0.0, 0.5, 1e-320, 1e308]
ODD = st.one_of(
    st.sampled_from([*NUMBERS, float("nan"), float("inf"), None, True, False, "", "x", [], {}]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=5,
    ),
)
PIECES = [
    b"\0", b"\n", b"\r", b"\t", b'"', b",", b"{", b"}", b"[", b"]", b"null", b"NaN", b"Infinity",
    b"1e999", b"-1", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"'",
    b"0.5", b" ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", "𠮷é".encode(), b"9" * 40, b"[" * 2000,
]  # fmt: skip


def fuzz(kind: str, values: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """Check random values for `SECONDS`; whatever `check` raises is a failure."""
    tried, number, until = 0, FIRST_SEED, time.monotonic() + SECONDS

    def attempt(value: Any) -> None:
        nonlocal tried
        tried += 1
        check(value)

    run = hypothesis.settings(
        max_examples=_EXAMPLES, database=None, deadline=None, suppress_health_check=HealthCheck
    )
    while time.monotonic() < until:
        hypothesis.seed(number)(run(given(values)(attempt)))()
        number += 1
    print(f"{kind}: {tried:,} inputs, seeds {FIRST_SEED} to {number - 1}")


@st.composite
def changed(draw: st.DrawFn, sound: Sequence[bytes], reach: int = 1 << 30) -> bytes:
    """Return one of `sound`, changed in a few places of its first `reach` bytes."""
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, min(len(data), reach)))
        how = draw(st.sampled_from(["cut", "insert", "replace", "repeat", "flip"]))
        end = at + draw(st.integers(0, 20))
        if how == "cut":
            del data[at : draw(st.sampled_from([end, len(data)]))]
        elif how == "insert":
            data[at:at] = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        elif how == "replace":
            data[at:end] = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        elif how == "repeat":
            data[at:at] = data[at:end]
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def odd_config(base: dict[str, Any], more: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return `base` with odd values for a few of its keys, and of those that may be there too."""
    keys = st.sampled_from([*base, *more])
    return st.dictionaries(keys, ODD, max_size=4).map(lambda changes: base | changes)


def used_or_refused(function: Callable[[], object]) -> None:
    """Call a function, which may refuse its input in a message that people can read."""
    try:
        function()
    except ErankLiteError as error:
        assert error.message


# Files that people make


DOCUMENTS = [
    b'{"id": "1", "content": "A loaf of bread."}\n{"text": "Rye", "first_stage_score": 1}\n',
    b'[{"content": "a"}, "b", {"text": "c", "x": [1, null]}]',
    b'id,content,first_stage_score\n1,"a, ""b""",0.5\n2,c,\n',
    b'id\ttext\n1\t"quoted" text\n2\tmore\n',
    b"one line\nand another\r\n\na third",
    gzip.compress(b'{"text": "packed"}\n', mtime=0),
]
SUFFIXES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md", ".bak", "", ".jsonl.gz"]


def test_documents(tmp_path: Path) -> None:
    def check(value: tuple[bytes, str]) -> None:
        data, suffix = value
        file = tmp_path / f"documents{suffix}"
        file.write_bytes(data)

        def read() -> None:
            for record in read_documents([str(file)]):
                assert isinstance(content_of(record), str)
                line = json_line(record)
                assert len(line.splitlines()) == 1
                json.loads(line)

        used_or_refused(read)

    fuzz("documents", st.tuples(changed(DOCUMENTS), st.sampled_from(SUFFIXES)), check)


def test_collections(tmp_path: Path) -> None:
    """Queries, corpora, judgements and lists of candidates."""
    folders = [beir(tmp_path / "beir"), followir(tmp_path / "news21-instructions-mteb")]
    sound = {f: f.read_bytes() for folder in folders for f in folder.rglob("*") if f.is_file()}
    files = sorted(sound)

    def check(value: tuple[Path, bytes]) -> None:
        file, data = value
        file.write_bytes(data)
        folder = next(f for f in folders if f in file.parents)

        def read() -> None:
            for collection in open_collections(str(folder)):
                collection.digest()
                bm25(collection, 10)

        used_or_refused(read)
        file.write_bytes(sound[file])

    damaged = st.sampled_from(files).flatmap(
        lambda file: st.tuples(st.just(file), changed([sound[file]]))
    )
    fuzz("collections", damaged, check)


def test_runs(tmp_path: Path) -> None:
    (collection,) = open_collections(str(beir(tmp_path / "beir")))
    run = tmp_path / "run.trec"
    lines = b"q1 Q0 d3 1 9.5 tag\nq1 Q0 d1 2 9.5 tag\nq2 Q0 d2 1 -1e-3 tag\n"

    def check(data: bytes) -> None:
        run.write_bytes(data)
        used_or_refused(lambda: candidates_from_run(run, collection, 10))

    fuzz("runs", changed([lines, lines.replace(b" ", b"\t")]), check)


# Files of models


def planned(path: Path) -> None:
    """Plan a model by the command, which must say what is wrong in a clear line."""
    done = run_in_process("plan", path, "--json")
    errors = said(done.stderr)
    assert done.returncode in (0, 1), errors
    assert (done.returncode == 1) == any(line.startswith("error: ") for line in errors), errors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("fuzz") / "checkpoint")


def restored(file: Path, check: Callable[[], None]) -> None:
    before = file.read_bytes()
    try:
        check()
    finally:
        file.write_bytes(before)


def test_configurations(checkpoint: Path) -> None:
    file = checkpoint / "config.json"
    more = ("rope_parameters", "quantization_config", "layer_types", "mlp_bias", "pad_token_id")

    def check(config: dict[str, Any]) -> None:
        file.write_text(json.dumps(config))
        used_or_refused(lambda: open_unquantized(checkpoint))
        planned(checkpoint)

    fuzz_configs = odd_config(qwen3_config(SIZE), more)
    restored(file, lambda: fuzz("config.json", fuzz_configs, check))


def test_tokenizer_configurations(checkpoint: Path) -> None:
    file = checkpoint / "tokenizer_config.json"
    more = ("added_tokens_decoder", "bos_token", "add_prefix_space", "add_bos_token", "extra")

    def check(config: dict[str, Any]) -> None:
        file.write_text(json.dumps(config))

        def read() -> None:
            found, architecture = open_unquantized(checkpoint)
            text = ModelText.from_checkpoint(found)
            PromptBuilder(text.tokenizer, text.chat_template)
            Vocabulary(found, architecture.tensors[0].shape[0])

        used_or_refused(read)

    base = json.loads(file.read_text())
    restored(file, lambda: fuzz("tokenizer_config.json", odd_config(base, more), check))


def test_headers_of_gguf_files(tmp_path: Path) -> None:
    texts = ["a", "b", "ab", *ADDED]
    kinds = [1] * 3 + [3] * len(ADDED)
    sound = write_gguf(tmp_path / "m.gguf", texts, kinds, layers=1, width=32).read_bytes()
    header = sound.index(b"output_norm.weight") + 2000

    def check(data: bytes) -> None:
        file = tmp_path / "changed.gguf"
        file.write_bytes(data)

        def read() -> None:
            found = GGUFFile.read(file)
            json.loads(json_line(describe(found)))
            found.check_generates_text()
            found.shape()
            text = ModelText.from_gguf(found)
            PromptBuilder(text.tokenizer, text.chat_template)

        used_or_refused(read)
        planned(file)

    fuzz("GGUF headers", changed([sound], header), check)


FRAGMENTS = [
    "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m['role'] }}", "{% if %}",
    "{% if add_generation_prompt %}", "{% else %}", "{% endif %}", "{% generation %}",
    "{% endgeneration %}", "{{ messages | tojson(indent=2) }}", "{{ messages[0].content }}",
    "{% set x = namespace(a=1) %}", "{% set x.a = x.a + 1 %}", "{{ x.__class__ }}", "{{ 1 / 0 }}",
    "{{ raise_exception('no') }}", "{{ strftime_now('%Y') }}", "{% macro f() %}{{ f() }}",
    "{% endmacro %}", "{{ f() }}", "{{ bos_token }}", "{{ eos_token }}", "{% break %}", "{#", "#}",
    "{% raw %}", "{% endraw %}", "{{ messages.append(1) }}", "{{ [].__class__.__mro__ }}", "{{",
    "{% for i in range(99999) %}", "{{ 'x' * 1000 }}", "{% include 'x' %}", "{% import 'x' as y %}",
    "<|im_start|>", "<|im_end|>\n", "{{ m.content | upper }}", "{{ m.content | trim }}", "\n",
    CHAT_TEMPLATE,
]  # fmt: skip


def test_templates() -> None:
    tokenizer = byte_tokenizer()

    def check(parts: list[str]) -> None:
        def build() -> None:
            query = PromptBuilder(tokenizer, "".join(parts)).query("how to keep bread")
            assert query.document("In a box.").ids

        used_or_refused(build)

    parts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=12)
    fuzz("templates", parts, check)


# Command lines


WORDS = [
    "rerank", "plan", "inspect", "cache", "list", "clear", "convert", "gguf", "gptq", "eval",
    "compare", "report", "doctor", "--model", "--query", "--engine", "--thinking", "--alpha", "-o",
    "--out", "--json", "--instruction", "--truncate-length", "--top", "--depth", "--queries",
    "--type", "--bits", "--group-size", "--imatrix", "--first-stage", "--strict", "--table",
    "--help", "--version", "--tokenizer", "--threads", "--memory", "--force", "--reference", "--",
    "-", "", "none", "full", "16", "0", "-1", "1e9", "nan", "Q8_0", "q4", "llama.cpp", "gptq",
    "remote", "sequences=2", "sequences=x", "strict", "a=b=c", "documents.txt", "documents.jsonl",
    "tiny.gguf", "checkpoint", "checkpoint:Q8_0", "tiny.gguf,sequences=2", "out", "beir", "é",
    "nowhere/out.gguf", "http://127.0.0.1:9", "\udcff", "\u2028", "~nobody/x", "*" * 300,
    "run.trec",
]  # fmt: skip


def test_command_lines(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "documents.txt").write_text("one\ntwo\n")
    (tmp_path / "documents.jsonl").write_text('{"content": "one"}\n')
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 1.0 t\n")
    shutil.copyfile(tiny_gguf, tmp_path / "tiny.gguf")
    write_checkpoint(tmp_path / "checkpoint")
    beir(tmp_path / "beir")

    def check(words: list[str]) -> None:
        done = run_in_process(*words, stdin=b"from standard input\n")
        errors = said(done.stderr)
        assert done.returncode in (0, 1, 2, 3), (words, errors)
        assert all(len(line) < 3000 for line in errors), words
        assert b"Traceback" not in done.stderr, (words, errors)
        if done.returncode in (1, 2):
            # A group of commands without one of them is answered by its help.
            helped = done.stdout.lstrip().startswith(b"Usage:")
            assert any(line.startswith("error: ") for line in errors) or helped, (words, errors)

    usual = [
        ["rerank", "--model", "tiny.gguf", "--thinking", "none", "--query", "bread"],
        ["plan", "checkpoint"],
        ["eval", "beir", "--model", "tiny.gguf", "--thinking", "none"],
        ["convert", "gguf", "checkpoint"],
        [],
    ]
    words = st.tuples(st.sampled_from(usual), st.lists(st.sampled_from(WORDS), max_size=5))
    fuzz("command lines", words.map(lambda parts: [*parts[0], *parts[1]]), check)
