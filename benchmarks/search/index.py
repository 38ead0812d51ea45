"""Measure how long a folder takes to be indexed, searched, and brought up to date.

    python -m erank_lite.benchmarks.search.index FOLDER --changes 100 --json FILE

indexes the folder into a new index, in a process of its own; searches; changes files of a copy of
it; and searches again. It tells seconds, the memory that the process took, and the index's size.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.errors import ErankLiteError
from erank_lite.search import Index

_QUERIES = ("how are errors reported", "configuration file format", "copyright and licence terms",
            "what changed in the last release", "how to install from source")  # fmt: skip


def measure(folder: Path, changes: int, command: str = "") -> Record:
    """Return a record of kind "search-index".

    `first`, `again` and `changed` have `seconds`, the files that were `read`, and `memory`, the
    most bytes that the process had; `query_seconds` is the mean of a BM25 query.

    Args:
        folder: what is indexed; it is copied, and left alone.
        changes: how many files of the copy are changed.
        command: what was typed, for the record.

    Raises:
        InputError: there is no such folder.
    """
    with tempfile.TemporaryDirectory() as work:
        copy, path = Path(work, "folder"), Path(work, "search.sqlite")
        shutil.copytree(folder, copy, symlinks=True)
        first = _apart(_update, path, copy)
        again = _apart(_update, path, copy)
        queries = _apart(_search, path, copy)
        files = [file for file in sorted(copy.rglob("*")) if file.is_file()]
        for file in random.Random(0).sample(files, min(changes, len(files))):
            with file.open("ab") as out:
                out.write(b"\nOne more line.\n")
        changed = _apart(_update, path, copy)
        return record(
            "search-index", command, bytes=sum(f.stat().st_size for f in files), first=first,
            again=again, changed=changed, query_seconds=queries,
            index_bytes=path.stat().st_size,
        )  # fmt: skip


def _update(path: Path, folder: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    with Index(path) as index:
        done = index.update([folder])
    reasons: dict[str, int] = {}
    for why in done.failures.values():
        reasons[why] = reasons.get(why, 0) + 1
    return {
        "seconds": time.perf_counter() - begun, "files": done.files, "passages": done.passages,
        "read": done.read, "other": done.other, "failures": reasons,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def _search(path: Path, folder: Path) -> float:
    with Index(path) as index:
        begun = time.perf_counter()
        for query in _QUERIES:
            index.search(query, [folder])
        return (time.perf_counter() - begun) / len(_QUERIES)


def _apart(work: Callable[[Path, Path], Any], path: Path, folder: Path) -> Any:
    """Return what comes of work in a process of its own, whose memory is then its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (path, folder))


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    typed = command_line(["python", "-m", "erank_lite.benchmarks.search.index", *sys.argv[1:]])
    try:
        found = measure(arguments.folder, arguments.changes, typed)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name in ("first", "again", "changed"):
        row = found[name]
        print(
            f"{name:8} {row['seconds']:7.1f} s, {row['read']:,} of {row['files']:,} files read, "
            f"{row['passages']:,} passages, {row['memory'] / 2**20:.0f} MiB"
        )
    print(
        f"a query  {1000 * found['query_seconds']:7.1f} ms; the index has "
        f"{found['index_bytes'] / 1e6:.0f} MB, of {found['bytes'] / 1e6:.0f} MB of files"
    )
    if arguments.json:
        write_json(arguments.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
