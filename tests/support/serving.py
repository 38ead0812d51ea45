"""A server in a process of its own, for real clients."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

KEY = "SECRET"
_COMMAND = str(Path(sys.executable).with_name("erank-lite"))


@contextmanager
def serving(
    *arguments: str, port: str = "0", keep: bool = False
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address of a server that is ready, and its process; `keep` keeps results."""
    cache = () if keep else ("--no-cache",)
    command = [_COMMAND, "serve", "--port", port, *cache, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://\S+?(?=;)", line)
            assert found is not None, line
            for _ in range(600):
                if httpx.get(f"{found[0]}/health").status_code == 200:
                    break
                time.sleep(0.05)
            yield found[0], process
        finally:
            process.kill()
