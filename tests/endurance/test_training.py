"""The recipe of the model in the package, in its short form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from erank_lite import Reranker
from erank_lite.machine.hardware import probe

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not {"avx512_bf16", "amx_bf16", "bf16"} & set(probe().instructions):
        pytest.skip("it takes an hour on a processor that does not compute in bfloat16")
    apt = shutil.which("apt-get")
    if not apt or subprocess.run([apt, "download", "--print-uris", "wordnet-base"],
                                 capture_output=True).returncode:  # fmt: skip
        pytest.skip("its texts are those of Debian's wordnet-base, which apt-get cannot find")
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def log(work: Path) -> dict[str, list[dict[str, float]]]:
    """The numbers that each phase left, in their order."""
    done = subprocess.run(
        [sys.executable, "-m", "training", str(work), "--short"],
        capture_output=True, text=True, timeout=3000, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    numbers: dict[str, list[dict[str, float]]] = defaultdict(list)
    for phase in ("match", "rank-2", "settle"):
        lines = (work / f"{phase}.jsonl").read_text("utf-8").splitlines()
        numbers[phase] = [json.loads(line) for line in lines]
    return numbers


def test_the_loss_falls(log: dict[str, list[dict[str, float]]]) -> None:
    for phase, name in (("match", "score"), ("match", "order"), ("rank-2", "form")):
        values = [line[name] for line in log[phase] if name in line]
        assert values[-1] < 0.95 * values[0], (phase, name, values)


def test_grades_are_learnt(log: dict[str, list[dict[str, float]]]) -> None:
    assert log["match"][-1]["correlation"] > 0.4, log["match"]


def test_the_form_is_learnt(log: dict[str, list[dict[str, float]]], work: Path) -> None:
    texts = [json.loads(line)["text"] for line in (work / "documents.jsonl").open()][:24]
    query = json.loads((work / "queries.jsonl").open().readline())["text"]
    with Reranker(f"{work / 'erank-tiny'}:BF16") as reranker:
        results = reranker.rerank(query, texts)
    formed = [
        r["failure"] is None
        and not r["forced"]
        and r["completion"].startswith("<think>\n\n</think>")
        for r in results
    ]
    assert sum(map(bool, formed)) >= 0.9 * len(results), [r["completion"] for r in results][:5]
