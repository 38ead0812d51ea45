"""The place of a converted model: free or taken, held by one process, its disk full or not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from erank_lite.errors import InputError, ModelError

ALMOST_NONE = 32 << 20  # free bytes, below which a failure is the disk's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_parent(out: Path, force: bool) -> None:
    """Check that something new may get the name `out`.

    Raises:
        InputError: it may not.
    """
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}: make it first")
    if out.exists() and not force:
        raise InputError(f"{out} is already there: --force replaces it, or give another name")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent} may not be written to: give a place of your own")


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold `out` against other processes that would make it.

    Raises:
        InputError: another process is making it.
    """
    lock_file = out.with_name(f"{out.name}.lock")
    try:
        lock = FileLock(lock_file, timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"another process is making {out}: wait for it") from None
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)
        lock.release()


def disk_full(path: Path) -> ModelError:
    """Return the error to raise where the disk of `path` turned out to be full."""
    return ModelError(
        f"the disk of {path.parent} is full, or a limit on file sizes is reached: nothing is left "
        "of the conversion; make room and start it again"
    )
