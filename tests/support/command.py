"""The command as users run it: in a process of its own or, where that is enough, in this one."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from erank_lite.cli import main

COMMAND = [str(Path(sys.executable).with_name("erank-lite"))]


def run(
    *args: str | Path, stdin: bytes = b"", time_limit: float = 100, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own; `more` goes to `subprocess.run`."""
    return subprocess.run(
        [*COMMAND, *map(str, args)], input=stdin, capture_output=True, timeout=time_limit, **more
    )


def skip_where_ignored(how: signal.Signals) -> None:
    """Skip a test that sends a signal which programs started here do not get."""
    if signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip(f"{how.name} is ignored here, as under nohup and in the background")


def run_in_process(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in this process, which spares the start: 0.8 s.

    For results and messages. Signals, terminals, closed or full streams, the environment, warnings
    (pytest takes the log) and what is imported when need `run`.
    """
    words = ["erank-lite", *map(str, args)]
    streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (stdin, b"", b"")]
    given, out, err = streams
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.multiple(sys, argv=words, stdin=given, stdout=out, stderr=err),
            mock.patch("sys.excepthook", sys.excepthook),
        ):
            main()
        code: Any = 0
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    for stream in (out, err):
        stream.flush()
    written = [stream.buffer.getvalue() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code or 0, *written)


def said(stderr: bytes) -> list[str]:
    """Return the lines of standard error, without the note on CPUs with a broken AMX."""
    return [line for line in stderr.decode().splitlines() if "Intel AMX" not in line]


def rows(stdout: bytes) -> list[dict[str, Any]]:
    """Return what JSON lines hold."""
    return [json.loads(line.decode("utf-8")) for line in stdout.split(b"\n") if line]


def json_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write `records` to `path`, one a line, and return it."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return path


def is_a_clear_line(done: subprocess.CompletedProcess[bytes], code: int = 1) -> str:
    """Assert that the command ended with `code` and one error, with a hint or none; return both."""
    error, *hints = said(done.stderr)
    assert error.startswith("error: "), done.stderr.decode()
    assert not hints or (len(hints) == 1 and hints[0].startswith("hint: ")), done.stderr.decode()
    assert done.returncode == code and done.stdout == b""
    return "\n".join((error, *hints))
