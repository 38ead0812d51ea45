"""The command, run as its users run it."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.command import (
    COMMAND,
    is_a_clear_line,
    json_lines,
    rows,
    run,
    run_in_process,
    said,
    skip_where_ignored,
)
from support.gguf_files import QWEN, gguf_bytes, write_gguf
from support.tokenizers import ADDED

from erank_lite.cli import COMMANDS
from erank_lite.cli.output import print_table

OURS = {
    "rank", "index", "score", "probability", "rank_score", "forced", "truncated", "failure",
    "engine",
}  # fmt: skip
CATS = [
    {"content": "Cats purr.", "id": "a", "first_stage_score": 3.5, "more": {"deep": ["é", None]}},
    {"text": "Dogs bark.", "id": "b", "first_stage_score": 1},
    {"content": "Fish swim.", "text": "unused", "id": "c", "first_stage_score": 2},
]


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    return json_lines(tmp_path / "cats.jsonl", CATS)


@pytest.fixture
def ask(tiny_gguf: Path) -> list[str]:
    """A command that scores at once, without reasoning."""
    options = ["--query", "cats", "--thinking", "none", "--threads", "1"]
    return ["rerank", "--model", str(tiny_gguf), *options]


# What a user sees first


@pytest.mark.parametrize(
    "args",
    [["--help"], ["rerank", "--help"], ["inspect", "--help"], ["convert", "gguf", "--help"],
     ["cache", "list", "--help"], ["eval", "--help"], ["compare", "--help"],
     ["benchmark", "--help"], ["report", "--help"]],
)  # fmt: skip
def test_help_loads_nothing_heavy(args: list[str]):
    done = run(*args)
    assert done.returncode == 0 and b"Usage: erank-lite" in done.stdout
    code = (
        f"import sys\nfrom erank_lite.cli import main\nsys.argv = ['erank-lite', *{args}]"
        "\ntry:\n    main()\nfinally:\n    heavy = {'llama_cpp', 'numpy', 'gguf', 'tokenizers', "
        "'jinja2', 'huggingface_hub'} & set(sys.modules)\n    assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_help_documents_the_exit_codes():
    text = " ".join(run_in_process("rerank", "--help").stdout.decode().split())
    for code in ("0 done", "1 the input", "2 the command line", "3 not one", "130", "141"):
        assert code in text


def test_help_lists_every_command():
    text = run_in_process("--help").stdout.decode()
    for name, line in COMMANDS.items():
        assert name in text and line.split()[0] in text
        own = " ".join(run_in_process(name, "--help").stdout.decode().split())
        assert f"Usage: erank-lite {name} " in own and line[:40] in own


def test_version():
    done = run("--version")
    assert re.fullmatch(rb"erank-lite \d+\.\d+\S*\n", done.stdout) and done.returncode == 0


# JSON lines


def test_piped_output_is_one_object_a_line_best_first(ask: list[str], cats: Path):
    done = run(*ask, cats)
    found = rows(done.stdout)
    assert done.returncode == 0
    assert [r["rank"] for r in found] == [1, 2, 3]
    assert sorted(r["index"] for r in found) == [0, 1, 2]
    scores = [r["rank_score"] for r in found]
    assert scores == sorted(scores, reverse=True)
    for row in found:
        own = CATS[row["index"]]
        assert {k: row[k] for k in own} == own
        assert row.keys() == own.keys() | OURS
        assert row["score"] in range(11) and 0 < row["probability"] <= 1
        assert row["rank_score"] == pytest.approx(row["score"] * row["probability"])
        assert row["failure"] is None and row["truncated"] is False
    (summary,) = said(done.stderr)
    assert summary.startswith("3 documents, ")


def test_json_is_what_a_pipe_gets(ask: list[str], cats: Path):
    def order(done: subprocess.CompletedProcess[bytes]) -> list[int]:
        return [r["index"] for r in rows(done.stdout)]

    assert order(run(*ask, "--strict", "--json", cats)) == order(run(*ask, "--strict", cats))


def test_hybrid_scores_decide_the_rank(ask: list[str], cats: Path):
    found = rows(run(*ask, "--alpha", "1", cats).stdout)
    assert [r["id"] for r in found] == ["a", "c", "b"]
    assert [r["rank"] for r in found] == [1, 2, 3]
    assert sum(r["hybrid_score"] for r in found) == pytest.approx(0, abs=1e-9)


def test_reasoning_is_shown_when_asked_for(ask: list[str], cats: Path):
    found = rows(run(*ask, "--thinking", "8", "--show-reasoning", cats).stdout)
    assert len(found) == 3
    assert all(isinstance(r["reasoning"], str) and r["reasoning"] for r in found)
    assert all(r["forced"] is True for r in found)


@pytest.mark.parametrize(("top", "count"), [("1", 1), ("2", 2), ("3", 3), ("99", 3), ("9" * 25, 3)])
def test_top_k(ask: list[str], cats: Path, top: str, count: int):
    done = run(*ask, "--top-k", top, cats)
    assert [r["rank"] for r in rows(done.stdout)] == list(range(1, count + 1))
    assert said(done.stderr)[-1].startswith("3 documents")


def test_standard_input(ask: list[str]):
    found = rows(run(*ask, "-", stdin=b"one\r\n\ntwo\n").stdout)
    assert sorted(r["content"] for r in found) == ["one", "two"]


def test_keys_of_ours_in_the_input_are_overwritten(ask: list[str], tmp_path: Path):
    own = {"content": "a", "rank": "x", "index": 7, "score": "s", "failure": "f", "forced": 3}
    (row,) = rows(run(*ask, json_lines(tmp_path / "d.jsonl", [own])).stdout)
    assert (row["rank"], row["index"], row["failure"]) == (1, 0, None)
    assert row["score"] in range(11) and isinstance(row["forced"], bool)


def test_every_line_is_valid_json_and_utf8(ask: list[str], tmp_path: Path):
    """Half a surrogate pair, a NUL and a number past all floats are legal in JSON's text."""
    file = tmp_path / "d.jsonl"
    file.write_text('{"content": "a\\ud800b\\u0000", "id": "\\udfff", "n": 1e999, "m": NaN}\n')

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    done = run(*ask, file)
    row = json.loads(done.stdout.decode("utf-8"), parse_constant=refuse)
    assert row["content"] == "a\ud800b\0" and row["id"] == "\udfff"


