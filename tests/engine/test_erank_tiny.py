"""The model in the package: its files, its answers, the demo, and what conversion does to it."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.answers import agreement, everyday, in_order, results_of

from erank_lite.cli.demo import queries
from erank_lite.errors import ErankLiteError, InputError, ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.models.cache import list_cache
from erank_lite.models.checkpoint import BUNDLED_FOLDER
from erank_lite.models.prepare import gguf_file
from erank_lite.models.ref import ModelRef
from erank_lite.text.tokenizer import Tokenizer


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ERANK_LITE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def jobs() -> list[tuple[str, list[dict[str, Any]]]]:
    return [(q["query"], q["documents"]) for q in queries()]


@pytest.fixture(scope="module")
def exact(jobs: list[tuple[str, list[dict[str, Any]]]]) -> list[list[dict[str, Any]]]:
    """The demo's results with the weights as they were trained, one document at a time."""
    return results_of(jobs, "erank-tiny:BF16", strict=True)


def made(name: str) -> Path:
    return gguf_file(ModelRef.parse(name))


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("erank-lite")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_every_answer_has_the_form(exact: list[list[dict[str, Any]]]) -> None:
    for result in in_order(exact):
        assert result["failure"] is None and not result["forced"], result["completion"]
        assert result["score"] in range(11)
        assert result["completion"].startswith("<think>\n\n</think>\n\n<answer>")


@pytest.mark.parametrize("thinking", ["full", "none"])
def test_what_answers_comes_first(
    jobs: list[tuple[str, list[dict[str, Any]]]], thinking: str
) -> None:
    for (query, docs), ranked in zip(
        jobs, results_of(jobs, "erank-tiny", thinking=thinking), strict=True
    ):
        count = sum(d["answers"] for d in docs)
        assert all(r["answers"] for r in ranked[:count]), (query, ranked[:count])


def test_shuffled_documents_give_the_same_order(
    jobs: list[tuple[str, list[dict[str, Any]]]],
) -> None:
    chance = random.Random(5)
    shuffled = [(query, chance.sample(docs, len(docs))) for query, docs in jobs]
    first, second = (results_of(j, "erank-tiny") for j in (jobs, shuffled))
    for a, b in zip(first, second, strict=True):
        assert [r["content"] for r in a] == [r["content"] for r in b]


def test_together_is_as_alone(
    jobs: list[tuple[str, list[dict[str, Any]]]], exact: list[list[dict[str, Any]]]
) -> None:
    together = in_order(results_of(jobs, "erank-tiny:BF16", sequences=16))
    differences = [
        abs(a["rank_score"] - b["rank_score"])
        for a, b in zip(together, in_order(exact), strict=True)
    ]
    assert statistics.mean(differences) < 0.02


def test_quantization_keeps_the_scores() -> None:
    # Of 500 held-out pairs, Q8_0 has the same score for 94 %, Q4_K_M for 75 %; rank scores differ
    # by 0.03 and 0.15 in the mean (benchmarks/results/erank-tiny.json).
    exact = in_order(results_of(everyday(20), "erank-tiny:BF16", strict=True))
    for kind, least, most in (("Q8_0", 0.92, 0.05), ("Q4_K_M", 0.65, 0.2)):
        rounded = in_order(results_of(everyday(20), f"erank-tiny:{kind}", strict=True))
        same, difference = agreement(rounded, exact)
        assert same >= least and difference < most, (kind, same, difference)


def test_it_is_converted_once(caplog: pytest.LogCaptureFixture) -> None:
    file = made("erank-tiny:Q4_0")
    written = file.stat().st_mtime_ns
    assert made("erank-tiny:Q4_0") == file and file.stat().st_mtime_ns == written
    assert ("erank-tiny", "Q4_0") in [(c.name, c.what) for c in list_cache()]


