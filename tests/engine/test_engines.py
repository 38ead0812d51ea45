"""The contract that every engine keeps, the fake one too: tokens in, tokens out, whatever shares
the batch."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.completion_server import VLLM, CompletionServer, serving
from support.recording import random_prompts, request, run, same
from support.tokenizers import CHAT_TEMPLATE

from erank_lite import ErankLiteError, InputError, ModelError, Reranker
from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.engines.base import Engine
from erank_lite.engines.fake import FakeEngine
from erank_lite.load import load
from erank_lite.machine.llama_library import gpu_devices
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.testing.guides import CountingGuide
from erank_lite.types import Completion, Prompt, Request, Step

CONTEXT = 2048
Make = Callable[..., Engine]

# Largest difference of a log-probability between a document alone and among others: sums are taken
# in another order, in GPTQ's kernels on numbers of 8 bits.
NOISE = {"fake": 0.0, "remote": 1e-9, "llama.cpp": 1e-3, "transformers": 1e-3, "gptq": 0.3}
# On a GPU llama.cpp takes other kernels for many rows than for one, some of them on 16-bit numbers.
if gpu_devices():
    NOISE["llama.cpp"] = 0.05


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers and random weights, whose vocabulary is the bytes."""
    return write_checkpoint(tmp_path_factory.mktemp("engines") / "tiny", width=128)


@pytest.fixture(scope="session")
def gguf_file(checkpoint: Path) -> Path:
    out = checkpoint.parent / "tiny.gguf"
    convert_gguf(checkpoint, out, "F32")
    return out


@pytest.fixture(scope="session")
def gptq_folder(checkpoint: Path) -> Path:
    """The same in GPTQ of 8 bits, calibrated on random tokens."""
    from erank_lite.convert.gptq.convert import convert_gptq

    out = checkpoint.parent / "gptq"
    samples = [p.ids for p in random_prompts(32, seed=0)]
    convert_gptq(checkpoint, out, bits=8, group_size=32, samples=samples)
    return out