# Unusual input that is no mistake, or not a whole one


def test_an_empty_document_fails_alone(ask: list[str], tmp_path: Path):
    records = [{"content": c, "id": i} for i, c in enumerate(["", "text", " \n"])]
    done = run(*ask, json_lines(tmp_path / "d.jsonl", records))
    found = rows(done.stdout)
    assert done.returncode == 0 and [r["index"] for r in found] == [1, 0, 2]
    assert [r["failure"] for r in found] == [None] + ["the document is empty"] * 2
    assert [r["rank_score"] is None for r in found] == [False, True, True]
    assert "2 could not be scored" in said(done.stderr)[-1]


def test_nothing_scored_is_exit_code_3(ask: list[str], tmp_path: Path):
    done = run(*ask, json_lines(tmp_path / "d.jsonl", [{"content": ""}]))
    assert done.returncode == 3
    assert rows(done.stdout)[0]["failure"] == "the document is empty"


@pytest.mark.parametrize("name", ["d.jsonl", "d.txt"])
def test_an_empty_list(ask: list[str], tmp_path: Path, name: str):
    (tmp_path / name).write_text("\n")
    done = run(*ask, tmp_path / name)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = said(done.stderr)
    assert "no documents" in line


def test_one_document(ask: list[str], tmp_path: Path):
    (tmp_path / "d.txt").write_text("one")
    (row,) = rows(run(*ask, tmp_path / "d.txt").stdout)
    assert (row["rank"], row["index"], row["content"]) == (1, 0, "one")


def test_many_documents(ask: list[str], tmp_path: Path):
    (tmp_path / "d.txt").write_text("".join(f"text {i % 20}\n" for i in range(2500)))
    done = run(*ask, tmp_path / "d.txt")
    found = rows(done.stdout)
    assert [r["rank"] for r in found] == list(range(1, 2501))
    assert sorted(r["index"] for r in found) == list(range(2500))
    assert all(r["content"] == f"text {r['index'] % 20}" for r in found)


