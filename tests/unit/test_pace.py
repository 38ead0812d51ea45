"""How fast a model runs here: learnt from its steps, kept, and foretold from."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from erank_lite.machine.answers import AnswerLengths
from erank_lite.machine.pace import Meter, Work, find_pace, foretell
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelShape

SHAPE = ModelShape.published("ERank-4B", "Q4_K_M")
PLAN = Plan(engine="llama.cpp", device="cpu", threads=2, sequences=16, gpu_layers=0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))
    return tmp_path


def run(meter: Meter, documents: int, prompt: int, answer: int, together: int = 16) -> float:
    """Do a made-up job on a machine with costs of its own; return the seconds that it took."""
    draw = random.Random(0)
    waiting, took = documents, 0.0
    rows: list[list[int]] = []  # of each document under way: tokens so far, tokens at its end
    while waiting or rows:
        seconds = 0.12  # a pass over the weights
        if waiting and len(rows) < together:
            waiting -= 1
            own = draw.randint(prompt // 2, prompt * 3 // 2)
            meter.read(0, own)
            seconds += own * 0.04 + 1e-5 * own * own / 2
            rows.append([own, own + draw.randint(answer // 2, answer * 3 // 2)])
        for row in rows:
            meter.wrote(row[0])
            seconds += 0.03 + 1e-5 * row[0]
            row[0] += 1
        rows = [row for row in rows if row[0] < row[1]]
        seconds *= draw.uniform(0.98, 1.02)
        meter.step_took(seconds)
        took += seconds
    return took


@pytest.mark.parametrize(
    ("documents", "prompt", "answer"), [(100, 300, 400), (20, 2000, 60), (400, 120, 20)]
)
def test_a_job_is_foretold_from_one_of_another_shape(
    documents: int, prompt: int, answer: int
) -> None:
    meter = Meter(SHAPE, PLAN)
    assert meter.pace.assumed
    run(meter, 40, 250, 200)
    meter.keep()
    pace = find_pace(SHAPE, PLAN)
    assert not pace.assumed
    took = run(Meter(SHAPE, PLAN), documents, prompt, answer)
    foretold = pace.forecast(Work(documents, prompt, answer), 16).seconds
    assert foretold == pytest.approx(took, rel=0.25)


def test_of_a_model_that_never_ran_it_is_assumed_from_the_nearest() -> None:
    larger = ModelShape.published("ERank-14B", "Q4_K_M")
    nothing_known = foretell(larger, PLAN)
    meter = Meter(SHAPE, PLAN)
    run(meter, 40, 250, 200)
    meter.keep()
    # Its pace is known, but not how long its answers are.
    assert not find_pace(SHAPE, PLAN).assumed and foretell(SHAPE, PLAN).assumed
    for _ in range(8):
        meter.answers.add(4096, 400)
    meter.keep()
    small, large = foretell(SHAPE, PLAN), foretell(larger, PLAN)
    assert nothing_known.assumed and large.assumed and not small.assumed
    assert large.seconds == pytest.approx(small.seconds * 3.6, rel=0.2)  # as many more weights
    other = replace(PLAN, threads=4)
    assert foretell(SHAPE, other).assumed


def test_answers_are_as_long_as_the_models_own() -> None:
    meter = Meter(SHAPE, PLAN)
    run(meter, 40, 250, 200)
    for _ in range(20):
        meter.answers.add(4120, 200)
    meter.keep()
    assert find_pace(SHAPE, PLAN).answers.mean(4096) == 200
    twice = foretell(SHAPE, PLAN, thinking=1000)  # of this mode nothing is known yet: 400
    assert 1.2 < twice.seconds / foretell(SHAPE, PLAN).seconds < 2


@pytest.mark.parametrize(("count", "mean"), [(0, 400), (1, 200), (3, 141.4), (8, 100)])
def test_a_few_answers_count_a_little(count: int, mean: float) -> None:
    answers = AnswerLengths({4096: [100] * count})
    assert answers.mean(4096) == pytest.approx(mean, rel=1e-3)


def test_what_is_done_of_a_document_grows_to_almost_all_of_it() -> None:
    meter = Meter(SHAPE, PLAN)
    shares = [meter.share(300, past, 4096) for past in (0, 150, 300, 500, 690, 2000)]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 0.95
    assert shares[1] == pytest.approx(shares[2] / 2, rel=0.05)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 0}', '{"version": 1, "entries": [7]}'])
def test_a_file_that_cannot_be_read_is_as_none(cache: Path, text: str) -> None:
    (cache / "pace.json").write_text(text)
    assert find_pace(SHAPE, PLAN).assumed
    meter = Meter(SHAPE, PLAN)
    run(meter, 40, 250, 200)
    meter.keep()
    assert not find_pace(SHAPE, PLAN).assumed


def test_where_nothing_can_be_kept_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", "/dev/null/cache")
    meter = Meter(SHAPE, PLAN)
    run(meter, 40, 250, 200)
    meter.keep()
    assert find_pace(SHAPE, PLAN).assumed


def test_a_model_of_quite_another_size_says_little() -> None:
    usual = foretell(SHAPE, PLAN).seconds
    few = SHAPE.layer_sizes[:1]
    tiny = replace(SHAPE, layer_sizes=few, size=SHAPE.size // 100)
    meter = Meter(tiny, PLAN)
    run(meter, 40, 250, 200)  # as slowly as the large one: ten times as slowly as it should be
    meter.keep()
    assert not find_pace(tiny, PLAN).assumed
    assert usual / 2 < foretell(SHAPE, PLAN).seconds < usual * 2
