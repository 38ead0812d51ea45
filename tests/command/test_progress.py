"""What a user sees of long work: bars on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from erank_lite.cli import progress
from erank_lite.cli.progress import TerminalReporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_long_work_gets_a_line_a_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TerminalReporter() as reporter:
        for second in range(0, 301, 10):
            clock[0] = second
            # 40 of them were done by an earlier run, which says nothing of the pace.
            reporter.progress("a model, animals", 40 + second // 10, 100, "documents")
            reporter.progress("writing", second * 10_000_000, 6_000_000_000)
    assert capsys.readouterr().err.splitlines()[:4] == [
        "a model, animals: 46 of 100 documents, about 9 min left",
        "writing: 600 MB of 6.0 GB, about 9 min left",
        "a model, animals: 52 of 100 documents, about 8 min left",
        "writing: 1.2 GB of 6.0 GB, about 8 min left",
    ]


def test_short_work_and_what_is_done_get_none(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TerminalReporter() as reporter:
        reporter.progress("documents", 3, 3, "documents")
        reporter.progress("writing", 0, 10)
        clock[0] = 59
        reporter.progress("writing", 9, 10)
        clock[0] = 3600
        reporter.progress("writing", 10, 10)
        reporter.message("a line\x1b[2J")
    assert capsys.readouterr().err == "a line [2J\n"


def test_a_terminal_gets_bars_that_vanish(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, any stream is then a terminal
    with TerminalReporter() as reporter:
        engine = SimpleNamespace(tokens_generated=0, under_way=0.0)
        reporter.watch(engine)
        reporter.progress("documents", 0, 30, "documents")
        assert reporter._bars is not None
        clock[0], engine.under_way, engine.tokens_generated = 4.0, 6.0, 200
        reporter._bars.refresh()  # what is under way counts before anything is finished
        assert "0/30  50 tokens/s  16 s left" in screen.getvalue()
        clock[0], engine.under_way, engine.tokens_generated = 12.0, 2.0, 600
        reporter.progress("documents", 10, 30, "documents")
        reporter._bars.refresh()
        assert "10/30  50 tokens/s  18 s left" in screen.getvalue()
        reporter.message("kept")
        reporter.progress("checking", 0, 1)
        reporter.progress("checking", 1, 1)
        reporter.progress("documents", 30, 30, "documents")
        assert reporter._bars is None
    end = screen.getvalue()
    assert "kept" in end and "checking" in end
    assert "\x1b[2K" in end[end.rindex("━") :]  # the last bar was erased
