"""A long job's results, one line each, which outlive whatever ends the job."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from erank_lite.benchmarks.files import write_json
from erank_lite.errors import InputError
from erank_lite.util.files import locked

Row = dict[str, Any]
Check = Callable[[Any], bool]
Fields = dict[str, Check]
"""What a row holds, and whether a value can be what was written there."""

_ROWS, _SETTINGS = "documents.jsonl", "settings.json"
_MAX_INT = 1 << 63


def of(*types: type | None) -> Check:
    """Return a check that a value is of one of these types; None stands for no value.

    Example:
        >>> of(int, None)(3), of(int, None)(None), of(int)(True), of(int)("3")
        (True, True, False, False)
    """
    wanted = {type(None) if each is None else each for each in types}
    return lambda value: type(value) in wanted and (type(value) is not int or abs(value) < _MAX_INT)


number = of(int, float)
_COMMON: Fields = {
    "key": of(str), "query": of(str), "id": of(str), "session": of(int), "at": number,
}  # fmt: skip


def row_key(*texts: str) -> str:
    """Return what a row is found by: a hash of the texts that it is the result of.

    Example:
        >>> row_key("bread", "A loaf.") == row_key("bread", "A loaf."), len(row_key("bread"))
        (True, 24)
    """
    data = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=12).hexdigest()


class Journal:
    """Rows of the same settings: a file that only grows, in a folder named by them all.

    Each row is handed to the system before the next is computed, so that a killed process loses
    none; a line that was half written when the machine went down is dropped when the file is opened
    again.

    Attributes:
        rows: by their keys.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], fields: Fields) -> None:
        """Read what is there; see `opened`."""
        self._begun = 0.0
        self._file = folder / _ROWS
        self.rows: dict[str, Row] = {}
        self._sessions = 0
        self._end = 0
        self._out: BinaryIO | None = None
        if self._file.is_file():
            with self._file.open("rb") as lines:
                for count, line in enumerate(lines, 1):
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError):
                        break
                    if not line.endswith(b"\n"):
                        break
                    self._check(row, count, _COMMON | fields)
                    self.rows[row["key"]] = row
                    self._sessions = max(self._sessions, row["session"] + 1)
                    self._end += len(line)
        if not (folder / _SETTINGS).is_file():
            write_json(folder / _SETTINGS, settings)

    def _check(self, row: Any, line: int, fields: Fields) -> None:
        """Refuse a whole line that no `add` wrote: somebody edited the file."""
        found = row if isinstance(row, dict) else {}
        for name, check in fields.items():
            if not check(found.get(name)):
                raise InputError(
                    f"`{self._file}`, line {line}: {name} cannot be {found.get(name)!r:.60}",
                    "remove the line, and its document is computed again",
                )

    def begin(self) -> None:
        """Open the file for the rows to come, and start the clock by which they are timed.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            self._out = self._file.open("ab")
            self._out.truncate(self._end)
        except OSError as error:
            raise InputError(f"`{self._file}` cannot be written: {error.strerror}") from None
        self._begun = time.perf_counter()

    def add(self, row: Row) -> None:
        """Keep one row, which has its `key`, and `query` and `id` for people; after `begin`.

        Raises:
            InputError: the disk is full, or the folder is gone.
        """
        assert self._out is not None
        row |= {"session": self._sessions, "at": round(time.perf_counter() - self._begun, 3)}
        line = json.dumps(row, ensure_ascii=True).encode() + b"\n"
        try:
            # Ctrl-C may come at any moment: what is written is then counted as kept.
            self.rows[row["key"]] = row
            self._out.write(line)
            self._out.flush()
        except OSError as error:
            del self.rows[row["key"]]
            raise InputError(
                f"`{self._file}` cannot be written: {error.strerror}",
                "run the same command again: it goes on from what was kept",
            ) from None

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


@contextlib.contextmanager
def opened(
    folder: Path, name: str, settings: Mapping[str, Any], fields: Fields
) -> Iterator[Journal]:
    """Yield the journal of these settings: the one there is, or a new one.

    Args:
        folder: holds all journals.
        name: of a new one, for people; the settings' hash is what it is found by.
        settings: all that matters to the rows beside their texts, as JSON has it.
        fields: what each row has, beside its `key`, `query` and `id`.

    Raises:
        InputError: another process is at it, the folder cannot be written, or a row was edited.
    """
    state = settings_hash(settings)
    job = next(iter(sorted(folder.glob(f"*-{state}"))), folder / f"{_slug(name)}-{state}")
    with contextlib.ExitStack() as stack:
        try:
            job.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(job / _ROWS, wait=False))
            journal = Journal(job, settings, fields)
        except OSError as error:
            raise InputError(f"`{job}` cannot be written: {error.strerror}") from None
        stack.callback(journal.close)
        yield journal


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a hash of settings, as JSON has them."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in name).strip("-.")[:60] or "job"
