"""Work that may crash or take long inside C code, in a process of its own.

A child can be stopped at any moment, with all that it started, and its crash is an error instead
of the end of the caller. It ends when its parent does, however that ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, NoReturn

from erank_lite.errors import ErankLiteError, InputError, ModelError

Message = dict[str, Any]
Send = Callable[[Message], None]

# The parent's sys.path goes along, so that both find the same packages wherever they are started.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_POSIX = os.name == "posix"


class WorkerError(ModelError):
    """A child ended without a result.

    Attributes:
        reason: the last line that it wrote, or how it ended.
        signal: the signal that ended it, such as "SIGSEGV", or None.
    """

    def __init__(self, message: str, reason: str, signal: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.signal = reason, signal


def run(
    module: str,
    arguments: Mapping[str, Any],
    what: str = "llama.cpp",
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Generator[Message, None, Any]:
    """Run `module`, which calls `serve`, as a program; yield the messages that it sends.

    Closing the iterator stops the child and what it started.

    Args:
        module: its name.
        arguments: of the work, by name; they and messages must be what JSON can hold.
        what: the library at work, for the user.
        timeout: seconds, or None for as long as it takes.
        environment: variables that the child gets beside the parent's.

    Returns:
        What the work returned; see `call`.

    Raises:
        WorkerError: the child crashes or takes longer than `timeout`.
        ErankLiteError: what the work raised.
    """
    late = threading.Event()

    def expire() -> None:
        late.set()
        _kill(process)

    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=_POSIX,
        )
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(timeout or 0, expire)
        try:
            if timeout is not None:
                timer.start()
            with contextlib.suppress(BrokenPipeError):  # it ended at once: its exit code says why
                process.stdin.write(json.dumps(arguments) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                answer = json.loads(line)
                if "error" in answer:
                    name, message, hint = answer["error"]
                    raise (InputError if name == InputError.__name__ else ModelError)(message, hint)
                if "result" in answer:
                    return answer["result"]
                yield answer["message"]
            code = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if late.is_set():
            reason = f"it did not finish within {timeout:.0f} seconds"
            raise WorkerError(f"{what} was stopped: {reason}", reason)
        name = signal.Signals(-code).name if code < 0 else None
        how = name or f"exit code {code}"
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        said = lines[-1] if lines else "it gave no reason"
        message = f"{what} ended while it worked on the file ({how}): {said}"
        raise WorkerError(message, lines[-1] if lines else how, name)


def call(module: str, arguments: Mapping[str, Any], what: str = "llama.cpp", **options: Any) -> Any:
    """Run `module` as `run` does, and return the result of its work."""
    messages = run(module, arguments, what, **options)
    while True:
        try:
            next(messages)
        except StopIteration as end:
            return end.value


def serve(work: Callable[..., Any]) -> None:
    """Be the child: call `work(send, **arguments)`, where `send` takes a message for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever C code prints is not a message
    # Python's own buffered read would hold a lock that the interpreter wants at its end.
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(sys.stdin.fileno(), 1 << 16) or _end()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        _end()

    threading.Thread(target=watch, daemon=True).start()

    def answer(kind: str, content: Any) -> None:
        output.write(json.dumps({kind: content}) + "\n")
        output.flush()

    try:
        answer("result", work(lambda message: answer("message", message), **json.loads(line)))
    except ErankLiteError as error:
        answer("error", [type(error).__name__, error.message, error.hint])


def _kill(process: subprocess.Popen[str]) -> None:
    """End a child and what it started, such as a server."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL) if _POSIX else process.kill()


def _end() -> NoReturn:
    """End this process, whose parent is gone, and what it started."""
    if _POSIX and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
