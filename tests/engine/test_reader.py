"""Prompts read in a context of their own: the same numbers, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.recording import random_prompts, request, run, same

from erank_lite.engines.base import Engine
from erank_lite.engines.llama_cpp import plan as llama_cpp_plan
from erank_lite.engines.llama_cpp.attention import Attention
from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
from erank_lite.engines.llama_cpp.engine import LlamaCppEngine
from erank_lite.load import load
from erank_lite.testing.guides import CountingGuide
from erank_lite.types import Prompt

IDS = [*range(40, 140)]


@contextmanager
def contexts(path: Path, *kinds: tuple[int, bool], kv_type: str = "f16") -> Iterator[list[Context]]:
    """Yield contexts of so many sequences, with and without flash attention."""
    with ExitStack() as stack:
        model = Model(path, 0, None, None, repack=True)
        stack.callback(model.close)
        made = []
        for sequences, flash in kinds:
            context = Context(model, sequences, 256, 512, 512, 1, kv_type, flash)
            stack.callback(context.close)
            made.append(context)
        yield made


def read(context: Context, sequence: int, start: int = 0) -> np.ndarray:
    """Read IDS from `start` on; return the last logits: [vocabulary]."""
    count = len(IDS) - start
    last = [0] * (count - 1) + [1]
    rows = Batch(IDS[start:], list(range(start, len(IDS))), [sequence] * count, last)
    assert context.decode(rows) == 0
    return context.logits(1)[0].copy()


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("flash", [False, True])
def test_a_state_fits_contexts_of_every_kind(tiny_gguf: Path, flash: bool, kv_type: str) -> None:
    kinds = [(1, flash), (5, flash), (3, not flash), (1, not flash)]
    with contexts(tiny_gguf, *kinds, kv_type=kv_type) as made:
        first = made[0]
        expected = read(first, 0)
        state = first.save(0)
        saved = state.data[: state.size].copy()
        for context in made[1:]:
            last = context.sequences - 1
            assert context.restore(last, state)
            context.remove(last, len(IDS) - 1)
            np.testing.assert_allclose(read(context, last, len(IDS) - 1), expected, atol=0.05)
            # And back again: not a bit is lost.
            context.restore(last, state)
            assert first.restore(0, context.save(last))
            again = first.save(0)
            assert np.array_equal(again.data[: again.size], saved)


def test_values_of_a_type_that_cannot_be_turned_are_not_taken(tiny_gguf: Path) -> None:
    with contexts(tiny_gguf, (1, True), kv_type="q8_0") as (quantized,):
        read(quantized, 0)
        state = quantized.save(0)
        with contexts(tiny_gguf, (2, False)) as (plain,):
            assert not plain.restore(0, state)


def load_reading(
    path: Path, monkeypatch: pytest.MonkeyPatch, tiles: bool, **options: object
) -> Engine:
    times = Attention(2.0, 1.0) if tiles else Attention(1.0, 2.0)
    monkeypatch.setattr(llama_cpp_plan, "measured", lambda *_: times)
    engine = load(path, "llama.cpp", {"threads": 1, "context_length": 2048} | options)
    assert engine.plan.flash_reading is (tiles and not options.get("strict", False))
    return engine


@pytest.mark.parametrize("micro_batch", [64, 512])
def test_prompts_of_every_length_are_the_same(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    lengths = [2, 63, 64, 65, 66, 127, 128, 129, 130, 512, 513, 514, 640, 1025, 1500]
    beginning = tuple(range(30, 70))
    prompts = [
        Prompt((*beginning, *((7 * i + n) % 200 for i in range(length))), len(beginning))
        for n, length in enumerate(lengths)
    ]
    decoded: list[int] = []
    decode = Context.decode

    def counted(self: Context, rows: Batch) -> int:
        if self.sequences == 1:
            decoded.append(len(rows.tokens))
        return decode(self, rows)

    with load_reading(tiny_gguf, monkeypatch, False, micro_batch=micro_batch) as engine:
        plain = run(engine, prompts, [12] * len(prompts))
    monkeypatch.setattr(Context, "decode", counted)
    with load_reading(tiny_gguf, monkeypatch, True, micro_batch=micro_batch) as engine:
        tiles = run(engine, prompts, [12] * len(prompts))
    assert min(decoded) >= 64  # with fewer rows, llama.cpp sums in 16 bits
    assert max(decoded) <= max(micro_batch, 128)
    assert all(same(plain[i], tiles[i], 0.02) for i in plain)


def test_a_document_too_long_for_its_share_is_read_beside_the_others(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [Prompt(tuple((i * 7 + n) % 200 for i in range(1900)), 0) for n in range(2)]
    cells: list[int] = []
    decode = Context.decode

    def seen(self: Context, rows: Batch) -> int:
        cells.append(self.cells if self._by_dimensions is False else 0)
        return decode(self, rows)

    monkeypatch.setattr(Context, "decode", seen)
    for memory, longest in ((1 << 30, 2048), (1, 0)):
        cells.clear()
        with load_reading(tiny_gguf, monkeypatch, True, memory=memory) as engine:
            run(engine, prompts, [2] * 2)
        assert max(cells) == longest


def test_strict_reads_in_one_way(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = random_prompts(6, seed=3)
    with load_reading(tiny_gguf, monkeypatch, False, strict=True) as engine:
        plain = run(engine, prompts, [8] * 6)
    with load_reading(tiny_gguf, monkeypatch, True, strict=True) as engine:
        again = run(engine, prompts, [8] * 6)
    assert all(same(plain[i], again[i], 0) for i in plain)


def test_what_shares_its_beginning_reads_it_once(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning = tuple(range(40, 240))
    prompts = [Prompt((*beginning, *range(n, n + 100)), 200) for n in range(4)]
    rows: list[int] = []
    decode = Context.decode

    def counted(self: Context, batch: Batch) -> int:
        rows.append(len(batch.tokens))
        return decode(self, batch)

    monkeypatch.setattr(Context, "decode", counted)
    with load_reading(tiny_gguf, monkeypatch, True, sequences=2) as engine:
        run(engine, prompts, [1] * 4)
    assert sum(rows) == 200 + 4 * 100


def test_a_call_that_is_closed_lets_go_of_what_is_read(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [Prompt(tuple((i * 7 + n) % 200 for i in range(1500)), 0) for n in range(3)]
    short = random_prompts(4, seed=9)
    with load_reading(tiny_gguf, monkeypatch, True, micro_batch=64) as engine:
        assert isinstance(engine, LlamaCppEngine)
        expected = run(engine, short, [5] * 4)
        running = engine.run(
            [request(0, short[0], 1), *(request(1 + i, p, 5) for i, p in enumerate(long))]
        )
        next(running)
        running.close()
        again = run(engine, short, [5] * 4)
        assert not list(engine._under_way())
    assert all(same(expected[i], again[i], 0.02) for i in expected)


def test_a_document_that_cannot_be_read_fails_alone(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Context.decode
    broken = 133

    def failing(self: Context, rows: Batch) -> int:
        return -3 if broken in rows.tokens and len(rows.tokens) > 60 else decode(self, rows)

    prompts = [Prompt(tuple([broken if n == 1 else 7] * 100), 0) for n in range(3)]
    monkeypatch.setattr(Context, "decode", failing)
    with load_reading(tiny_gguf, monkeypatch, True) as engine:
        done = {c.key: c for c in engine.run([request(i, p, 3) for i, p in enumerate(prompts)])}
    assert [bool(done[i].failure) for i in range(3)] == [False, True, False]
    assert isinstance(done[0].guide, CountingGuide) and len(done[0].guide.tokens) == 3
