"""The JSON files that the benchmarks write, read and checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import RECORDS
from erank_lite.benchmarks.report.schema import SCHEMAS, check
from erank_lite.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        name: of the file that it came from, without folders.
        kind: one of `SCHEMAS`.
        data: what the file holds, as the schema of its kind says.
    """

    name: str
    kind: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, data: Any, name: str) -> Record:
        """Return the record that `data`, from the file `name`, is.

        Raises:
            InputError: it is none.
        """
        if not isinstance(data, dict) or "kind" not in data:
            raise InputError(f"{name} is no record: it has no kind ({', '.join(SCHEMAS)})")
        kind = data["kind"]
        if not isinstance(kind, str) or kind not in SCHEMAS:
            raise InputError(f"{name}: there is no kind {kind!r}, only {', '.join(SCHEMAS)}")
        check(data, kind, name)
        return cls(Path(name).name, kind, data)


def read_records(sources: Iterable[str | Path]) -> list[Record]:
    """Read records from JSON files and from folders of them.

    A folder's own `.json` files are read; where none of them is a record, those of its subfolder
    `RECORDS`, so that what a benchmark made may be named as a whole. What has no `kind` there is
    passed over. A file that is named must be a record.

    Raises:
        InputError: a path is missing, a file is broken, lacks a key or is of no known kind, or
            there is no record at all.
    """
    found: dict[Path, Record] = {}
    passed_over = 0
    given = [Path(source) for source in sources]
    for source in given:
        if source.is_dir():
            here, others = _of_folder(source)
            if not here:
                here, more = _of_folder(source / RECORDS)
                others += more
            passed_over += others
        elif source.exists():
            here = {source: _read(source)}
        else:
            raise InputError(f"there is no file or folder {source}")
        for path, data in here.items():
            if path.resolve() not in found:
                found[path.resolve()] = Record.of(data, str(path))
    if not found:
        where = ", ".join(map(str, given)) or "no file"
        raise InputError(
            f"no record in {where}: give JSON files of the benchmarks, or a folder of them"
            + f" ({passed_over} files there have no kind)" * bool(passed_over)
        )
    return list(found.values())


def _of_folder(folder: Path) -> tuple[dict[Path, Any], int]:
    """Return what the folder's own files with a `kind` hold, and how many have none."""
    found: dict[Path, Any] = {}
    passed_over = 0
    for path in sorted(folder.glob("*.json")):
        if not path.is_file():
            continue
        try:
            data = _read(path)
        except InputError as error:
            log.warning("%s: passed over", error)
            data = None
        if isinstance(data, dict) and "kind" in data:
            found[path] = data
        else:
            passed_over += 1
    return found, passed_over


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "its text"
        raise InputError(f"{path} is no JSON: {where} cannot be read") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
