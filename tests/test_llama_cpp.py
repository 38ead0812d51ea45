"""The llama.cpp engine: many documents together give what each gives alone, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import ADDED, write_gguf
from tokenizers import pre_tokenizers

from erank_lite import InputError, ModelError, Reranker
from erank_lite.engines._llama import Context
from erank_lite.engines.llama_cpp import LlamaCppEngine
from erank_lite.score_vocabulary import ScoreVocabulary
from erank_lite.scoring import ScoreReader
from erank_lite.types import Completion, Prompt, Request, Score, Step

# Largest difference of a log-probability between a document alone and among others, in F32: sums
# are taken in another order.
NOISE = 1e-3


class Recorder:
    """Generates `count` tokens and keeps them with their log-probabilities."""

    def __init__(self, count: int) -> None:
        self.capacity = count + 1
        self.count = count
        self.tokens: list[int] = []
        self.logprobs: list[float] = []

    def begin(self) -> Step:
        return Step(limit=self.count, measure=())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        assert logprobs is not None
        self.tokens.append(token)
        self.logprobs.append(logprobs[token])
        return Step(measure=(), done=len(self.tokens) == self.count)


def random_prompts(count: int, seed: int, vocabulary: int = 256, queries: int = 5) -> list[Prompt]:
    """Return prompts of random lengths: each query's share a beginning."""
    draw = random.Random(seed)
    prompts = []
    while len(prompts) < count:
        shared = tuple(draw.choices(range(vocabulary), k=draw.randint(0, 60)))
        for _ in range(min(-(-count // queries), count - len(prompts))):
            own = draw.choices(range(vocabulary), k=draw.randint(1, 120))
            prompts.append(Prompt((*shared, *own), len(shared)))
    return prompts


def run(
    engine: LlamaCppEngine, prompts: Sequence[Prompt], counts: Sequence[int]
) -> dict[int, Recorder]:
    """Return each prompt's recorder, by its place."""
    requests = [
        Request(i, prompt, lambda c=count: Recorder(c))  # type: ignore[misc]
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    completions = list(engine.run(requests))
    assert sorted(c.key for c in completions) == list(range(len(prompts)))
    assert all(c.failure is None for c in completions)
    return {c.key: c.reader for c in completions}  # type: ignore[misc]


def same(a: Recorder, b: Recorder) -> bool:
    """Whether two completions are equal up to noise, or part where two tokens are nearly tied."""
    for x, y, p, q in zip(a.tokens, b.tokens, a.logprobs, b.logprobs, strict=True):
        if x != y:
            return abs(p - q) < NOISE
        assert abs(p - q) < NOISE
    return True


@pytest.mark.parametrize("sequences", [1, 3, 16])
def test_together_is_as_alone(tiny_gguf: Path, sequences: int) -> None:
    prompts, draw = random_prompts(60, seed=1), random.Random(2)
    counts = [draw.randint(1, 40) for _ in prompts]
    with LlamaCppEngine(tiny_gguf, threads=1, strict=True, kv_type="f32") as engine:
        alone = run(engine, prompts, counts)
    with LlamaCppEngine(
        tiny_gguf, threads=1, sequences=sequences, kv_type="f32", micro_batch=32
    ) as engine:
        together = run(engine, prompts, counts)
    assert all(same(alone[i], together[i]) for i in alone)


def test_strict_results_do_not_depend_on_the_others(tiny_gguf: Path) -> None:
    prompts = random_prompts(24, seed=3)
    counts = [20] * len(prompts)
    with LlamaCppEngine(tiny_gguf, threads=1, strict=True) as engine:
        forwards = run(engine, prompts, counts)
        backwards = run(engine, prompts[::-1], counts)
    for i in (0, 7, 23):
        with LlamaCppEngine(tiny_gguf, threads=1, strict=True) as engine:
            single = run(engine, [prompts[i]], [20])[0]
        for other in (forwards[i], backwards[len(prompts) - 1 - i]):
            assert other.tokens == single.tokens
            assert other.logprobs == single.logprobs  # to the last bit


def thousand_scores(engine: LlamaCppEngine) -> dict[int, Score]:
    """Return the scores of 1,000 documents with random lengths, queries and budgets."""
    vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
    prompts = random_prompts(1000, seed=5, queries=12)
    draw = random.Random(6)
    modes = [draw.choice(["none", 1, 5, 17, 40]) for _ in prompts]
    requests = (
        Request(i, prompt, lambda p=prompt, m=mode: ScoreReader(vocabulary, p, m))  # type: ignore
        for i, (prompt, mode) in enumerate(zip(prompts, modes, strict=True))
    )
    done = list(engine.run(requests))
    assert sorted(c.key for c in done) == list(range(1000))
    return {c.key: c.reader.score() for c in done if isinstance(c.reader, ScoreReader)}


@pytest.fixture(scope="module")
def strict_scores(tiny_gguf: Path) -> dict[int, Score]:
    with LlamaCppEngine(tiny_gguf, threads=1, strict=True, kv_type="f32") as engine:
        return thousand_scores(engine)


@pytest.mark.parametrize("sequences", [3, 16, 64])
def test_a_thousand_documents(
    tiny_gguf: Path, strict_scores: dict[int, Score], sequences: int
) -> None:
    """As many out as in, each with its strict score up to noise."""
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=sequences, kv_type="f32") as engine:
        together = thousand_scores(engine)
    assert all(s.rank_score is not None for s in together.values())
    other_text = [i for i, s in strict_scores.items() if s.text != together[i].text]
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
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=8, kv_type="f32") as engine:
        sound = run(engine, prompts, counts)
    decode, draw = Context.decode, random.Random(9)

    def failing(self: Context, rows: object) -> int:
        return code if draw.random() < 0.02 else decode(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "decode", failing)
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=8, kv_type="f32") as engine:
        requests = [Request(i, p, lambda: Recorder(12)) for i, p in enumerate(prompts)]
        completions = {c.key: c for c in engine.run(requests)}
    assert sorted(completions) == list(range(len(prompts)))
    failed = [c for c in completions.values() if c.failure is not None]
    assert len(failed) <= 4
    for key, completion in completions.items():
        if completion.failure is None:
            assert isinstance(completion.reader, Recorder)
            assert same(sound[key], completion.reader)


def test_decodes_that_always_fail_end_in_failures(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "decode", lambda self, rows: -3)
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=4) as engine:
        requests = [Request(i, p, lambda: Recorder(3)) for i, p in enumerate(random_prompts(9, 1))]
        completions = list(engine.run(requests))
    assert sorted(c.key for c in completions) == list(range(9))
    assert all("failed to decode" in (c.failure or "") for c in completions)


