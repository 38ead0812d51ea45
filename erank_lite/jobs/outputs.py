"""What a job writes: a journal while it runs, and at its end the file that was asked for.

The journal lies beside that file, as `NAME.unfinished`: a line that says of which job it is, and
one for each query that is finished. A line that was cut off when the process was killed is written
anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from erank_lite.errors import InputError, missing_extra
from erank_lite.util.files import atomic
from erank_lite.util.json_lines import json_line

ENDINGS = (".jsonl", ".json", ".parquet", ".trec", ".run", ".txt")
"""What an output's name may end in: lines of JSON, Parquet, a TREC run."""

_STEP = 1e-6


class Journal:
    """The queries that a job has finished.

    Attributes:
        skipped: why, by number, of those that could not be used.
    """

    def __init__(self, out: Path, job: Mapping[str, Any], force: bool = False) -> None:
        """Open the journal of an output, or begin it.

        Args:
            out: the file that will be written.
            job: all that decides what will be in it, as JSON has it.
            force: begin anew, whatever is there.

        Raises:
            InputError: the output is there, or was left unfinished by another job, or cannot be
                written.
        """
        self._path = unfinished(out)
        self._places: dict[int, tuple[int, int]] = {}
        self.skipped: dict[int, str] = {}
        head = json_line({"job": job}).encode("utf-8", "backslashreplace") + b"\n"
        try:
            if force:
                self._path.unlink(missing_ok=True)
            self._file = self._path.open("a+b")
            self._file.seek(0)
            found = self._file.readline()
            if not found.endswith(b"\n"):
                self._file.truncate(0)
                self._file.write(head)
                self._file.flush()
                return
        except OSError as error:
            raise InputError(f"`{self._path}` cannot be written: {error.strerror}") from None
        if found != head:
            self._file.close()
            raise InputError(
                f"`{self._path}` was left by another job{_difference(found, job)}",
                "run that one to its end, give another OUT, or --force to begin anew",
            )
        self._look_through(len(head))

    def _look_through(self, at: int) -> None:
        for line in self._file:
            try:
                kept = json.loads(line) if line.endswith(b"\n") else {}
                number, record = kept["number"], kept["record"]
            except (ValueError, KeyError, TypeError):  # cut off: nothing after it is of use
                self._file.truncate(at)
                break
            self._note(number, record, at, len(line))
            at += len(line)

    def _note(self, number: int, record: Mapping[str, Any], at: int, size: int) -> None:
        self._places[number] = (at, size)
        if "failure" in record:
            self.skipped[number] = record["failure"]

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        """Keep a query's record; it outlives this process when this returns.

        Raises:
            InputError: it cannot be written.
        """
        line = json_line({"number": number, "record": record})
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            at = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"`{self._path}` cannot be written: {error.strerror}",
                "make room, and give the same command again: it goes on from there",
            ) from None
        self._note(number, record, at, len(data))

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order of the input."""
        for number in sorted(self._places):
            at, size = self._places[number]
            self._file.seek(at)
            yield json.loads(self._file.read(size))["record"]

    def finish(self, out: Path) -> None:
        """Write the output, whole, and remove the journal.

        Raises:
            InputError: it cannot be written; the journal stays.
        """
        try:
            with atomic(out) as partial:
                write(partial, out.suffix.lower(), self.records())
        except OSError as error:
            raise InputError(f"`{out}` cannot be written: {error.strerror}") from None
        self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the journal; it stays."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def unfinished(out: Path) -> Path:
    """Return where the journal of an output lies."""
    return out.with_name(f"{out.name}.unfinished")


def check(out: Path, force: bool) -> None:
    """Find what is wrong with an output before anything is computed.

    Raises:
        InputError: its ending is unknown, its folder is not there, or it is there itself.
    """
    if out.suffix.lower() not in ENDINGS:
        raise InputError(
            f"`{out}` has no ending that says what to write",
            "end it in .jsonl, .parquet, or .trec for a TREC run",
        )
    if not out.absolute().parent.is_dir():
        raise InputError(f"there is no folder `{out.parent}`", "make it first")
    if out.exists() and not force:
        raise InputError(f"`{out}` is there already", "give --force to replace it")
    if out.suffix.lower() == ".parquet":
        _arrow()


def write(path: Path, ending: str, records: Iterator[dict[str, Any]]) -> None:
    """Write records in the form that an ending asks for."""
    if ending == ".parquet":
        _write_parquet(path, records)
        return
    with path.open("wb") as file:
        for record in records:
            for line in (
                _lines(record) if ending in (".trec", ".run", ".txt") else [json_line(record)]
            ):
                file.write(line.encode("utf-8", "backslashreplace") + b"\n")


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a query's lines of a TREC run, whose scores keep the order whoever sorts by them."""
    last = float("inf")
    for result in record.get("results", ()):
        score = result["rank_score"]
        score = result.get("estimate") if score is None else score
        last = min(last - _STEP, 0.0 if score is None else round(score, 6))
        query, name = _word(record["id"]), _word(result["id"])
        yield f"{query} Q0 {name} {result['rank']} {last:.6f} erank-lite"


def _word(name: str) -> str:
    """Return an id as one word, which a run's are."""
    return "_".join(str(name).split()) or "_"


def _write_parquet(path: Path, records: Iterator[dict[str, Any]]) -> None:
    arrow, parquet = _arrow()
    number, text = arrow.float64(), arrow.string()
    result = arrow.struct(
        [
            ("id", text), ("index", arrow.int64()), ("rank", arrow.int64()),
            ("score", arrow.int64()), ("probability", number), ("rank_score", number),
            ("level", text), ("estimate", number), ("reasoning", text),
            ("truncated", arrow.bool_()), ("failure", text),
        ]
    )  # fmt: skip
    schema = arrow.schema([("id", text), ("results", arrow.list_(result)), ("failure", text)])
    with parquet.ParquetWriter(path, schema) as writer:
        block: list[dict[str, Any]] = []
        for record in records:
            block.append(_row(record))
            if len(block) == 256:
                writer.write_table(arrow.Table.from_pylist(block, schema))
                block = []
        writer.write_table(arrow.Table.from_pylist(block, schema))


def _row(record: dict[str, Any]) -> dict[str, Any]:
    results = record.get("results") or []
    return record | {
        "results": [
            r | {"level": None if r.get("level") is None else str(r["level"])} for r in results
        ]
    }


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise missing_extra("Parquet", "pyarrow", "eval") from None
    return arrow, parquet


def _difference(found: bytes, job: Mapping[str, Any]) -> str:
    """Return in what the other job differs, as far as it can be told."""
    try:
        other = json.loads(found)["job"]
        names = [name for name in job if other.get(name) != job[name]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": its {names[0]} is another" if names else ""
