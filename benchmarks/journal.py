"""A long job's results, one line each, which outlive whatever ends the job."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from erank_lite.benchmarks.record import write_json
from erank_lite.errors import InputError

Row = dict[str, Any]
_ROWS, _SETTINGS, _LOCK = "documents.jsonl", "settings.json", ".lock"


class Journal:
    """The rows of one job: a file that only grows, in a folder named by all that matters to it.

    Each row is handed to the system before the next is computed, so that a killed process loses
    none; a line that was half written when the machine went down is dropped when the file is opened
    again.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there; see `opened`."""
        self._begun = 0.0
        self._file = folder / _ROWS
        self.key = folder.name.rpartition("-")[2]
        self.rows: dict[tuple[str, str], Row] = {}
        self._sessions = 0
        self._end = 0
        self._out: BinaryIO | None = None
        if self._file.is_file():
            with self._file.open("rb") as lines:
                for line in lines:
                    try:
                        row = json.loads(line) if line.endswith(b"\n") else None
                        key = (row["query"], row["id"]) if row else None
                    except (ValueError, KeyError, TypeError):
                        key = None
                    if row is None or key is None:
                        break
                    self.rows[key] = row
                    self._sessions = max(self._sessions, row["session"] + 1)
                    self._end += len(line)
        if not (folder / _SETTINGS).is_file():
            write_json(folder / _SETTINGS, settings)

    def begin(self) -> None:
        """Open the file for the rows to come, and start the clock by which they are timed.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            self._out = self._file.open("ab")
            self._out.truncate(self._end)
        except OSError as error:
            raise InputError(f"{self._file} cannot be written: {error.strerror}") from None
        self._begun = time.perf_counter()

    def add(self, row: Row) -> None:
        """Keep one row, which has `query` and `id`; after `begin`.

        Raises:
            InputError: the disk is full, or the place is gone.
        """
        assert self._out is not None
        row |= {"session": self._sessions, "at": round(time.perf_counter() - self._begun, 3)}
        try:
            self._out.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
            self._out.flush()
        except OSError as error:
            raise InputError(
                f"{self._file} cannot be written ({error.strerror}); the same command goes on from "
                "what was kept"
            ) from None
        self.rows[row["query"], row["id"]] = row

    @property
    def rate(self) -> float | None:
        """Documents per second while the job was at work; None where nothing was timed."""
        last: dict[int, float] = {}
        for row in self.rows.values():
            last[row["session"]] = max(last.get(row["session"], 0.0), row["at"])
        seconds = sum(last.values())
        return len(self.rows) / seconds if seconds > 0 else None

    def close(self) -> None:
        """Close the file."""
        if self._out is not None:
            self._out.close()


@contextmanager
def opened(work: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """Yield the journal of the job with these settings: the one there is, or a new one.

    Args:
        work: the folder that holds all jobs.
        name: of a new one, for people; the settings' hash is what it is found by.
        settings: all that matters to the rows, as JSON has it.

    Raises:
        InputError: another process is at it, or the place cannot be written.
    """
    from filelock import FileLock, Timeout

    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    key = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    folder = next(iter(sorted(work.glob(f"*-{key}"))), work / f"{_slug(name)}-{key}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is writing {folder}: wait for it") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        try:
            journal = Journal(folder, settings)
        except OSError as error:
            raise InputError(f"{folder} cannot be read: {error.strerror}") from None
        try:
            yield journal
        finally:
            journal.close()
    finally:
        lock.release()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in name).strip("-.")[:60] or "job"
