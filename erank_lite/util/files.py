"""Files that appear whole or not at all, and that one process at a time makes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from erank_lite.errors import InputError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` at the end, or is removed.

    Whatever carries the name `path` is therefore complete, after a crash too.

    Args:
        path: the file to make; one that is there is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold `path` against other processes that would make it; it need not exist.

    Args:
        path: what is to be made; its folder must exist.
        wait: wait for another process to finish, rather than refuse.

    Raises:
        InputError: another process holds it, and `wait` is false.
        OSError: the lock file cannot be written.
    """
    file = path.with_name(f"{path.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(f"another process is writing `{path}`", "wait for it") from None
        _log.warning("another process is making %s; waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