def test_a_document_of_two_megabytes_is_cut_and_kept(ask: list[str], tmp_path: Path):
    text = "word " * 400_000
    done = run(*ask, json_lines(tmp_path / "d.jsonl", [{"content": text}, {"content": "short"}]))
    found = {r["index"]: r for r in rows(done.stdout)}
    assert found[0]["content"] == text
    assert found[0]["truncated"] is True and found[0]["failure"] is None
    assert found[1]["truncated"] is False


def test_truncate_length(ask: list[str], tmp_path: Path):
    (tmp_path / "d.txt").write_text("a rather long document\nshort\n")
    found = {r["index"]: r for r in rows(run(*ask, "--truncate-length", "8", tmp_path).stdout)}
    assert found[0]["truncated"] is True


def test_a_message_quotes_no_book(ask: list[str], tmp_path: Path):
    table = tmp_path / "d.csv"
    table.write_text("id," + "x" * 100_000 + "\n1,2\n")
    text = is_a_clear_line(run_in_process(*ask, table))
    assert "no column is named content or text" in text and len(text) < 5000
    assert text.endswith("x; rename one")


def test_duplicate_ids_are_told_and_kept(ask: list[str], tmp_path: Path):
    records = [{"content": f"text {i}", "id": "same"} for i in range(3)]
    done = run(*ask, json_lines(tmp_path / "d.jsonl", records))
    warning, summary = said(done.stderr)
    assert warning.startswith("warning: 3 documents have the id 'same'")
    assert len(rows(done.stdout)) == 3 and summary.startswith("3 documents")


def test_first_stage_scores_of_any_size(ask: list[str], tmp_path: Path):
    records = [{"content": str(s), "first_stage_score": s} for s in (1e308, -1e308)]
    done = run(*ask, "--alpha", "1", json_lines(tmp_path / "d.jsonl", records))
    assert done.returncode == 0, done.stderr.decode()
    assert [r["hybrid_score"] for r in rows(done.stdout)] == pytest.approx([1, -1])


# Mistakes: one clear line, before a model is loaded


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_an_empty_query(tiny_gguf: Path, cats: Path, query: str):
    done = run_in_process("rerank", "--model", tiny_gguf, "--query", query, cats)
    assert "the query is empty" in is_a_clear_line(done)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("d.jsonl", b'{"content": "a"}\n{"content":\n', "d.jsonl, line 2: not valid JSON"),
        ("d.jsonl", b'{"content": "a"}\n\n[1]\n', "d.jsonl, line 3: "),
        ("d.jsonl", b'{"id": 1}\n', "line 1: the document has neither content nor text"),
        ("d.txt", b"fine\nn\xf6t\n", "line 2: byte 6 is not valid UTF-8"),
        ("d.txt", b"fine\n\0\n", "line 2: a NUL byte"),
        ("d.csv", b"content,id\na\n", "line 2: "),
        ("d.csv", b'"content"x,id\na,1\n', "d.csv"),
        ("d.csv", b"body\na\n", "no column is named content or text"),
        ("d.json", b"{}", "must hold a list"),
        ("d.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
    ],
)
def test_input_that_cannot_be_used(ask: list[str], tmp_path: Path, name: str, data: bytes, says):
    (tmp_path / name).write_bytes(data)
    assert says in is_a_clear_line(run_in_process(*ask, tmp_path / name))


@pytest.mark.parametrize("name", ["missing.jsonl", "x" * 300, "a long sentence " * 30])
def test_a_source_that_is_not_there(ask: list[str], name: str):
    assert name[:20] in is_a_clear_line(run_in_process(*ask, name))


def test_an_odd_file_name_stays_on_one_line(ask: list[str]):
    line = is_a_clear_line(run_in_process(*ask, "two\nlines\x1b[31m"))
    assert "\x1b" not in line


