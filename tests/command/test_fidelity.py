"""How near two models are: by hand, on models made on the spot, and through the command."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import is_a_clear_line, run
from support.judged import beir

pytest.importorskip("ir_measures", reason="pip install 'erank-lite[eval]'")
pytest.importorskip("scipy", reason="pip install 'erank-lite[eval]'")

from erank_lite.benchmarks.fidelity.agreement import agreement, interval, rank_biased_overlap
from erank_lite.benchmarks.fidelity.teacher_forcing import divergence, reasoning

Rows = list[dict[str, Any]]


def rows(*scores: tuple[str, int | None, float], **more: Any) -> Rows:
    """Documents with their scores and probabilities, best first."""
    usual = {"forced": False, "failure": None, "tokens": 10} | more
    made = [
        {"id": name, "score": s, "rank_score": None if s is None else s * p} | usual
        for name, s, p in scores
    ]
    return sorted(made, key=lambda r: (r["rank_score"] is None, -(r["rank_score"] or 0)))


def test_the_same_results_agree_entirely() -> None:
    these = {"q": rows(("a", 7, 0.5), ("b", 3, 0.9), ("c", 0, 0.9))}
    found = agreement(these, these)
    assert found["same"] == found["tau"] == found["rbo"] == found["top_10"] == 1
    assert found["difference"] == found["difference_95"] == 0


def test_agreement_by_hand() -> None:
    reference = {
        "q": rows(("a", 8, 1.0), ("b", 4, 1.0), ("c", 2, 0.5)),
        "r": rows(("a", 0, 1.0), ("b", 0, 1.0)),  # no order: tau is not defined
    }
    these = {
        "q": rows(("a", 4, 1.0), ("b", 8, 0.75), ("c", 2, 0.5)),
        "r": rows(("a", 0, 1.0), ("b", None, 0.0), forced=True, failure="no answer", tokens=20),
    }
    found = agreement(these, reference)
    assert found["same"] == pytest.approx(2 / 5)
    assert found["difference"] == pytest.approx((4 + 2 + 0 + 0 + 0) / 5)
    assert found["difference_95"] == pytest.approx(np.percentile([4, 2, 0, 0, 0], 95))
    assert found["tau"] == pytest.approx(1 / 3)  # one pair of three the other way
    assert found["forced"] == found["failed"] == pytest.approx(2 / 5)
    assert found["tokens"] == pytest.approx(14)


def test_the_first_ten_shared() -> None:
    names = [f"d{i}" for i in range(12)]
    reference = {"q": rows(*((n, 9, 1 - i / 100) for i, n in enumerate(names)))}
    these = {"q": rows(*((n, 9, 0.5 + i / 100) for i, n in enumerate(names)))}
    assert agreement(these, reference)["top_10"] == pytest.approx(0.8)


def test_rank_biased_overlap_is_its_definition() -> None:
    """Against the sum as it is written in the paper, on all orders of five."""
    names = "abcde"
    for other in itertools.permutations(names):
        total = sum(len({*names[:d]} & {*other[:d]}) / d * 0.9**d for d in range(1, 6))
        expected = 0.9**5 + (1 - 0.9) / 0.9 * total
        assert rank_biased_overlap(names, other) == pytest.approx(expected)
    assert rank_biased_overlap([], []) == 1.0


def test_the_bootstrap_is_paired_and_repeatable() -> None:
    draw = random.Random(1)
    base = {str(i): draw.random() for i in range(50)}
    assert interval(base, base) == (0.0, 0.0)
    shifted = {q: v + 0.1 for q, v in base.items()}
    assert interval(shifted, base) == pytest.approx((0.1, 0.1))
    noisy = {q: v + draw.gauss(0, 0.1) for q, v in base.items()}
    low, high = interval(noisy, base)
    assert (low, high) == interval(noisy, base) and low < high
    change = np.array([noisy[q] - base[q] for q in base])
    error = change.std(ddof=1) / math.sqrt(len(base))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>so</think><answer>7</answer>", "<think>so</think><answer>"),
        ("<think>so</think>\n<answer> 10 </answer>", "<think>so</think>\n<answer> "),
        ("<think><answer>3</answer></think><answer>4", "<think><answer>3</answer></think><answer>"),
        ("so</think><answer>1</answer><answer>2</answer>", "so</think><answer>"),
        ("<think>never", None),
    ],
)
def test_the_reasoning_ends_where_the_number_begins(completion: str, expected: str | None) -> None:
    assert reasoning(completion) == expected


def test_divergence_by_hand() -> None:
    p, q = [0.5, 0.25] + [0.0] * 9, [0.25, 0.5] + [0.0] * 9
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert divergence(q, p) == pytest.approx(expected, abs=1e-6)
    assert divergence(p, p) == pytest.approx(0, abs=1e-9)
    assert divergence([1.0] + [0.0] * 10, [0.0] * 10 + [1.0]) > 10  # finite, and large


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return beir(tmp_path / "animals")


def test_a_model_against_itself_and_its_quantization(animals: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        "compare", "erank-tiny:BF16", "erank-tiny:BF16,sequences=2", "erank-tiny:Q4_K_M",
        "--collection", animals, "--out", out,
    ]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("records/fidelity-*.json")
    found = json.loads(file.read_text())
    floor, again, small = found["runs"]
    assert floor["floor"] and not again["floor"] and "5 documents together" in floor["name"]
    assert again["kl"] < 0.01 and again["same_answer"] == 1 and again["difference"] < 0.3
    assert small["kl"] > again["kl"] and small["difference"] > again["difference"]
    assert small["size"] < again["size"]
    assert found["reference"]["nDCG@10"] + small["change"] == pytest.approx(small["nDCG@10"])
    assert len(small["scatter"]) == found["documents"]
    text = done.stdout.decode()
    assert "(floor)" in text and "erank-tiny:Q4_K_M" in text
    # The reference is computed once: nothing at all is, the second time.
    kept = sorted(out.glob("kept/*/documents.jsonl"))
    before = [f.stat().st_mtime_ns for f in kept]
    assert run(*arguments).returncode == 0
    assert [f.stat().st_mtime_ns for f in sorted(out.glob("kept/*/documents.jsonl"))] == before


def test_the_teacher_forced_answer_is_the_one_that_was_read(animals: Path, tmp_path: Path) -> None:
    """Behind its own reasoning a model gives the score that it gave, with that probability."""
    out = tmp_path / "out"
    base = "erank-tiny:BF16"
    assert (
        run("compare", base, base, "--no-floor", "--collection", animals, "--out", out).returncode
        == 0
    )
    (forced,) = out.glob("kept/teacher-forcing-*/documents.jsonl")
    (read,) = set(out.glob("kept/*/documents.jsonl")) - {forced}
    answers = {(r["query"], r["id"]): r["distribution"] for r in map(json.loads, forced.open())}
    for row in map(json.loads, read.open()):
        found = answers[row["query"], row["id"]]
        assert sum(found) <= 1 + 1e-9
        assert found[row["score"]] == pytest.approx(row["probability"], abs=0.03)
        expected = sum(s * p for s, p in enumerate(found)) / sum(found)
        if row["expected_score"] is not None:
            assert expected == pytest.approx(row["expected_score"], abs=0.2)


def test_mistakes(animals: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("compare", "nowhere.gguf", "erank-tiny", "--collection", animals, "--out", out)
    assert "nowhere.gguf" in is_a_clear_line(done)
    done = run("compare", "erank-tiny", "--collection", animals)
    assert done.returncode == 2
