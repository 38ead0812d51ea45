"""Work in a child process: what comes back, and what ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from erank_lite.errors import InputError, ModelError
from erank_lite.util import worker

Child = Callable[[str], str]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Makes a module whose work is the given body, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body: str) -> str:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text = "import os, signal, subprocess, sys, time\nfrom erank_lite.errors import *\n"
        text += "from erank_lite.util import worker\n"
        text += f"def work(send, **a):\n{lines}\nworker.serve(work)\n"
        (tmp_path / "child_of_test.py").write_text(text)
        return "child_of_test"

    return write


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_messages_come_as_they_are_sent_and_the_result_last(child: Child) -> None:
    name = child(
        "for i in range(3): send({'i': i, **a})\nprint('not a message')\nreturn a['x'] * 2"
    )
    messages = worker.run(name, {"x": "ü" * 200_000})  # more than a pipe holds
    found: list[Any] = []
    with pytest.raises(StopIteration) as end:
        while True:
            found.append(next(messages)["i"])
    assert found == [0, 1, 2] and end.value.value == "ü" * 400_000
    assert worker.call(name, {"x": 4}) == 8


def test_the_childs_error_is_the_callers(child: Child) -> None:
    with pytest.raises(InputError) as caught:
        worker.call(child("raise InputError('no', 'yes')"), {})
    assert (caught.value.message, caught.value.hint) == ("no", "yes")
    with pytest.raises(ModelError, match="not that") as other:
        worker.call(child("raise ModelError('not that')"), {})
    assert not isinstance(other.value, worker.WorkerError)


def test_a_crash_is_an_error_that_says_how(child: Child) -> None:
    with pytest.raises(worker.WorkerError, match=r"llama\.cpp ended .*SIGSEGV.*: last words") as e:
        worker.call(
            child("os.write(2, b'last words\\n'); os.kill(os.getpid(), signal.SIGSEGV)"), {}
        )
    assert (e.value.signal, e.value.reason) == ("SIGSEGV", "last words")
    with pytest.raises(worker.WorkerError, match=r"it ended .*exit code 3.*no reason") as e:
        worker.call(child("os._exit(3)"), {}, "it")
    assert (e.value.signal, e.value.reason) == (None, "exit code 3")
    with pytest.raises(worker.WorkerError, match=r"exit code 1.*KeyError: 'x'"):
        worker.call(child("a['x']"), {})


def test_what_takes_too_long_is_stopped(child: Child) -> None:
    with pytest.raises(worker.WorkerError, match="it was stopped: it did not finish within 1 sec"):
        worker.call(child("time.sleep(100)"), {}, "it", timeout=1)


def test_the_childs_environment(child: Child) -> None:
    name = child("return os.environ.get('OF_THE_CHILD')")
    assert worker.call(name, {}, environment={"OF_THE_CHILD": "1"}) == "1"
    assert worker.call(name, {}) is None and "OF_THE_CHILD" not in os.environ


BOTH = """
other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])
send({'pids': [os.getpid(), other.pid]})
time.sleep(100)
"""


def test_a_child_that_is_stopped_takes_its_own_along(child: Child) -> None:
    messages = worker.run(child(BOTH), {})
    pids = next(messages)["pids"]
    messages.close()
    assert all(map(ended, pids))


def test_a_child_ends_with_its_parent(child: Child, tmp_path: Path) -> None:
    script = "import sys; from erank_lite.util import worker; m = worker.run(sys.argv[1], {})\n"
    script += "print(next(m)['pids'], flush=True); next(m)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, child(BOTH)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(i) for i in parent.stdout.readline().strip("[]\n").split(",")]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert all(map(ended, pids))