def test_no_room_for_one_document_ends_in_failures(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "decode", lambda self, rows: 1)
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=4) as engine:
        requests = [Request(i, p, lambda: Recorder(3)) for i, p in enumerate(random_prompts(6, 1))]
        assert all(c.failure for c in engine.run(requests))


def test_requests_are_read_as_places_become_free(tiny_gguf: Path) -> None:
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for i, prompt in enumerate(random_prompts(200, seed=4)):
            taken += 1
            yield Request(i, prompt, lambda: Recorder(10))

    with LlamaCppEngine(tiny_gguf, threads=1, sequences=4) as engine:
        completions = engine.run(requests())
        next(completions)
        assert taken < 40
        completions.close()  # type: ignore[attr-defined]
        # What was given up leaves nothing behind.
        assert len(run(engine, random_prompts(5, 2), [5] * 5)) == 5


def test_a_run_that_begins_ends_the_one_before(tiny_gguf: Path) -> None:
    prompts = random_prompts(20, seed=6)
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=4) as engine:
        first = engine.run(Request(100 + i, p, lambda: Recorder(9)) for i, p in enumerate(prompts))
        next(first)
        assert sorted(run(engine, prompts, [9] * 20)) == list(range(20))
        with pytest.raises(ModelError, match="another one began"):
            list(first)


def test_little_memory_means_few_sequences(tiny_gguf: Path) -> None:
    prompts = random_prompts(12, seed=6)
    with LlamaCppEngine(tiny_gguf, threads=1, memory=1) as engine:
        for _ in range(3):
            assert len(run(engine, prompts, [4] * 12)) == 12
            assert engine._context is not None
            assert (engine._context.sequences, engine._context.cells) == (1, 256)


