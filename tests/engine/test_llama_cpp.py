"""The llama.cpp engine: many documents together give what each gives alone, whatever happens."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
from support.gguf_files import write_gguf
from support.recording import random_prompts, request, run, same
from support.tokenizers import ADDED
from tokenizers import pre_tokenizers

from erank_lite import InputError, ModelError, Reranker
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.engines.base import Engine
from erank_lite.engines.llama_cpp import engine as llama_cpp_engine
from erank_lite.engines.llama_cpp.bindings import Batch, Context
from erank_lite.engines.llama_cpp.engine import LlamaCppEngine
from erank_lite.families.erank.score import ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.load import load
from erank_lite.machine.shapes import KV_BYTES
from erank_lite.models.gguf import GGUFFile
from erank_lite.testing.guides import CountingGuide
from erank_lite.types import Request, Score

# Largest difference of a log-probability between a document alone and among others, in F32: sums
# are taken in another order.
NOISE = 1e-3


def load_llama(path: Path, **options: object) -> Engine:
    return load(path, "llama.cpp", options)


def thousand_scores(engine: Engine) -> dict[int, Score]:
    """Return the scores of 1,000 documents with random lengths, queries and budgets."""
    vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
    prompts = random_prompts(1000, seed=5, queries=12)
    draw = random.Random(6)
    modes = [draw.choice(["none", 1, 5, 17, 40]) for _ in prompts]
    requests = []
    for i, (prompt, mode) in enumerate(zip(prompts, modes, strict=True)):
        guides = ScoreGuides(vocabulary, mode, None, engine.context_length)
        make = functools.partial(guides.guide, prompt)
        requests.append(Request(i, prompt, make, guides.max_tokens()))
    done = list(engine.run(requests))
    assert sorted(c.key for c in done) == list(range(1000))
    return {c.key: c.guide.score() for c in done}


@pytest.fixture(scope="module")
def strict_scores(tiny_gguf: Path) -> dict[int, Score]:
    with load_llama(tiny_gguf, threads=1, strict=True, kv_type="f32") as engine:
        return thousand_scores(engine)


@pytest.mark.parametrize("sequences", [3, 16, 64])
def test_a_thousand_documents(
    tiny_gguf: Path, strict_scores: dict[int, Score], sequences: int
) -> None:
    """As many out as in, each with its strict score up to noise."""
    with load_llama(tiny_gguf, threads=1, sequences=sequences, kv_type="f32") as engine:
        together = thousand_scores(engine)
    assert all(s.rank_score is not None for s in together.values())
    other_text = [i for i, s in strict_scores.items() if s.completion != together[i].completion]
    # Where two tokens are all but tied, noise decides; random weights tie more than trained ones.
    assert len(other_text) <= 5
    for i in strict_scores.keys() - set(other_text):
        assert strict_scores[i].score == together[i].score
        assert strict_scores[i].rank_score == pytest.approx(together[i].rank_score, abs=NOISE)


@pytest.mark.parametrize("code", [-3, 1, 2])
def test_failing_decodes_lose_nothing(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    prompts = random_prompts(40, seed=8)
    counts = [12] * len(prompts)
    with load_llama(tiny_gguf, threads=1, sequences=8, kv_type="f32") as engine:
        sound = run(engine, prompts, counts)
    decode, draw = Context.decode, random.Random(9)

    def failing(self: Context, rows: object) -> int:
        return code if draw.random() < 0.02 else decode(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "decode", failing)
    with load_llama(tiny_gguf, threads=1, sequences=8, kv_type="f32") as engine:
        requests = [request(i, p, 12) for i, p in enumerate(prompts)]
        completions = {c.key: c for c in engine.run(requests)}
    assert sorted(completions) == list(range(len(prompts)))
    failed = [c for c in completions.values() if c.failure is not None]
    assert len(failed) <= 4
    for key, completion in completions.items():
        if completion.failure is None:
            assert isinstance(completion.guide, CountingGuide)
            assert same(sound[key], completion.guide, NOISE)


def test_decodes_that_always_fail_end_in_failures(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "decode", lambda self, rows: -3)
    with load_llama(tiny_gguf, threads=1, sequences=4) as engine:
        requests = [request(i, p, 3) for i, p in enumerate(random_prompts(9, 1))]
        completions = list(engine.run(requests))
    assert sorted(c.key for c in completions) == list(range(9))
    assert all("failed to decode" in (c.failure or "") for c in completions)


def test_no_room_for_one_document_ends_in_failures(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "decode", lambda self, rows: 1)
    with load_llama(tiny_gguf, threads=1, sequences=4) as engine:
        requests = [request(i, p, 3) for i, p in enumerate(random_prompts(6, 1))]
        assert all(c.failure for c in engine.run(requests))


def test_little_memory_means_few_sequences(tiny_gguf: Path) -> None:
    prompts = random_prompts(12, seed=6)
    with load_llama(tiny_gguf, threads=1, memory=1) as engine:
        for _ in range(3):
            assert len(run(engine, prompts, [4] * 12)) == 12
            context = engine._context  # type: ignore[attr-defined]
            assert (context.sequences, context.cells) == (1, 256)


def test_small_steps_of_reading_leave_as_many_documents_together(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = []
    decode = Context.decode

    def seen(self: Context, rows: Batch) -> int:
        together.append(len(set(rows.sequences)))
        return decode(self, rows)

    monkeypatch.setattr(Context, "decode", seen)
    with load_llama(tiny_gguf, threads=1, micro_batch=2, sequences=6) as engine:
        run(engine, random_prompts(12, seed=6), [8] * 12)
    assert max(together) == 6


@pytest.mark.parametrize("kept", [2, 10**9])
def test_documents_that_outgrow_their_cells_lose_nothing(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """They wait, with what was computed of them or to be read again, and go on."""
    prompts, counts = random_prompts(9, seed=4), [700 + 40 * i for i in range(9)]
    options: dict[str, object] = {"threads": 1, "kv_type": "f32", "context_length": 2048}
    with load_llama(tiny_gguf, strict=True, **options) as engine:
        alone = run(engine, prompts, counts)
        cell = engine._cell_bytes  # type: ignore[attr-defined]
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))  # nothing is known of its answers
    monkeypatch.setattr(llama_cpp_engine, "_PARKED", kept)
    parked = []
    park = LlamaCppEngine._park
    monkeypatch.setattr(
        LlamaCppEngine, "_park", lambda self, row: (parked.append(row), park(self, row))
    )
    with load_llama(tiny_gguf, memory=4 * 768 * cell, **options) as engine:
        together = run(engine, prompts, counts)
    assert parked
    assert len(together) == 9
    parted = [i for i in alone if not same(alone[i], together[i], NOISE)]
    assert len(parted) <= 1  # where two tokens of random weights are all but tied


def test_a_strict_document_that_outgrows_its_cells_is_the_same(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))
    prompt, options = random_prompts(1, seed=4), {"threads": 1, "strict": True}
    with load_llama(tiny_gguf, **options) as engine:
        grown = run(engine, prompt, [1100])[0]
        assert engine._context.cells > 768  # type: ignore[attr-defined]
        # Of a second document, more is expected: it has all its cells from the beginning.
        for _ in range(8):
            engine._answers.add(1101, 1100)  # type: ignore[attr-defined]
        engine._context.close()  # type: ignore[attr-defined]
        engine._context = None  # type: ignore[attr-defined]
        whole = run(engine, prompt, [1100])[0]
    assert (grown.tokens, grown.logprobs) == (whole.tokens, whole.logprobs)


def test_equal_prompts_are_computed_once(tiny_gguf: Path) -> None:
    with Reranker(tiny_gguf, threads=1, thinking=8) as reranker:
        results = reranker.rerank("query", ["same", "other", "same", "same"])
        together = reranker.engine.tokens_generated
        reranker.rerank("query", ["same", "other"])
        assert reranker.engine.tokens_generated - together == together
    texts = {r["index"]: r["completion"] for r in results}
    assert texts[0] == texts[2] == texts[3]


@pytest.mark.parametrize("small_first_shard", [False, True])
def test_a_split_model_gives_what_the_whole_gives(
    tmp_path: Path, tiny_gguf: Path, small_first_shard: bool
) -> None:
    texts = GGUFFile.read(tiny_gguf).metadata["tokenizer.ggml.tokens"]
    types = GGUFFile.read(tiny_gguf).metadata["tokenizer.ggml.token_type"]
    split = {"split_max_tensors": 9, "small_first_shard": small_first_shard}
    write_gguf(tmp_path / "m.gguf", texts, types, **split)
    first, *others = sorted(tmp_path.glob("m-0*.gguf"))

    def scored(path: Path) -> list[float]:
        with Reranker(path, threads=1, thinking=5, strict=True) as reranker:
            return [r["rank_score"] for r in reranker.rerank("query", ["one", "two"])]

    assert scored(others[-1]) == scored(first) == scored(tiny_gguf)
    run_by = {ModelSpec.parse(str(path)).resolve() for path in (first, others[-1])}
    (resolved,) = run_by
    assert resolved.path == first
    assert resolved.size == sum(path.stat().st_size for path in (first, *others))
    before = resolved.digest
    data = bytearray(others[-1].read_bytes())
    data[-3] ^= 1
    others[-1].write_bytes(data)
    assert ModelSpec.parse(str(first)).resolve().digest != before


def test_many_queries_come_back_in_order(tiny_gguf: Path) -> None:
    queries = [(f"query {i}", [f"document {j}" for j in range(i % 4)]) for i in range(11)]
    with Reranker(tiny_gguf, threads=1, thinking=5, sequences=6) as reranker:
        many = list(reranker.rerank_many(queries))
        assert [sorted(r["index"] for r in results) for results in many] == [
            list(range(i % 4)) for i in range(11)
        ]
        single = reranker.rerank(*queries[7])
    assert [r["rank_score"] for r in many[7]] == pytest.approx(
        [r["rank_score"] for r in single], abs=NOISE
    )


def test_a_long_document_is_cut_and_says_so(tiny_gguf: Path) -> None:
    with Reranker(tiny_gguf, threads=1, thinking=10) as reranker:
        results = reranker.rerank("query", ["short", "long " * 2000])
    assert {r["index"]: r["truncated"] for r in results} == {0: False, 1: True}
    assert all(r["failure"] is None for r in results)


def test_a_query_longer_than_the_context_is_an_error(tiny_gguf: Path) -> None:
    with (
        Reranker(tiny_gguf, threads=1, thinking=10) as reranker,
        pytest.raises(InputError, match="query and instruction"),
    ):
        reranker.rerank("long " * 2000, ["document"])


@pytest.mark.parametrize("context", ["long", 2048.5])
def test_damaged_limits_are_an_error(tmp_path: Path, context: object) -> None:
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *ADDED]
    kinds = [1] * 256 + [3] * len(ADDED)
    damaged = write_gguf(tmp_path / "damaged.gguf", texts, kinds, context=context)
    with pytest.raises(ModelError, match="damaged"):
        load_llama(damaged)


def test_layers_on_a_missing_gpu_are_an_error(tiny_gguf: Path) -> None:
    from erank_lite.machine.llama_library import gpu_devices

    if gpu_devices():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="CMAKE_ARGS"):
        load_llama(tiny_gguf, threads=1, gpu_layers=1)
    load_llama(tiny_gguf, threads=1, gpu_layers=0).close()


@pytest.mark.parametrize(
    "options",
    [
        {"sequences": 0},
        {"context_length": 3},
        {"threads": 0},
        {"kv_type": "f17"},
        {"gpu_layers": -7},
        {"colour": "red"},
    ],
)
def test_options_are_checked(tiny_gguf: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Reranker(tiny_gguf, **options)


@pytest.mark.parametrize("kv_type", KV_BYTES)
def test_keys_and_values_of_every_type_run(tiny_gguf: Path, kv_type: str) -> None:
    with Reranker(tiny_gguf, threads=1, thinking=5, kv_type=kv_type) as reranker:
        assert len(reranker.rerank("query", ["a", "b"])) == 2
