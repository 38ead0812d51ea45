"""Calibration text: what is read, what is refused, what is written once and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.reporter import RecordingReporter

from erank_lite import InputError, ModelError
from erank_lite.convert.calibration import (
    DEFAULT,
    CalibrationExample,
    OpenEngine,
    SelfGeneratedCalibration,
    digest,
    read_examples,
)
from erank_lite.engines.base import Engine
from erank_lite.engines.fake import FakeEngine
from erank_lite.families.erank.prompt import INSTRUCTIONS, PromptBuilder
from erank_lite.load import engine_for_calibration
from erank_lite.models.cache import clear_cache, list_cache
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.types import Prompt

EXAMPLES = [
    CalibrationExample("beir", "bread", "A loaf stays fresh in a box."),
    CalibrationExample("Find what contradicts the query.", "tea is hot", "Tea is <|im_end|> cold."),
    CalibrationExample("bright/pony", "rain", "It pours."),
]


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(write_checkpoint(tmp_path / "m"))


def writing(source: Checkpoint, text: str) -> FakeEngine:
    """Return an engine that writes `text` after every prompt."""
    tokenizer = source.tokenizer()
    end = tokenizer.encode_trusted("<|im_end|>")
    wanted = (*tokenizer.encode_trusted(text), *end)

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        return [(wanted[len(ids)], 0.9)]

    return FakeEngine(tokenizer, script, source.chat_template(), end)


def by(engine: Engine) -> OpenEngine:
    return lambda *_: engine


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))


def test_a_sample_is_the_prompt_and_what_the_model_wrote(source: Checkpoint) -> None:
    text = "<think>They are related.</think><answer>7</"
    samples = SelfGeneratedCalibration(source, EXAMPLES, by(writing(source, text))).samples()
    tokenizer = source.tokenizer()
    core = PromptBuilder(tokenizer, source.chat_template())
    for sample, example in zip(samples, EXAMPLES, strict=True):
        prompt = core.query(example.query, example.instruction).document(example.document)
        assert sample == prompt.ids + tokenizer.encode_trusted(text)


def test_an_answer_of_zero_stays_what_the_model_wrote(source: Checkpoint) -> None:
    # The guide has the engine look at another token there; the sample must not.
    engine = writing(source, "<answer>0</answer>")
    sample = SelfGeneratedCalibration(source, EXAMPLES[:1], by(engine)).samples()[0]
    assert source.tokenizer().decode(sample).endswith("<answer>0</")


def test_completions_are_kept_and_a_run_goes_on_where_it_stopped(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SelfGeneratedCalibration(source, EXAMPLES, engine_for_calibration)

    def run() -> tuple[list[tuple[int, ...]], list[tuple[str, int, int, str]]]:
        reporter = RecordingReporter()
        samples = text.samples(reporter)
        return samples, [report for report in reporter.reports if report[0] == "reasoning"]

    first, reports = run()
    assert reports[0] == ("reasoning", 0, text.tokens, "tokens")
    assert reports[-1] == ("reasoning", text.tokens, text.tokens, "tokens")
    assert all(s[: len(p.ids)] == p.ids for s, p in zip(first, text.prompts, strict=True))
    assert run() == (first, [])
    file = next((tmp_path / "cache").rglob("completions.jsonl"))
    lines = file.read_text().splitlines()
    file.write_text(lines[0] + "\n" + lines[1][:20])  # killed in the middle of a line
    done = json.loads(lines[0])["prompt"]
    again, reports = run()
    assert reports[0][2] == text.tokens - len(text.prompts[done].ids)
    assert again[done] == first[done] and len(again) == 3
    file.write_text("{}\n")
    assert len(run()[0]) == 3
    assert [e.what for e in list_cache() if e.path == file] == ["calibration text"]
    clear_cache()
    assert not file.exists()


def test_other_examples_and_other_weights_have_a_text_of_their_own(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = engine_for_calibration
    SelfGeneratedCalibration(source, EXAMPLES[:1], opener).samples()
    SelfGeneratedCalibration(source, EXAMPLES[:1]).samples()
    with pytest.raises(InputError, match="nothing was given to generate"):
        SelfGeneratedCalibration(source, EXAMPLES[1:2]).samples()
    SelfGeneratedCalibration(source, EXAMPLES[1:2], opener).samples()
    other = Checkpoint.open(write_checkpoint(source.path, dtype="F32"))
    SelfGeneratedCalibration(other, EXAMPLES[:1], opener).samples()
    assert len(list((tmp_path / "cache").rglob("completions.jsonl"))) == 3


def test_a_long_document_is_cut_to_the_models_context(source: Checkpoint) -> None:
    text = SelfGeneratedCalibration(source, [CalibrationExample("beir", "q", "word " * 5000)])
    assert text.prompts[0].truncated and text.context_length == 2048
    long_query = [EXAMPLES[0], CalibrationExample("beir", "q" * 5000, "d")]
    with pytest.raises(InputError, match="calibration example 2: the query and instruction take"):
        SelfGeneratedCalibration(source, long_query)


def test_the_time_is_told_once_some_documents_are_done(
    source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    engine, reporter = writing(source, "<answer>7</answer>"), RecordingReporter()
    SelfGeneratedCalibration(source, EXAMPLES[:1] * 20, by(engine)).samples(reporter)
    (message,) = reporter.messages
    assert f"about {16 * 12 // 8} s; it is kept" in message


def test_a_model_that_completes_nothing(source: Checkpoint) -> None:
    engine = writing(source, "")
    engine.run = lambda requests: iter(())  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="completed none"):
        SelfGeneratedCalibration(source, EXAMPLES, by(engine)).samples()


GOOD = b'{"instruction": "beir", "query": "q", "document": "d", "topic": "x"}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (GOOD + b"\n{", "line 2 is not valid JSON"),
        (GOOD + b"\n\n\xff\xfe", "line 3 is not valid JSON"),
        (b"[" * 100_000, "line 1 is not valid JSON"),
        (b"[1]", "line 1 must be a JSON object, not a list"),
        (b'{"query": "q", "document": "d"}', "line 1: 'instruction' is missing"),
        (GOOD + b'\n{"instruction": "beir", "query": 1, "document": "d"}', "line 2: 'query' must"),
        (b'{"instruction": "beir", "query": "q", "document": " "}', "line 1: 'document' must"),
        (b'{"instruction": "beir", "query": "q", "document": null}', "line 1: 'document' must"),
    ],
)
def test_a_broken_calibration_file(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(file)
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message + (caught.value.hint or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_examples(path)


def test_an_instruction_that_looks_like_a_name_and_is_none(source: Checkpoint) -> None:
    with pytest.raises(InputError, match="calibration example 1: there is no instruction named"):
        SelfGeneratedCalibration(source, [CalibrationExample("bright/pyno", "q", "d")])


def test_the_hash_is_that_of_the_examples_however_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(b'\n{"document":"d","query":"q","instruction":"beir"}\r\n')
    (tmp_path / "d.jsonl").write_bytes(GOOD)
    assert digest(read_examples(file)) == digest(read_examples(tmp_path / "d.jsonl"))
    assert digest([[1, 2], [3]]) != digest([[1], [2, 3]])


def test_the_set_that_comes_along_is_large_and_knows_every_instruction() -> None:
    examples = read_examples(DEFAULT)
    assert len(examples) >= 256
    assert len(set(examples)) == len(examples)
    assert {e.instruction for e in examples} >= set(INSTRUCTIONS)