def test_a_longer_document_makes_the_context_grow(tiny_gguf: Path) -> None:
    draw = random.Random(1)
    lengths = [40, 50, 900, 30, 1500, 20]
    prompts = [Prompt(tuple(draw.choices(range(256), k=n)), 0) for n in lengths]
    with LlamaCppEngine(tiny_gguf, threads=1, sequences=2, kv_type="f32") as engine:
        first = run(engine, prompts[:2], [5, 5])
        assert len(first) == 2
        together = run(engine, prompts, [5] * 6)
    with LlamaCppEngine(tiny_gguf, threads=1, strict=True, kv_type="f32") as engine:
        alone = run(engine, prompts, [5] * 6)
    assert all(same(alone[i], together[i]) for i in alone)


def test_a_request_longer_than_the_context_fails_alone(tiny_gguf: Path) -> None:
    prompts = [Prompt((1,) * 30, 0), Prompt((1,) * 5000, 0), Prompt((2,) * 30, 0)]
    with LlamaCppEngine(tiny_gguf, threads=1) as engine:
        done = {
            c.key: c
            for c in engine.run(Request(i, p, lambda: Recorder(4)) for i, p in enumerate(prompts))
        }
    assert [bool(done[i].failure) for i in range(3)] == [False, True, False]
    assert "2048" in (done[1].failure or "")


def test_forced_and_dropped_tokens_leave_the_right_state(tiny_gguf: Path) -> None:
    """Rewinding and forcing must give what reading the same tokens from the start gives."""

    class Editor(Recorder):
        def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
            step = super().feed(token, logprobs)
            if len(self.tokens) == 6:
                return Step(rewind=4, force=(7, 8, 9), measure=())
            return step

    prompt = random_prompts(1, seed=3)[0]
    with LlamaCppEngine(tiny_gguf, threads=1, strict=True, kv_type="f32") as engine:
        (edited,) = engine.run([Request(0, prompt, lambda: Editor(12))])
        assert isinstance(edited.reader, Editor)
        tokens, logprobs = edited.reader.tokens, edited.reader.logprobs
        whole = Prompt((*prompt.ids, *tokens[:2], 7, 8, 9), 0)
        (plain,) = engine.run([Request(0, whole, lambda: Recorder(6))])
    assert isinstance(plain.reader, Recorder)
    assert plain.reader.tokens == tokens[6:]
    assert plain.reader.logprobs == pytest.approx(logprobs[6:], abs=NOISE)


def test_equal_prompts_are_computed_once(tiny_gguf: Path) -> None:
    with Reranker(tiny_gguf, threads=1, thinking=8) as reranker:
        results = reranker.rerank("query", ["same", "other", "same", "same"])
        together = reranker.engine.generated
        reranker.rerank("query", ["same", "other"])
        assert reranker.engine.generated - together == together
    texts = {r["index"]: r["completion"] for r in results}
    assert texts[0] == texts[2] == texts[3]


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
        LlamaCppEngine(damaged)


def test_layers_on_a_missing_gpu_are_an_error(tiny_gguf: Path) -> None:
    from erank_lite.engines._llama import gpu_devices

    if gpu_devices():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="CMAKE_ARGS"):
        LlamaCppEngine(tiny_gguf, threads=1, gpu_layers=1)
    LlamaCppEngine(tiny_gguf, threads=1, gpu_layers=0).close()


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


def test_quantized_keys_and_values_run(tiny_gguf: Path) -> None:
    with Reranker(
        tiny_gguf, threads=1, thinking=5, kv_type="q8_0", flash_attention=True
    ) as reranker:
        assert len(reranker.rerank("query", ["a", "b"])) == 2


def test_a_completion_knows_its_tokens(tiny_gguf: Path) -> None:
    with LlamaCppEngine(tiny_gguf, threads=1) as engine:
        (done,) = engine.run([Request(3, random_prompts(1, 1)[0], lambda: Recorder(9))])
    assert isinstance(done, Completion)
    assert (done.key, done.tokens) == (3, 9)
