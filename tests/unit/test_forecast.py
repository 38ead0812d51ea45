"""What is said of a job before it begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.engines import engine_writing

from erank_lite.engines.base import Engine
from erank_lite.forecast import announce
from erank_lite.machine.answers import AnswerLengths
from erank_lite.machine.pace import Pace
from erank_lite.machine.shapes import ModelShape
from erank_lite.reranker import Reranker
from erank_lite.util.reporter import Reporter

SHAPE = ModelShape.published("ERank-4B", "Q8_0")
DOCS = [f"document {i}" for i in range(100)]


class Messages(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def said(monkeypatch: pytest.MonkeyPatch, pace: Pace | None, thinking: str, docs: int) -> list[str]:
    monkeypatch.setattr(Engine, "pace", property(lambda self: pace))
    engine = engine_writing("<answer>7</answer>", context_length=8192)
    engine.plan = replace(engine.plan, type="Q8_0", sequences=4)
    reporter = Messages()
    announce(Reranker(engine, thinking=thinking), [("query", DOCS[:docs])], reporter)
    return reporter.lines


def test_a_long_job_is_told_with_what_makes_it_short(monkeypatch: pytest.MonkeyPatch) -> None:
    known = AnswerLengths({limit: [400] * 8 for limit in (4096, 2048, 1024)})
    pace = Pace((1e-10, 1e-13, 1e-11, 1e-14), SHAPE, known, assumed=False)
    first, second = said(monkeypatch, pace, "full", 100)
    assert first.startswith("100 documents: about ") and "assumed" not in first
    assert second.startswith("to take less time: --thinking 256 (about ")
    assert "--thinking none (about " in second
    assert second.endswith("a smaller type, such as :Q4_K_M, a smaller --depth")
    _, without = said(monkeypatch, pace, "none", 100)
    assert "--thinking" not in without


def test_what_is_assumed_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, Pace((1e-10, 1e-13, 1e-11, 1e-14), SHAPE), "full", 100)
    assert lines[0].endswith("(assumed: not yet measured here)")


def test_of_a_short_job_and_of_a_servers_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not said(monkeypatch, Pace((1e-15,) * 4, SHAPE), "full", 100)
    assert not said(monkeypatch, None, "full", 100)
