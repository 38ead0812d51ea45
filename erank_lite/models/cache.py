"""The user's cache: what is kept of downloads, conversions and calibration.

    hub/models--OWNER--NAME/refs/REVISION           the commit that the revision meant
    hub/models--OWNER--NAME/snapshots/COMMIT/…      the repository's files
    gguf/VERSION/OWNER--NAME/COMMIT/NAME-TYPE.gguf  what was converted
    calibration/OWNER--NAME/KEY/completions.jsonl   what a model wrote for its quantization
    calibration/OWNER--NAME/KEY/imatrix.gguf        how much each of its weights matters there
    pace.json, attention.json                       how fast models and kernels ran here

What is made of a folder is kept under `folder--NAME` and a hash of what is in its files, in place
of a repository and its commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from erank_lite.errors import InputError, ModelError
from erank_lite.models.checkpoint import BUNDLED_FOLDER, BUNDLED_MODEL
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.files import locked

_WHOLE, _STRETCHES, _STRETCH = 16 << 20, 512, 4096  # bytes read at once, stretches, bytes of each


def identity(folder: Path) -> tuple[str, str, str]:
    """Return (group, state, name) under which what is made of a checkpoint folder is kept.

    The state is that of the content: the times of files are all equal in many images, and change
    where a folder is copied.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()
    if folder == BUNDLED_FOLDER:
        # By what is in it: each environment has a copy, and all of one version are the same.
        for file in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".md"):
            digest.update(file.read_bytes())
        return BUNDLED_MODEL, digest.hexdigest()[:16], BUNDLED_MODEL
    digest.update(str(folder.resolve()).encode())
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            digest.update(f"{file.name}\0".encode())
            digest.update(_looked_through(file))
        except OSError as error:
            raise ModelError(f"`{file}` cannot be read: {error.strerror}") from None
    name = folder.resolve().name
    return f"folder--{name}", digest.hexdigest()[:16], name


def _looked_through(file: Path) -> bytes:
    """Return a digest of a file: of its beginning, and of stretches all through what follows.

    The stretches lie closer than the matrices of a layer are large, so that none is passed over.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with file.open("rb") as data:
        digest.update(data.read(_WHOLE))
        step = max(_STRETCH, (size - _WHOLE) // _STRETCHES)
        for start in range(_WHOLE, size, step):
            data.seek(start)
            digest.update(data.read(_STRETCH))
    return digest.digest()


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time make `path` in the cache; the others wait, and find it made.

    The folder of `path` is made, and removed again if nothing came of it.

    Raises:
        ModelError: the cache cannot be written.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, path.parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not `NAME.lock`: that is held by the conversion itself, which runs inside.
            stack.enter_context(locked(path, suffix=".wait"))
        except OSError as error:
            raise ModelError(
                f"`{path.parent}` cannot be written: {error.strerror}",
                "set ERANK_LITE_CACHE to a folder for downloads and converted files",
            ) from None
        yield


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class CachedFile:
    """One thing in the cache: a model's name, what of it, its size in bytes, and its path."""

    name: str
    what: str
    size: int
    path: Path


def kept_database(name: str, what: str, path: Path) -> CachedFile:
    """Return a SQLite file of the cache as the list has it, with the files beside it counted."""
    size = sum(file.stat().st_size for file in _database_files(path) if file.is_file())
    return CachedFile(name, what, size, path)


def remove_database(path: Path) -> int:
    """Remove a SQLite file of the cache, if it is there, and return the bytes that it had.

    Raises:
        ModelError: it cannot be removed.
    """
    removed = 0
    for file in _database_files(path):
        try:
            removed += file.stat().st_size
            file.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelError(f"`{file}` cannot be removed: {error.strerror}") from None
    return removed


def _database_files(path: Path) -> list[Path]:
    """Return the database's file, and those that SQLite has beside it."""
    return [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm")]


def list_cache() -> list[CachedFile]:
    """Return all that is in the cache: checkpoints, GGUF files, and what was begun.

    Raises:
        ModelError: the cache is not a folder.
    """
    entries = []
    root = cache_folder()
    if root.exists() and not root.is_dir():
        raise ModelError(f"the cache `{root}` is a file, not a folder", "set ERANK_LITE_CACHE")
    for snapshot in sorted(root.glob("hub/models--*/snapshots/*")):
        name = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        size = sum(f.stat().st_size for f in snapshot.rglob("*") if f.is_file())
        entries.append(CachedFile(name, f"download of {snapshot.name[:8]}", size, snapshot))
    for state in sorted(root.glob("gguf/*/*/*")):
        name = state.parent.name.replace("--", "/", 1)
        for file in sorted(state.glob("*.gguf*")):
            if file.suffix in (".gguf", ".partial"):
                done = file.suffix == ".gguf"
                what = file.stem.rpartition("-")[2] if done else "unfinished conversion"
                entries.append(CachedFile(name, what, file.stat().st_size, file))
    for pattern, what in (("*.jsonl", "calibration text"), ("imatrix.gguf", "importance matrix")):
        for file in sorted(root.glob(f"calibration/*/*/{pattern}")):
            name = file.parent.parent.name.replace("--", "/", 1)
            entries.append(CachedFile(name, what, file.stat().st_size, file))
    return entries


def clear_cache(name: str | None = None) -> int:
    """Remove what the cache holds of one model, or of all.

    Args:
        name: the model's, as `list_cache` gives it; None means all.

    Returns:
        The bytes that were removed.

    Raises:
        InputError: the cache holds nothing of that name.
        ModelError: something cannot be removed.
    """
    entries = list_cache()
    found = [entry for entry in entries if name in (None, entry.name)]
    if name is not None and not found:
        names = ", ".join(sorted({entry.name for entry in entries})) or "nothing"
        raise InputError(f"the cache holds no `{name}`; it holds {names}")
    try:
        for entry in found:
            # The folder of the model, with all that was noted of it.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(entry.path.parent.parent)
    except OSError as error:
        raise ModelError(f"`{error.filename}` cannot be removed: {error.strerror}") from None
    return sum(entry.size for entry in found)