def test_a_cached_file_that_was_cut_short_is_made_again() -> None:
    file = made("erank-tiny:Q4_0")
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size // 2)
    assert made("erank-tiny:Q4_0") == file and file.stat().st_size == size


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("erank-tiny:Q9", "types are F32"),
        ("erank-tiny:Q4", "did you mean Q4_K_M or Q4_K_S"),
        ("erank-tiny:", "types are F32"),
        ("Erank-Tiny", "did you mean erank-tiny?"),
        ("erank_tiny:BF16", "did you mean erank-tiny:BF16?"),
        ("erank-tiny@main", "did you mean erank-tiny?"),
        ("erank-tiny/Q8_0", "did you mean erank-tiny?"),
        ("ERank-4B", "did you mean Alibaba-NLP/ERank-4B?"),
        ("erank-14b:Q6_K", "did you mean Alibaba-NLP/ERank-14B:Q6_K?"),
        ("localhost:8000", "a server is named http://localhost:8000"),
        ("./nothing", "as in Alibaba-NLP/ERank-4B:Q4_K_M"),
    ],
)
def test_a_near_miss_is_an_error_that_helps(name: str, says: str) -> None:
    with pytest.raises(ErankLiteError) as raised:
        ModelRef.parse(name)
    assert says in (raised.value.hint or "")


def test_names_that_a_shell_or_the_hubs_cache_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert ModelRef.parse("~/m.gguf").path == tmp_path / "m.gguf"
    kept = tmp_path / "models--Alibaba-NLP--ERank-4B"
    snapshot = kept / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert ModelRef.parse(kept).path == snapshot
    assert ModelRef.parse(f"{kept}:Q4_K_M").path == snapshot


def test_a_files_name_takes_no_type(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="a file has its type already"):
        ModelRef.parse(f"{tmp_path / 'm.gguf'}:Q4_K_M")


def test_converting_it_gives_no_warning(tmp_path: Path) -> None:
    done = run("convert", "gguf", "erank-tiny", str(tmp_path / "tiny.gguf"), "--type", "Q8_0")
    assert done.returncode == 0 and "chance" not in done.stderr


def test_the_name_means_the_package_and_a_path_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "erank-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert made("erank-tiny").is_file()
    with pytest.raises(ModelError, match=r"config\.json"):
        made("./erank-tiny")


def test_the_template_is_one_token_a_part_and_the_prompt_is_as_published() -> None:
    tokenizer = Tokenizer.from_checkpoint(BUNDLED_FOLDER / "tokenizer.json")
    template = json.loads((BUNDLED_FOLDER / "tokenizer_config.json").read_text("utf-8"))[
        "chat_template"
    ]
    query, document = "a query", "=== document and </think>"
    prompt = PromptBuilder(tokenizer, template).query(query).document(document)
    text = tokenizer.decode(prompt.ids)
    assert document in text and text.endswith("<|im_start|>assistant\n")
    own = sum(len(tokenizer.encode(t).ids) for t in (query, document))
    assert len(prompt.ids) < own + 45  # 15 of the template, and the instruction


def test_rerank_names_the_model_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "docs.txt"
    file.write_text("The train to Rome leaves at nine.\nA recipe for onion soup.\n", "utf-8")
    done = run("rerank", "--query", "how do I make onion soup", str(file))
    assert done.returncode == 0, done.stderr
    assert "erank-tiny" in done.stderr
    assert "onion" in json.loads(done.stdout.splitlines()[0])["content"]


def test_the_demo() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    for query in queries():
        shown = done.stdout.split(f"{query['query']}  (")[1].split("the others")[0]
        assert shown.count("✓") == sum(d["answers"] for d in query["documents"])
    copied = 'erank-lite rerank --model Alibaba-NLP/ERank-4B --query "your question" documents.txt'
    assert f"  {copied}\n" in done.stdout


def test_a_reader_of_the_demo_who_goes_away() -> None:
    command = [str(Path(sys.executable).with_name("erank-lite")), "demo"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 141
