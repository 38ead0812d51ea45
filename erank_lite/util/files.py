"""Files: JSON that is checked, and results that appear whole or not at all, made by one process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from erank_lite.errors import InputError, ModelError

_log = logging.getLogger(__name__)
_POINTER = b"version https://git-lfs.github.com/spec/"


def name_like(path: Path) -> str | None:
    """Return a hint that names what the path of a missing file was meant for, if that is clear.

    Example:
        >>> Path("documents.jsonl").touch()
        >>> name_like(Path("document.jsonl"))
        'did you mean `documents.jsonl`?'
    """
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return None
    close = [] if path.name in names else get_close_matches(path.name, names, 1)
    return f"did you mean `{path.with_name(close[0])}`?" if close else None


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """Return the object in a JSON file, or {} where it may be missing and is.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    if optional and not path.is_file():
        return {}
    try:
        refuse_pointer(path)
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"`{path}` cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"`{path}` is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` must hold a JSON object, not a {type(value).__name__}")
    return value


def refuse_pointer(path: Path) -> None:
    """Refuse what Git leaves in place of a large file where Git LFS is not installed.

    Raises:
        ModelError: the file is such a pointer.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"`{path}` is a Git LFS pointer, not the file itself",
                "install Git LFS and run git lfs pull, or download the model with hf download",
            )


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
def locked(path: Path, *, wait: bool = True, suffix: str = ".lock") -> Iterator[None]:
    """Hold `path` against other processes that would make it; it need not exist.

    Args:
        path: what is to be made; its folder must exist.
        wait: wait for another process to finish, rather than refuse.
        suffix: of the lock file, which lies beside `path`.

    Raises:
        InputError: another process holds it, and `wait` is false.
        OSError: the lock file cannot be written.
    """
    file = path.with_name(f"{path.name}{suffix}")
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
