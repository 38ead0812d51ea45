"""The parts of a collection on disk: JSON lines, TREC's and BEIR's tables, Parquet.

A part `NAME` of a folder is `NAME.jsonl`, `NAME.tsv`, `NAME.parquet`, or every such file in the
folder `NAME`, or those called `NAME-….parquet`, as repositories of data sets have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError, ModelError

Row = dict[str, Any]
_KINDS = (".jsonl", ".tsv", ".parquet")
_HIGHEST = 1000  # trec_eval reserves memory by the highest grade
_QRELS = ("query-id", "corpus-id", "score")


def part(folder: Path, *names: str) -> list[Path]:
    """Return the files of the first of these parts that is there; an empty list for none."""
    for name in names:
        place = folder / name
        found = [place.with_name(place.name + kind) for kind in _KINDS]
        found = [file for file in found if file.is_file()][:1]
        if not found and place.is_dir():
            files = sorted(f for f in place.iterdir() if f.is_file())
            for kind in _KINDS:  # the same rows may lie there twice, in two forms
                found = found or [f for f in files if f.suffix == kind]
        found = found or sorted(place.parent.glob(f"{place.name}-*.parquet"))
        if found:
            return found
    return []


def rows(files: list[Path], *needed: str) -> Iterator[Row]:
    """Yield the rows of these files.

    Args:
        files: of one part.
        needed: keys that every row must have.

    Raises:
        InputError: a file cannot be read, or a row lacks a key; the message names file and line.
        ModelError: a Parquet file, and what reads these is not installed.
    """
    for file in files:
        read = {".jsonl": _json_lines, ".tsv": _table, ".parquet": _parquet}[file.suffix]
        number = 0
        try:
            for number, row in read(file):
                missing = [key for key in needed if key not in row]
                if missing:
                    raise InputError(f"{file}, line {number}: there is no {missing[0]!r}")
                yield row
        except UnicodeDecodeError:
            raise InputError(f"{file}, line {_undecodable(file)}: not valid UTF-8") from None
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or error}") from None


def grades(files: list[Path]) -> dict[str, dict[str, int]]:
    """Return judgements by query and document, from BEIR's tables or rows of the same names.

    Raises:
        InputError: a file cannot be read, or a grade is no integer.
    """
    found: dict[str, dict[str, int]] = {}
    for row in rows(files, *_QRELS):
        query, document, grade = (row[key] for key in _QRELS)
        where = f"{files[0]}: the grade of {document!r} for query {query!r}"
        try:
            value = int(grade)
        except (TypeError, ValueError):
            raise InputError(f"{where} is no integer: {str(grade)[:40]!r}") from None
        if abs(value) > _HIGHEST:
            raise InputError(f"{where} is {value}: grades lie between -{_HIGHEST} and {_HIGHEST}")
        if found.setdefault(str(query), {}).setdefault(str(document), value) != value:
            raise InputError(f"{where} is given twice, as two different numbers")
    return found


def ids_of(row: Row, name: str, where: Path) -> list[str]:
    """Return a row's list of ids; none where there is none.

    Raises:
        InputError: it is no list.
    """
    found = row.get(name)
    if isinstance(found, str) or not isinstance(found, Iterable | None):
        raise InputError(f"{where}: {name} must be a list of ids, not {str(found)[:40]!r}")
    return [str(i) for i in found or ()]


def _undecodable(file: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _json_lines(file: Path) -> Iterator[tuple[int, Row]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{file}, line {number}: not valid JSON ({error})") from None
                if not isinstance(row, dict):
                    raise InputError(f"{file}, line {number}: not a JSON object")
                yield number, row


def _table(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table whose first line names the columns (BEIR's judgements)."""
    with file.open(encoding="utf-8-sig") as lines:
        header: list[str] = []
        for number, line in enumerate(lines, 1):
            cells = line.rstrip("\r\n").split("\t")
            if not line.strip():
                continue
            if not header:
                header = cells
                if not set(_QRELS) <= set(header) and len(header) == 3 and header[2].isdigit():
                    # Judgements without a header line.
                    header = list(_QRELS)
                    yield number, dict(zip(header, cells, strict=True))
                elif not set(_QRELS) <= set(header):
                    raise InputError(
                        f"{file}, line {number}: the first line must name the columns "
                        f"{', '.join(_QRELS)}, with tabs between them (BEIR's layout)"
                    )
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{file}, line {number}: {len(cells)} cells for {len(header)} columns"
                )
            yield number, dict(zip(header, cells, strict=True))


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise ModelError(f"{file} needs pyarrow: pip install 'erank-lite[eval]'") from None
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowException as error:
        raise InputError(f"{file} cannot be read: {error}") from None
