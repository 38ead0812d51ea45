"""Work that may crash or take long inside C code, in a process of its own.

A child can be stopped at any moment, and its crash is a message instead of the end of the caller.
It ends when its parent does, however that ended.
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
from collections.abc import Callable, Iterator
from typing import Any

from erank_lite.errors import ModelError

# The parent's sys.path goes along, so that both find the same packages wherever they are started.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def run(
    module: str, arguments: dict[str, Any], what: str = "llama.cpp"
) -> Iterator[dict[str, Any]]:
    """Run `module` as a program and yield the messages that it sends.

    Closing the iterator stops the child. `what` names the library at work to the user.

    Raises:
        ModelError: the child says so, or crashes.
    """
    command = [sys.executable, "-c", _START, json.dumps(sys.path), module, json.dumps(arguments)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise ModelError(message["error"])
                yield message
            code = process.wait()
        finally:
            process.kill()
        if code:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ModelError(
                f"{what} ended while it worked on the file ({how}): "
                f"{said[-1] if said else 'it gave no reason'}"
            )


def serve(work: Callable[..., None]) -> None:
    """Be the child: call `work(send, **arguments)`, where `send` takes a message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever C code prints is no message

    def watch() -> None:
        # Python's own buffered read would hold a lock that the interpreter wants at its end.
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)  # the parent is gone

    threading.Thread(target=watch, daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    try:
        work(send, **json.loads(sys.argv[1]))
    except ModelError as error:
        send({"error": str(error)})
    with contextlib.suppress(OSError):
        output.close()
