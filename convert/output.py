"""The output of a conversion: its path, held by one process, and its disk, full or not."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from erank_lite.convert.estimate import Estimate
from erank_lite.errors import InputError, ModelError
from erank_lite.util.files import locked
from erank_lite.util.reporter import Reporter
from erank_lite.util.units import duration, file_size

_ALMOST_NONE = 32 << 20  # free bytes, below which a failure is the disk's
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_parent(out: Path, force: bool) -> None:
    """Check that something new may get the name `out`.

    Raises:
        InputError: it may not.
    """
    if not out.parent.is_dir():
        raise InputError(f"there is no folder `{out.parent}`", "make it first")
    if out.exists() and not force:
        raise InputError(f"`{out}` is already there", "--force replaces it, or give another name")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"`{out.parent}` may not be written to", "give a path of your own")


def announce(estimate: Estimate, out: Path, what: str, reporter: Reporter) -> None:
    """Say what the conversion takes, if the disk has room for it.

    Args:
        estimate: of the conversion.
        out: what is made.
        what: it is: "file" or "result".
        reporter: gets the message.

    Raises:
        ModelError: the disk has no room.
    """
    free = shutil.disk_usage(out.parent).free
    if estimate.disk > free:
        raise ModelError(
            f"`{out.parent}` has {file_size(free)} free, but the conversion takes "
            f"{file_size(estimate.disk)} ({file_size(estimate.size)} for the {what} itself)",
            "make room, or choose another disk or a smaller type",
        )
    reporter.message(
        f"the {what} will have {file_size(estimate.size)}; on the way it takes "
        f"{file_size(estimate.disk)} of disk, {file_size(estimate.memory)} of memory and about "
        f"{duration(estimate.seconds)}"
    )


@contextlib.contextmanager
def claimed(out: Path, work: Path) -> Iterator[None]:
    """Hold `out` against other processes, and keep nothing under the name `work`, beside it.

    Raises:
        InputError: another process is making `out`.
        ModelError: the disk is full, or something cannot be read or written.
    """
    try:
        with locked(out, wait=False):
            _remove(work)  # of a run that was killed
            try:
                yield
            finally:
                _remove(work)
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(out) from None
        where = error.filename or out
        raise ModelError(f"`{where}` cannot be read or written: {error.strerror}") from None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say that the disk of `path` is full where that is why a library failed."""
    try:
        yield
    except ModelError:
        if shutil.disk_usage(path.parent).free < _ALMOST_NONE:
            raise _disk_full(path) from None
        raise


def _disk_full(path: Path) -> ModelError:
    return ModelError(
        f"the disk of `{path.parent}` is full, or a limit on file sizes is reached: nothing is "
        "left of the conversion",
        "make room and start it again",
    )