@pytest.fixture(
    scope="session",
    params=[
        "fake",
        "llama.cpp",
        # As vLLM: llama-server gives no probabilities within a character, and these are random.
        "remote",
        pytest.param("transformers", marks=pytest.mark.reference),
        pytest.param("gptq", marks=pytest.mark.gptq),
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def make(name: str, checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes an engine; `strict` and `sequences` are options that all have."""

    def build(**options: object) -> Engine:
        if name == "fake":
            return fake(checkpoint)
        if name == "remote":
            return load(served.url, "remote", {"tokenizer": checkpoint} | options)
        common: dict[str, object] = {"threads": 1, "context_length": CONTEXT} | options
        if name == "llama.cpp":
            common |= {"kv_type": "f32"}
            path = request.getfixturevalue("gguf_file")
        elif name == "transformers":
            common |= {"dtype": "float32"}
            path = checkpoint
        else:
            path = request.getfixturevalue("gptq_folder")
        return load(path, name, common)

    with serving(ServerOfAnyPrompt(fake(checkpoint), VLLM)) as served:
        yield build


class ServerOfAnyPrompt(CompletionServer):
    """A server whose script does not care where the prompt ends."""

    def likely(self, ids: Sequence[int]) -> list[tuple[int, float]]:
        return list(self.engine._script(Prompt(tuple(ids), 0), ()))


def fake(checkpoint: Path) -> FakeEngine:
    """Return an engine that writes what a hash of all that it has read says."""
    folder = Checkpoint.open(checkpoint)
    tokenizer = folder.tokenizer()

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        seed = hashlib.blake2b(repr((*prompt.ids, *ids)).encode()).digest()
        draw = random.Random(seed)
        return [(i, 0.5 / 2**n) for n, i in enumerate(draw.sample(range(256), 40))]

    return FakeEngine(tokenizer, script, CHAT_TEMPLATE, folder.end_ids(tokenizer), CONTEXT)


@pytest.mark.parametrize("sequences", [3, 16])
def test_together_is_as_alone(name: str, make: Make, sequences: int) -> None:
    prompts, draw = random_prompts(40, seed=1), random.Random(2)
    counts = [draw.randint(1, 30) for _ in prompts]
    with make(strict=True) as engine:
        alone = run(engine, prompts, counts)
    with make(sequences=sequences) as engine:
        together = run(engine, prompts, counts)
        assert engine.tokens_generated == sum(counts)
    assert all(same(alone[i], together[i], NOISE[name]) for i in alone)


def test_strict_results_do_not_depend_on_the_others(make: Make) -> None:
    prompts = random_prompts(20, seed=3)
    counts = [12] * len(prompts)
    with make(strict=True) as engine:
        forwards = run(engine, prompts, counts)
        backwards = run(engine, prompts[::-1], counts)
    for i in (0, 7, 19):
        with make(strict=True) as engine:
            single = run(engine, [prompts[i]], [12])[0]
        for other in (forwards[i], backwards[len(prompts) - 1 - i]):
            assert other.tokens == single.tokens
            assert other.logprobs == single.logprobs  # to the last bit


def test_the_chosen_token_is_the_most_probable_and_all_sum_to_one(make: Make) -> None:
    class Whole(CountingGuide):
        sums: list[float]

        def begin(self) -> Step:
            self.sums = []
            return Step(max_tokens=self.count, logprobs_for=tuple(range(256)))

        def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
            import math

            assert logprobs is not None and logprobs[token] == max(logprobs.values())
            self.sums.append(math.fsum(map(math.exp, logprobs.values())))
            super().feed(token, logprobs)
            done = len(self.tokens) == self.count
            return Step(max_tokens=1, logprobs_for=tuple(range(256)), done=done)

    with make() as engine:
        (done,) = engine.run([request(0, random_prompts(1, seed=9)[0], 5, Whole)])
    assert isinstance(done.guide, Whole)
    # The vocabulary is the bytes and a few added tokens.
    assert len(done.guide.sums) == 5 and all(0.5 < s < 1.0001 for s in done.guide.sums)


def test_probabilities_come_only_where_they_are_asked_for(make: Make) -> None:
    asked: list[bool] = []

    class Sometimes(CountingGuide):
        def begin(self) -> Step:
            return Step(max_tokens=4)

        def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
            asked.append(logprobs is not None)
            self.tokens.append(token)
            measure = (65,) if len(self.tokens) == 2 else None
            return Step(logprobs_for=measure, done=len(self.tokens) == 4)

    with make() as engine:
        list(engine.run([request(0, random_prompts(1, seed=9)[0], 4, Sometimes)]))
    assert asked == [False, False, True, False]


def test_forced_and_dropped_tokens_leave_the_right_state(name: str, make: Make) -> None:
    """Rewinding and forcing must give what reading the same tokens from the start gives."""

    class Editor(CountingGuide):
        def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
            step = super().feed(token, logprobs)
            if len(self.tokens) == 6:
                return Step(drop=4, force=(7, 8, 9), max_tokens=self.count, logprobs_for=())
            return step

    prompts = random_prompts(5, seed=3)
    with make(sequences=5) as engine:
        edited = {
            c.key: c.guide
            for c in engine.run(request(i, p, 12, Editor) for i, p in enumerate(prompts))
        }
        whole = [
            Prompt((*prompt.ids, *edited[i].tokens[:2], 7, 8, 9), 0)  # type: ignore[attr-defined]
            for i, prompt in enumerate(prompts)
        ]
        plain = run(engine, whole, [6] * 5)
    for i, recorder in plain.items():
        rest = CountingGuide(6)
        rest.tokens = edited[i].tokens[6:]  # type: ignore[attr-defined]
        rest.logprobs = edited[i].logprobs[6:]  # type: ignore[attr-defined]
        assert same(rest, recorder, NOISE[name])


def test_requests_are_read_as_places_become_free(make: Make) -> None:
    taken = 0

    def requests() -> Iterator[Request[CountingGuide]]:
        nonlocal taken
        for i, prompt in enumerate(random_prompts(200, seed=4)):
            taken += 1
            yield request(i, prompt, 10)

    with make(sequences=4) as engine:
        with closing(engine.run(requests())) as completions:
            next(completions)
            assert taken < 40
        # What was given up leaves nothing behind.
        assert len(run(engine, random_prompts(5, 2), [5] * 5)) == 5


def test_runs_share_an_engine_and_each_gets_its_own(name: str, make: Make) -> None:
    prompts = random_prompts(20, seed=6)
    with make(strict=True) as engine:
        alone = run(engine, prompts, [9] * 20)
    with make(sequences=4) as engine:
        first = engine.run(request(i, p, 9) for i, p in enumerate(prompts))
        done = [next(first)]
        second = run(engine, prompts[::-1], [9] * 20)
        done += first
    assert sorted(c.key for c in done) == list(range(20))
    assert all(same(alone[c.key], c.guide, NOISE[name]) for c in done)
    assert all(same(alone[19 - i], guide, NOISE[name]) for i, guide in second.items())


def test_a_short_run_does_not_wait_for_a_long_one(make: Make) -> None:
    prompts = random_prompts(200, seed=7)
    with make(sequences=4) as engine:
        long = engine.run(request(i, p, 8) for i, p in enumerate(prompts))
        finished: list[int] = []
        running = threading.Thread(target=lambda: finished.extend(c.key for c in long))
        running.start()
        assert len(run(engine, random_prompts(3, seed=8), [8] * 3)) == 3
        before = len(finished)
        running.join()
    assert before < 150 and sorted(finished) == list(range(200))


def test_many_threads_lose_nothing(name: str, make: Make) -> None:
    prompts = random_prompts(24, seed=26)
    with make(strict=True) as engine:
        alone = run(engine, prompts, [6] * 24)
    wrong: list[object] = []

    def call(number: int) -> None:
        draw = random.Random(number)
        for _ in range(6):
            which = draw.sample(range(24), draw.randint(1, 9))
            try:
                if draw.random() < 0.3:  # begun, and given up
                    next(engine.run([request(i, prompts[i], 6) for i in which]))
                done = run(engine, [prompts[i] for i in which], [6] * len(which))
                wrong.extend(i for n, i in enumerate(which)
                             if not same(alone[i], done[n], NOISE[name]))  # fmt: skip
            except BaseException as error:
                wrong.append(error)

    with make(sequences=5) as engine:
        threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_asynchronous_runs_share_an_engine(name: str, make: Make) -> None:
    prompts = random_prompts(12, seed=27)
    with make(strict=True) as engine:
        alone = run(engine, prompts, [6] * 12)

    async def one(engine: Engine, which: list[int]) -> dict[int, CountingGuide]:
        requests = [request(i, prompts[i], 6) for i in which]
        return {c.key: c.guide async for c in engine.arun(requests)}

    async def several(engine: Engine) -> list[dict[int, CountingGuide]]:
        begun = [asyncio.create_task(one(engine, list(range(12)))) for _ in range(3)]
        kept = [asyncio.create_task(one(engine, [i, i + 1])) for i in range(6)]
        await asyncio.sleep(0.01)
        for task in begun:
            task.cancel()
        assert all(
            isinstance(e, asyncio.CancelledError)
            for e in await asyncio.gather(*begun, return_exceptions=True)
        ) or name in ("fake", "llama.cpp")  # which may have been faster
        return await asyncio.gather(*kept)

    with make(sequences=4) as engine:
        found = asyncio.run(several(engine))
        assert len(run(engine, prompts, [6] * 12)) == 12
    assert [sorted(guides) for guides in found] == [[i, i + 1] for i in range(6)]
    assert all(same(alone[i], g, NOISE[name]) for guides in found for i, g in guides.items())


def test_closing_an_engine_ends_its_runs(make: Make) -> None:
    engine = make(sequences=2)
    completions = engine.run(request(i, p, 30) for i, p in enumerate(random_prompts(50, seed=28)))
    next(completions)
    engine.close()
    with pytest.raises(ModelError, match="was closed"):
        list(completions)
    with pytest.raises(ModelError, match="is closed"):
        engine.run([])


def test_a_mistake_in_one_run_leaves_the_others_alone(make: Make) -> None:
    def broken() -> Iterator[Request[CountingGuide]]:
        yield from [request(i, p, 20) for i, p in enumerate(random_prompts(4, seed=29))]
        raise ValueError("a mistake")

    prompts = random_prompts(10, seed=30)
    with make(sequences=4) as engine:
        other = engine.run(request(i, p, 9) for i, p in enumerate(prompts))
        done = [next(other)]
        with pytest.raises(ValueError, match="a mistake"):
            list(engine.run(broken()))
        done += other
    assert sorted(c.key for c in done) == list(range(10)) and not any(c.failure for c in done)


def test_an_engine_is_not_pickled(make: Make) -> None:
    with make() as engine, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(engine)


def test_a_request_longer_than_the_context_fails_alone(make: Make) -> None:
    prompts = [Prompt((1,) * 30, 0), Prompt((1,) * 5000, 0), Prompt((2,) * 30, 0)]
    with make() as engine:
        done: dict[int, Completion[CountingGuide]] = {
            c.key: c for c in engine.run(request(i, p, 4) for i, p in enumerate(prompts))
        }
    assert [bool(done[i].failure) for i in range(3)] == [False, True, False]
    assert str(CONTEXT) in (done[1].failure or "")


def test_a_longer_document_makes_room_for_itself(name: str, make: Make) -> None:
    draw = random.Random(1)
    lengths = [40, 50, 900, 30, 1500, 20]
    prompts = [Prompt(tuple(draw.choices(range(256), k=n)), 0) for n in lengths]
    with make(sequences=2) as engine:
        assert len(run(engine, prompts[:2], [5, 5])) == 2
        together = run(engine, prompts, [5] * 6)
    with make(strict=True) as engine:
        alone = run(engine, prompts, [5] * 6)
    assert all(same(alone[i], together[i], NOISE[name]) for i in alone)


def test_a_closed_engine_says_so(make: Make) -> None:
    engine = make()
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        list(engine.run([request(0, Prompt((1, 2, 3), 0), 1)]))


class Script:
    """A source that says "nothing just now" between its requests, by what has come out so far."""

    def __init__(self, requests: Sequence[Request[CountingGuide]]) -> None:
        self.requests = list(requests)
        self.released = 0
        self.taken: list[int] = []
        self.asked_in_vain = 0

    def take(self) -> Request[CountingGuide] | None:
        if len(self.taken) == self.released:
            self.asked_in_vain += 1
            return None
        self.taken.append(len(self.taken))
        return self.requests[self.taken[-1]]

    @property
    def ended(self) -> bool:
        return len(self.taken) == len(self.requests)


def test_a_run_goes_on_while_its_source_has_nothing(name: str, make: Make) -> None:
    """Requests come only as others finish: an engine that waited for more would wait for ever."""
    prompts = random_prompts(6, seed=21)
    source = Script([request(i, p, 8) for i, p in enumerate(prompts)])
    source.released = 2
    with make(sequences=4) as engine:
        done = []
        for completion in engine.run(source):
            done.append(completion)
            source.released = min(len(prompts), source.released + 2)
        alone = run(engine, prompts, [8] * len(prompts))
    assert sorted(c.key for c in done) == list(range(6)) and not any(c.failure for c in done)
    assert all(same(alone[c.key], c.guide, NOISE[name]) for c in done)


def test_a_source_that_has_nothing_yet_is_asked_again(make: Make) -> None:
    source = Script([request(0, random_prompts(1, seed=22)[0], 3)])
    timer = threading.Timer(0.2, lambda: setattr(source, "released", 1))
    with make() as engine:
        timer.start()
        (done,) = engine.run(source)
    assert done.failure is None and len(done.guide.tokens) == 3
    assert source.asked_in_vain > 0


def test_a_source_that_ends_without_a_request_ends_the_run(make: Make) -> None:
    with make() as engine:
        assert list(engine.run(Script([]))) == []


def test_what_a_source_gives_that_is_too_long_fails_alone(make: Make) -> None:
    prompts = [Prompt((1,) * 5000, 0), Prompt((1,) * 30, 0), Prompt((1,) * 5000, 0)]
    source = Script([request(i, p, 4) for i, p in enumerate(prompts)])
    source.released = 3
    with make() as engine:
        done = {c.key: c for c in engine.run(source)}
    assert [bool(done[i].failure) for i in range(3)] == [True, False, True]


def test_closing_a_run_leaves_its_source_to_its_owner(make: Make) -> None:
    source = Script([request(i, p, 20) for i, p in enumerate(random_prompts(8, seed=24))])
    source.released = 8
    with make(sequences=2) as engine:
        completions = engine.run(source)
        next(completions)
        completions.close()
        taken = len(source.taken)
        assert len(run(engine, random_prompts(3, seed=25), [4] * 3)) == 3
        assert len(source.taken) == taken


def test_the_plan_given_is_the_plan_run(name: str, make: Make) -> None:
    with make(sequences=3) as engine:
        assert engine.plan.engine == name
        if name != "fake":
            assert engine.plan.sequences == 3 and engine.plan.context_length == CONTEXT
            assert engine.context_length == CONTEXT


@pytest.mark.parametrize("thinking", ["full", 5, "none"])
def test_every_mode_of_thinking_gives_every_document_a_score(
    name: str, make: Make, thinking: object
) -> None:
    """Random weights never end a reasoning: what is asked for from outside is answered."""
    if name == "remote":
        pytest.skip("of a server only the most probable tokens are known, here no number")
    with make(sequences=4) as engine:
        engine.max_new_tokens = 40
        reranker = Reranker(engine, thinking=thinking)  # type: ignore[arg-type]
        results = reranker.rerank("query", [f"document {i}" for i in range(9)])
    assert len(results) == 9
    assert all(r["failure"] is None and 0 <= r["score"] <= 10 for r in results), results
    assert all(r["forced"] for r in results)
    assert all(r["engine"] == engine.description for r in results)


@pytest.mark.reference
def test_transformers_in_float32_writes_what_llama_cpp_writes(
    checkpoint: Path, gguf_file: Path
) -> None:
    prompts = random_prompts(30, seed=11)
    with load(gguf_file, "llama.cpp", {"threads": 1, "kv_type": "f32"}) as engine:
        one = run(engine, prompts, [20] * 30)
    with load(checkpoint, "transformers", {"threads": 1, "dtype": "float32"}) as engine:
        other = run(engine, prompts, [20] * 30)
    assert all(same(one[i], other[i], NOISE["llama.cpp"]) for i in one)


@pytest.mark.reference
def test_rows_that_outgrow_the_memory_wait_and_lose_no_token(checkpoint: Path) -> None:
    """Keys and values of two long documents are all that is allowed; eight come together."""
    prompts = random_prompts(8, seed=12)
    options = {"threads": 1, "dtype": "float32"}
    cell = 2 * 2 * 2 * 64 * 4  # keys and values, layers, heads, head size, bytes
    with load(checkpoint, "transformers", options) as engine:
        free = run(engine, prompts, [700] * 8)
    scarce_memory = options | {"memory": 1024 * 2 * cell}
    with load(checkpoint, "transformers", scarce_memory) as engine:
        scarce = run(engine, prompts, [700] * 8)
    assert all(same(free[i], scarce[i], NOISE["transformers"]) for i in free)


@pytest.mark.reference
def test_a_full_gpu_halves_the_documents_and_fails_only_what_fits_alone_neither(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    engine = load(checkpoint, "transformers", {"threads": 1, "dtype": "float32"})
    compute = engine._model.model.forward  # type: ignore[attr-defined]

    def full(*, position_ids, **rest):  # type: ignore[no-untyped-def]
        if position_ids.shape[0] > 3 or position_ids.max() >= 250:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(position_ids=position_ids, **rest)

    monkeypatch.setattr(engine._model.model, "forward", full)  # type: ignore[attr-defined]
    prompts = [*random_prompts(9, seed=13), Prompt((5,) * 300, 0)]
    requests = [request(i, p, 6) for i, p in enumerate(prompts)]
    done = {c.key: c for c in engine.run(requests)}
    assert sorted(done) == list(range(10))
    assert [key for key, c in done.items() if c.failure] == [9]
    assert "memory is too small" in (done[9].failure or "")


@pytest.mark.reference
def test_mistakes_about_checkpoints_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    import json
    import shutil

    def broken(change: Callable[[dict[str, object]], object]) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(checkpoint, folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    cut = broken(lambda c: None)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    for folder, engine, says in (
        (broken(lambda c: c.update(architectures=["BertModel"])), "transformers", "architecture"),
        (broken(lambda c: c.update(num_hidden_layers=5)), "transformers", "lacks the tensor"),
        (broken(lambda c: c.update(use_sliding_window=True)), "transformers", "sliding"),
        (
            broken(lambda c: c.update(quantization_config={"quant_method": "gptq", "bits": 4})),
            "transformers",
            "in GPTQ",
        ),
        (cut, "transformers", "download it again"),
        (tmp_path / "nothing", "transformers", "no file or folder"),
    ):
        with pytest.raises(ErankLiteError, match=says) as raised:
            Reranker(folder, engine=engine)
        assert "\n" not in raised.value.message
    for options in ({"dtype": "int3"}, {"device": "tpu:7"}, {"sequences": 0}, {"kv_type": "f16"}):
        with pytest.raises(InputError):
            Reranker(checkpoint, engine="transformers", **options)
