"""The parts of a collection on disk: JSON lines, TREC's and BEIR's tables, Parquet.

A part `NAME` of a folder is `NAME.jsonl`, `NAME.tsv`, `NAME.parquet`, or every such file in the
folder `NAME`, or those called `NAME-….parquet`, as repositories of data sets have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError, missing_extra

Row = dict[str, Any]
_SUFFIXES = (".jsonl", ".tsv", ".parquet")
_MAX_GRADE = 1000  # trec_eval reserves memory by the highest grade
_QRELS = ("query-id", "corpus-id", "score")


def part(folder: Path, *names: str) -> list[Path]:
    """Return the files of the first of these parts that is there; an empty list for none."""
    for name in names:
        path = folder / name
        found = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
        found = [file for file in found if file.is_file()][:1]
        if not found and path.is_dir():
            files = sorted(f for f in path.iterdir() if f.is_file())
            for suffix in _SUFFIXES:  # the same rows may be there twice, in two formats
                found = found or [f for f in files if f.suffix == suffix]
        found = found or sorted(path.parent.glob(f"{path.name}-*.parquet"))
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
        ModelError: the extra `eval`, which reads Parquet, is not installed.
    """
    for file in files:
        read = {".jsonl": _json_lines, ".tsv": _table, ".parquet": _parquet}[file.suffix]
        number = 0
        try:
            for number, row in read(file):
                missing = [key for key in needed if key not in row]
                if missing:
                    raise InputError(f"`{file}`, line {number}: there is no {missing[0]!r}")
                yield row
        except UnicodeDecodeError:
            raise InputError(f"`{file}`, line {_undecodable(file)}: not valid UTF-8") from None
        except OSError as error:
            raise InputError(f"`{file}` cannot be read: {error.strerror or error}") from None


def grades(files: list[Path]) -> dict[str, dict[str, int]]:
    """Return judgements by query and document, from BEIR's tables or rows of the same names.

    Raises:
        InputError: a file cannot be read, or a grade is not an integer.
    """
    found: dict[str, dict[str, int]] = {}
    for row in rows(files, *_QRELS):
        query, document, grade = (row[key] for key in _QRELS)
        where = f"`{files[0]}`: the grade of {document!r} for query {query!r}"
        try:
            value = int(grade)
        except (TypeError, ValueError):
            raise InputError(f"{where} is not an integer: {str(grade)[:40]!r}") from None
        if abs(value) > _MAX_GRADE:
            raise InputError(
                f"{where} is {value}: grades lie between -{_MAX_GRADE} and {_MAX_GRADE}"
            )
        if found.setdefault(str(query), {}).setdefault(str(document), value) != value:
            raise InputError(f"{where} is given twice, as two different numbers")
    return found


def ids_of(row: Row, name: str, where: Path) -> list[str]:
    """Return a row's list of ids; none where there is none.

    Raises:
        InputError: it is not a list.
    """
    found = row.get(name)
    if isinstance(found, str) or not isinstance(found, Iterable | None):
        raise InputError(f"`{where}`: {name} must be a list of ids, not {str(found)[:40]!r}")
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
                    raise InputError(f"`{file}`, line {number}: not valid JSON ({error})") from None
                if not isinstance(row, dict):
                    raise InputError(f"`{file}`, line {number}: not a JSON object")
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
                        f"`{file}`, line {number}: the first line must name the columns "
                        f"{', '.join(_QRELS)}",
                        "separate them by tabs, as BEIR does",
                    )
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"`{file}`, line {number}: {len(cells)} cells for {len(header)} columns"
                )
            yield number, dict(zip(header, cells, strict=True))


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise missing_extra(f"`{file}`", "pyarrow", "eval") from None
    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowException as error:
        raise InputError(f"`{file}` cannot be read: {error}") from None