def test_a_hybrid_without_first_stage_scores(ask: list[str], tmp_path: Path):
    docs = json_lines(tmp_path / "d.jsonl", [*CATS, {"content": "x"}])
    line = is_a_clear_line(run_in_process(*ask, "--alpha", "0.2", docs))
    assert "first_stage_score" in line and "index 3" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--thinking", "0"], "thinking"),
        (["--thinking", "-5"], "thinking"),
        (["--thinking", "some"], "thinking"),
        (["--thinking", "9" * 5000], "thinking"),
        (["--instruction", "bright/nothing"], "bright/nothing"),
        (["--kv-type", "f12"], "kv_type"),
        (["--sequences", "100000"], "sequences"),
        (["--context-length", "9" * 15], "context_length"),
        (["--threads", "9999999"], "threads"),
        (["--tokenizer", "missing.json"], "missing.json"),
        (["--thinking", "5000000"], "thinking budget"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_that_cannot_be_used(ask: list[str], cats: Path, options: list[str], says: str):
    assert says in is_a_clear_line(run_in_process(*ask, *options, cats))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "colour=red"], "no option colour"),
        (["-o", "sequences=x"], "sequences must be a whole number, not 'x'"),
        (["-o", "kv_type=f12"], "kv_type"),
        (["-o", "threads"], "`threads` is not an option\nhint: write name=value"),
        (["-o", "=1"], "`=1` is not an option"),
        (["-o", "sequences=1", "-o", "sequences=2"], "sequences is given twice"),
        (["-o", "threads=2"], "both --threads and -o threads are given"),
        (["-o", "kv_type=f16", "--kv-type", "f16"], "both --kv-type and -o kv_type are given"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_engines_option_that_cannot_be_used(
    ask: list[str], cats: Path, options: list[str], says: str
):
    assert says in is_a_clear_line(run_in_process(*ask, *options, cats))


def test_an_engines_option_is_as_its_flag(ask: list[str], cats: Path):
    def scores(*options: str) -> list[Any]:
        done = run_in_process(*ask, "--strict", *options, cats)
        assert done.returncode == 0, done.stderr.decode()
        return [(r["index"], r["rank_score"]) for r in rows(done.stdout)]

    as_option = scores(
        "-o", "kv_type=q8_0", "-o", "flash-attention=true", "--option", "context_length=1024"
    )
    assert as_option == scores("--kv-type", "q8_0", "--flash-attention", "--context-length", "1024")
    assert as_option != scores()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--alpha", "1.5"], "alpha"),
        (["--alpha", "-0.1"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha", "x"], "alpha"),
        (["--top-k", "0"], "top-k"),
        (["--top-k", "x"], "top-k"),
        (["--truncate-length", "0"], "truncate-length"),
        (["--sequences", "0"], "sequences"),
        (["--tensor-split", "3,x"], "tensor-split"),
        (["--bogus"], "bogus"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_option_is_one_line_too(ask: list[str], cats: Path, options: list[str], says: str):
    line = is_a_clear_line(run_in_process(*ask, *options, cats), code=2)
    assert says in line and line.endswith("\nhint: erank-lite rerank --help lists the options")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bogus"], "bogus"),
        (["rerank", "--model", "m", "--query", "q"], "docs"),
        (["rerank", "--model", "m", "d.txt"], "query"),
        (["inspect"], "file"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_command_line_is_one_line_too(args: list[str], says: str):
    assert says in is_a_clear_line(run_in_process(*args), code=2).lower()


# Models


def texts() -> list[str]:
    return ["a", "b", "ab", *ADDED]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A folder of models that cannot be used."""
    folder = tmp_path_factory.mktemp("models")
    tiny = tiny_gguf.read_bytes()
    (folder / "half.gguf").write_bytes(tiny[: len(tiny) // 2])
    (folder / "header.gguf").write_bytes(tiny[:1000])
    (folder / "v1.gguf").write_bytes(tiny[:4] + b"\x01" + tiny[5:])
    (folder / "v9.gguf").write_bytes(tiny[:4] + b"\x09" + tiny[5:])
    (folder / "text.gguf").write_text("This is no model at all, only text.\n")
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "vocabulary.gguf").write_bytes(gguf_bytes(QWEN, ()))
    causal = {"general.architecture": "bert", "bert.attention.causal": ("?", False)}
    (folder / "bert.gguf").write_bytes(gguf_bytes(causal))
    (folder / "t5.gguf").write_bytes(gguf_bytes({"general.architecture": "t5encoder"}))
    (folder / "pooled.gguf").write_bytes(gguf_bytes(QWEN | {"qwen3.pooling_type": ("I", 3)}))
    (folder / "cls.gguf").write_bytes(gguf_bytes(QWEN, (("cls.weight", (4,), 0, 0),)))
    write_gguf(folder / "bare.gguf", texts(), [1] * len(texts()), template=None)
    return folder


def test_a_model_that_llama_cpp_refuses_is_told_in_one_line(cats: Path, tmp_path: Path):
    """Nor does what was made of the engine say anything as it goes."""
    odd = write_gguf(tmp_path / "odd.gguf", texts(), [1] * len(texts()), architecture="qwenx")
    done = run("rerank", "--model", odd, "--query", "q", cats)
    assert "llama.cpp cannot load" in is_a_clear_line(done)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("half.gguf", "cut short"),
        ("header.gguf", "damaged or cut short"),
        ("v1.gguf", "GGUF version 1"),
        ("v9.gguf", "GGUF version 9"),
        ("text.gguf", "is not a GGUF file"),
        ("empty.gguf", "is not a GGUF file"),
        ("vocabulary.gguf", "no weights"),
        ("bert.gguf", "is an encoder"),
        ("t5.gguf", "is an encoder"),
        ("pooled.gguf", "classifier or embedding"),
        ("cls.gguf", "classifier or embedding"),
        ("bare.gguf", "no chat template"),
        ("missing.gguf", "there is no file"),
        ("", "is a folder of GGUF files, not a checkpoint\nhint: name one of them, as in"),
    ],
)
def test_a_model_that_cannot_be_used(models: Path, cats: Path, name: str, says: str):
    done = run_in_process("rerank", "--model", models / name, "--query", "q", cats)
    assert says in is_a_clear_line(done)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", ["rerank", "inspect"])
def test_a_model_without_permission(tiny_gguf: Path, tmp_path: Path, cats: Path, command: str):
    model = tmp_path / "m.gguf"
    model.write_bytes(tiny_gguf.read_bytes())
    model.chmod(0)
    args = [model] if command == "inspect" else ["--model", model, "--query", "q", cats]
    assert "Permission denied" in is_a_clear_line(run_in_process(command, *args))


# inspect


def test_inspect_for_people(tiny_gguf: Path):
    done = run_in_process("inspect", tiny_gguf)
    assert done.returncode == 0 and done.stderr == b""
    text = done.stdout.decode()
    assert re.search(r"^architecture +qwen3$", text, re.M)
    assert re.search(r"^looks like erank +no: ", text, re.M)


def test_inspect_for_programs(tiny_gguf: Path):
    (facts,) = rows(run_in_process("inspect", tiny_gguf, "--json").stdout)
    assert facts["architecture"] == "qwen3" and facts["layers"] == 2
    assert facts["file"] == str(tiny_gguf)


@pytest.mark.parametrize("name", ["half.gguf", "v9.gguf", "text.gguf", "missing.gguf", ""])
def test_inspect_of_something_else(models: Path, name: str):
    is_a_clear_line(run_in_process("inspect", models / name))


def test_inspect_of_an_encoder_says_so(models: Path):
    done = run_in_process("inspect", models / "bert.gguf")
    assert done.returncode == 0 and "looks like erank" in done.stdout.decode()


def test_inspect_lets_no_file_steer_the_terminal(tmp_path: Path):
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf_bytes(QWEN | {"general.name": "x\x1b[2J\x07\u202ey\nz"}))
    text = run_in_process("inspect", file).stdout.decode()
    assert "x" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_inspect_of_a_pipe_does_not_wait_for_ever(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        [*COMMAND, "inspect", str(tmp_path / "pipe")], stderr=subprocess.PIPE
    )
    try:
        _, errors = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("it waits for a writer")
    done = subprocess.CompletedProcess((), process.returncode, b"", errors)
    assert "is a pipe" in is_a_clear_line(done)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_inspect_in_any_encoding(tmp_path: Path, encoding: str):
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf_bytes(QWEN | {"general.name": "Modèle → 模型"}))
    done = run("inspect", file, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr.decode()
    assert b"Mod" in done.stdout


# Terminals


class Terminal:
    """One end of a pseudo-terminal, read in the background."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has the other end any more
                return
            if not data:
                return
            self.data += data

    def done(self) -> str:
        os.close(self.theirs)
        self._thread.join(10)
        os.close(self._ours)
        return self.data.decode()


def on_a_terminal(*args: str | Path, columns: int = 120) -> tuple[str, list[str], int]:
    terminal = Terminal()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=terminal.theirs,
        stderr=subprocess.PIPE,
        timeout=100,
        env=env,
    )
    return terminal.done(), said(done.stderr), done.returncode


def test_a_terminal_gets_a_table(ask: list[str], cats: Path):
    text, _, code = on_a_terminal(*ask, cats)
    head, *lines = text.splitlines()
    assert code == 0 and len(lines) == 3
    for name in ("rank", "score", "probability", "first stage", "document"):
        assert name in head
    assert sorted(line.split()[-2] for line in lines) == ["Cats", "Dogs", "Fish"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert "3.500" in next(line for line in lines if "Cats" in line)


def test_a_terminal_gets_json_when_asked_for(ask: list[str], cats: Path):
    text, _, _ = on_a_terminal(*ask, "--json", cats)
    assert [r["rank"] for r in rows(text.replace("\r", "").encode())] == [1, 2, 3]


def test_the_table_has_the_hybrid_and_the_reasoning(ask: list[str], cats: Path):
    text, _, _ = on_a_terminal(
        *ask, "--alpha", "0.5", "--thinking", "8", "--show-reasoning", "--top-k", "2", cats
    )
    assert "hybrid" in text.splitlines()[0]
    assert re.search(r"^1\. ", text, re.M) and re.search(r"^2\. ", text, re.M)
    assert not re.search(r"^3\. ", text, re.M)


def test_a_document_does_not_steer_the_terminal(ask: list[str], tmp_path: Path):
    texts = ["\x1b[2J\x1b]0;owned\x07red", "[bold]no markup[/bold] \u202erev \x9b31m", "", "\ud800"]
    docs = json_lines_ascii(tmp_path / "d.jsonl", [{"content": t, "id": t} for t in texts])
    text, _, code = on_a_terminal(*ask, "--thinking", "8", "--show-reasoning", docs)
    assert code == 0
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text)
    assert "[bold]no markup[/bold]" in text
    assert "the document is empty" in text


def json_lines_ascii(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.mark.parametrize("columns", [20, 40, 80, 300])
def test_each_document_takes_one_line(ask: list[str], tmp_path: Path, columns: int):
    (tmp_path / "d.txt").write_text("wide 模型 text, over and over. " * 40 + "\nshort\n")
    text, _, code = on_a_terminal(*ask, tmp_path / "d.txt", columns=columns)
    assert code == 0 and len(text.splitlines()) == 3


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_narrow_table_keeps_its_numbers(ask: list[str], tmp_path: Path, columns: int):
    (tmp_path / "d.txt").write_text("a text longer than the terminal is wide " * 9 + "\nb\n")
    text, _, code = on_a_terminal(*ask, tmp_path / "d.txt", columns=columns)
    assert code == 0
    for place, line in enumerate(text.splitlines()[-2:], 1):
        assert re.match(rf"{place} +\d+\.\d{{3}} +\d+ +\d\.\d{{3}} ", line.strip()), line


@pytest.mark.parametrize("columns", [30, 60])
def test_a_table_keeps_its_names_and_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
):
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(("", "nDCG@10", "R@100"), [("first stage, of long name", "0.7500", "0.8066")])
    text = capsys.readouterr().out
    for word in ("first", "stage,", "long", "nDCG@10", "R@100", "0.7500", "0.8066"):
        assert word in text.split() or f"{word}," in text.split()
    assert all(len(line) <= columns for line in text.splitlines())


# The world outside


@pytest.mark.parametrize("command", ["rerank", "inspect"])
def test_a_closed_pipe_is_quiet(ask: list[str], tiny_gguf: Path, cats: Path, command: str):
    args = [*ask, str(cats)] if command == "rerank" else ["inspect", str(tiny_gguf)]
    process = subprocess.Popen(
        [*COMMAND, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 141
    assert b"Traceback" not in errors and b"Broken" not in errors


@pytest.mark.parametrize("command", ["rerank", "inspect"])
def test_a_full_disk_is_told(ask: list[str], tiny_gguf: Path, cats: Path, command: str):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    args = [*ask, str(cats)] if command == "rerank" else ["inspect", str(tiny_gguf)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *args], stdout=full, stderr=subprocess.PIPE, timeout=60, stdin=full
        )
    assert done.returncode == 1
    assert any(line.startswith("error: ") for line in said(done.stderr))
    assert b"Traceback" not in done.stderr


def test_a_cache_that_may_not_be_looked_into_is_told(
    cats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As another user's is; root may look into everything."""
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.is_relative_to(tmp_path / "cache"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "is_file", refused)
    line = is_a_clear_line(run_in_process("rerank", "--model", "erank-tiny", "--query", "q", cats))
    assert "cache" in line and line.endswith("cannot be used: Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_messages_on_a_full_disk_cost_no_results(ask: list[str], cats: Path):
    expected = subprocess.run([*COMMAND, *ask, str(cats)], capture_output=True, timeout=60)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *ask, str(cats)], stdout=subprocess.PIPE, stderr=full, timeout=60
        )
        refused = subprocess.run([*COMMAND, *ask, "nosuch"], stderr=full, timeout=60)
    assert (done.returncode, done.stdout) == (0, expected.stdout) and done.stdout
    assert refused.returncode == 1


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_stream_is_no_crash(ask: list[str], cats: Path, stream: int):
    streams = ["<&-", ">&-", "2>&-"]
    docs = "-" if stream == 0 else str(cats)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams[stream]}', "sh", *COMMAND, *ask, docs],
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    if stream == 0:
        is_a_clear_line(done)
    if stream == 2:
        assert done.returncode == 0 and len(rows(done.stdout)) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_keeps_what_is_finished(ask: list[str], tmp_path: Path, how: signal.Signals):
    """The progress, which a terminal gets, tells when to interrupt."""
    skip_where_ignored(how)
    (tmp_path / "d.txt").write_text("".join(f"document {i}\n" for i in range(3000)))
    terminal = Terminal()
    process = subprocess.Popen(
        [*COMMAND, *ask, "--thinking", "60", "--sequences", "2", str(tmp_path / "d.txt")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    output: list[bytes] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))
    reader.start()
    try:
        end = time.monotonic() + 60
        while not re.search(rb"[1-9]\d*/3000", terminal.data):
            assert process.poll() is None and time.monotonic() < end, terminal.data
            time.sleep(0.02)
        start = time.monotonic()
        process.send_signal(how)
        code = process.wait(30)
        took = time.monotonic() - start
    finally:
        process.kill()
        reader.join(10)
    text = terminal.done()
    found = rows(output[0])
    assert code == 130 and took < 3
    assert 0 < len(found) < 3000
    assert [r["rank"] for r in found] == list(range(1, len(found) + 1))
    assert all(r["failure"] is None for r in found)
    assert f"interrupted with {3000 - len(found):,} of 3,000 documents unread" in text
    assert "Traceback" not in text


def test_ctrl_c_while_documents_are_read(ask: list[str]):
    skip_where_ignored(signal.SIGINT)
    process = subprocess.Popen(
        [*COMMAND, *ask, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        process.stdin.write(b"line\n" * 200_000)  # more than a pipe holds: it is being read
        process.stdin.flush()
        time.sleep(0.5)  # until it waits for more
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
        output, errors = process.stdout.read(), process.stderr.read()
    finally:
        process.kill()
        process.stdin.close()
    assert (code, output) == (130, b"")
    assert b"Traceback" not in errors


# A model that was trained


def test_a_real_model(smollm2: Path, cats: Path):
    done = run("rerank", "--model", smollm2, "--query", "cats", "--thinking", "24", cats)
    found = rows(done.stdout)
    assert done.returncode == 0 and [r["rank"] for r in found] == [1, 2, 3]
    assert all(r["failure"] is None and r["score"] in range(11) for r in found)
