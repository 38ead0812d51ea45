"""The parts of a collection on disk: JSON lines, TREC's and BEIR's tables, Parquet.

A part `NAME` of a folder is `NAME.jsonl`, `NAME.tsv` (or packed, with `.gz` behind),
`NAME.parquet`, or every such file in the folder `NAME`, or those called `NAME-….parquet`, as
repositories of data sets have them.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TextIO, cast

from erank_lite.errors import InputError, missing_extra
from erank_lite.util.json_lines import fault

Row = dict[str, Any]
_SUFFIXES = (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz", ".parquet")
_SPLITS = ("train", "dev", "validation", "valid", "test")
_MAX_GRADE = 1000  # trec_eval reserves memory by the highest grade
_QRELS = ("query-id", "corpus-id", "score")


def part(folder: Path, *names: str) -> list[Path]:
    """Return the files of the first of these parts that is there; an empty list for none.

    Raises:
        InputError: a part has several splits, and none of them is the test.
    """
    for name in names:
        path = folder / name
        found = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
        found = [file for file in found if file.is_file()][:1]
        if not found and path.is_dir():
            files = _of_one_split(path, sorted(f for f in path.iterdir() if f.is_file()))
            for suffix in _SUFFIXES:  # the same rows may be there twice, in two formats
                found = found or [f for f in files if f.name.endswith(suffix)]
        found = found or sorted(path.parent.glob(f"{path.name}-*.parquet"))
        if found:
            return found
    return []


def _of_one_split(folder: Path, files: list[Path]) -> list[Path]:
    """Leave out what is not of the split `test`, where files are of several splits."""
    splits = {file: file.name.split("-")[0].split(".")[0] for file in files}
    found = sorted(set(splits.values()) & set(_SPLITS))
    if len(found) > 1 and "test" not in found:
        raise InputError(
            f"`{folder}` has the splits {' and '.join(found)}, and no test",
            f"call the one that is meant {folder.name}/test",
        )
    return [file for file in files if len(found) < 2 or splits[file] == "test"]


def rows(
    files: list[Path],
    *needed: str,
    ids: Sequence[str] = (),
    texts: Sequence[str] = (),
    blanks: Sequence[str] = (),
) -> Iterator[Row]:
    """Yield the rows of these files.

    Args:
        files: of one part.
        needed: keys that every row must have.
        ids: keys that must hold an id; it becomes a string.
        texts: keys that must hold a text.
        blanks: keys that may hold a text; where they are missing or null, it is empty.

    Raises:
        InputError: a file cannot be read, or a row is not as it must be; the message names file and
            line.
        ModelError: the extra `eval`, which reads Parquet, is not installed.
    """
    for file in files:
        kind = file.with_suffix("") if file.suffix == ".gz" else file
        read = {".jsonl": _json_lines, ".tsv": _table, ".parquet": _parquet}[kind.suffix]
        try:
            for number, row in read(file):
                where = f"`{file}`, line {number}"
                for key in (*needed, *ids, *texts):
                    if key not in row:
                        raise InputError(f"{where}: there is no {key!r}")
                own = {key: _id(row[key], key, where) for key in ids}
                own |= {key: _text(row[key], key, where) for key in texts}
                own |= {key: _text(row.get(key) or "", key, where) for key in blanks}
                yield row | own
        except UnicodeDecodeError:
            raise InputError(f"`{file}`, line {_undecodable(file)}: not valid UTF-8") from None
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(f"`{file}` cannot be unpacked: it is damaged") from None
        except OSError as error:
            raise InputError(f"`{file}` cannot be read: {error.strerror or error}") from None


def _id(value: Any, key: str, where: str) -> str:
    if (isinstance(value, str) and value.strip()) or type(value) is int:
        return str(value)
    raise InputError(f"{where}: {key} must be an id, not {_shown(value)}")


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} must be a text, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:40]


def grades(files: list[Path]) -> dict[str, dict[str, int]]:
    """Return judgements by query and document, from BEIR's tables or rows of the same names.

    Raises:
        InputError: a file cannot be read, or a grade is not a whole number.
    """
    found: dict[str, dict[str, int]] = {}
    for row in rows(files, "score", ids=_QRELS[:2]):
        query, document, grade = (row[key] for key in _QRELS)
        where = f"`{files[0]}`: the grade of {document!r} for query {query!r}"
        value = _whole(grade)
        if value is None:
            raise InputError(f"{where} is not a whole number: {_shown(grade)}")
        if abs(value) > _MAX_GRADE:
            raise InputError(
                f"{where} is {value}: grades lie between -{_MAX_GRADE} and {_MAX_GRADE}"
            )
        if found.setdefault(query, {}).setdefault(document, value) != value:
            raise InputError(f"{where} is given twice, as two different numbers")
    return found


def _whole(grade: Any) -> int | None:
    """Return a whole number in any notation, such as 1, "1", 1.0 and "1e0"; None for others."""
    if isinstance(grade, bool) or not isinstance(grade, int | float | str):
        return None
    try:
        value = Decimal(str(grade).strip())
        # Far beyond any grade, whose digits would take long to write down.
        return int(value) if value == value.to_integral_value() and value.adjusted() < 20 else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


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
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _opened(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return cast(TextIO, gzip.open(file, "rt", encoding="utf-8-sig"))
    return file.open(encoding="utf-8-sig")


def _json_lines(file: Path) -> Iterator[tuple[int, Row]]:
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(
                        f"`{file}`, line {number}: not valid JSON ({fault(error)})"
                    ) from None
                if not isinstance(row, dict):
                    raise InputError(f"`{file}`, line {number}: not a JSON object")
                yield number, row


def _table(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table whose first line names the columns (BEIR's judgements)."""
    with _opened(file) as lines:
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
