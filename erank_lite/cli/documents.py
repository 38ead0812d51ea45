"""Documents from files, folders and standard input."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError
from erank_lite.util.files import name_like
from erank_lite.util.json_lines import fault

Record = dict[str, Any]
_TEXT_FILES = (".txt", ".md", ".rst", ".text")
_TEXT_KEYS = {"content", "text"}


def read_documents(sources: Sequence[str]) -> list[Record]:
    """Return the records of all sources, in order, each with its own keys as they were found.

    Raises:
        InputError: a source cannot be read, or a record in it cannot be used; the message names the
            file and the line.
    """
    return [record for source in sources for record in _read(source)]


def content_of(record: Record) -> str:
    """Return the document's text: `content`, or else `text`."""
    content = record.get("content")
    return content if isinstance(content, str) else str(record["text"])


def _read(source: str) -> Iterator[Record]:
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed")
        name, suffix, data = "standard input", "", sys.stdin.buffer.read()
    else:
        path = Path(source).expanduser()
        try:
            folder = path.is_dir()
        except OSError as error:
            raise InputError(f"`{source[:200]}` cannot be read: {error.strerror}") from None
        if folder:
            yield from _folder(path)
            return
        plain = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
        name, suffix, data = source, plain.suffix.lower(), _bytes(path)
    text = _decode(_unpacked(data, name), name)
    yield from _READERS.get(suffix, _by_look)(name, text)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        hint = name_like(path) or "give a file, a folder, or - for standard input"
        raise InputError(f"there is no file or folder `{path}`", hint) from None
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None


def _unpacked(data: bytes, name: str) -> bytes:
    """Return what gzip or Zstandard packed, known by its first bytes; other data as it is."""
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.decompress(data)
        if data[:4] == b"\x28\xb5\x2f\xfd":
            zstd: Any = importlib.import_module("compression.zstd")
            return bytes(zstd.decompress(data))
    except ModuleNotFoundError:
        raise InputError(
            f"{name} is packed with Zstandard, which Python reads from 3.14 on", "unpack it by zstd"
        ) from None
    except Exception as error:  # of each format its own
        raise InputError(f"{name} cannot be unpacked: {error}") from None
    return data


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}, line {line}: byte {error.start} is not valid UTF-8", "save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{name}, line {line}: a NUL byte, so this is not a text file")
    return text


def _by_look(name: str, text: str) -> Iterator[Record]:
    """Read what no suffix tells: JSON by its first character, a table by its header."""
    if text.lstrip()[:1] == "{":
        return _json_lines(name, text)
    if text.lstrip()[:1] == "[":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return _lines(name, text)  # prose may begin with a bracket
        return _json(name, text)
    header = text.lstrip("\n").partition("\n")[0].rstrip("\r")
    for separator, reader in (("\t", _tsv), (",", _csv)):
        columns = header.split(separator)
        if len(columns) > 1 and _TEXT_KEYS & {column.strip('"') for column in columns}:
            return reader(name, text)
    return _lines(name, text)


def _lines(name: str, text: str) -> Iterator[Record]:
    # Only line feeds end a line, or where there are none carriage returns: str.splitlines would
    # also cut at form feeds and U+2028.
    for line in text.split("\n" if "\n" in text else "\r"):
        if line.strip():
            yield {"content": line.rstrip("\r")}


def _json_lines(name: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{name}, line {number}: not valid JSON ({fault(error)})"
                ) from None
            yield _checked(value, f"{name}, line {number}")


def _json(name: str, text: str) -> Iterator[Record]:
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a document a line, whatever the name says
            yield from _json_lines(name, text)
            return
        raise InputError(f"{name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid JSON ({fault(error)})") from None
    if not isinstance(value, list):
        alone = isinstance(value, dict) and _TEXT_KEYS & value.keys()
        raise InputError(
            f"{name}: it must hold a list of documents, or one document a line",
            "put the document in brackets" if alone else 'give the list alone: [{"content": "…"}]',
        )
    for number, item in enumerate(value):
        yield _checked(item, f"{name}, item {number}")


def _csv(name: str, text: str) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from _table(name, ((rows.line_num, row) for row in rows))
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.line_num}: {error}") from None


def _tsv(name: str, text: str) -> Iterator[Record]:
    """Read a table whose tabs and line ends always separate: TSV has no quotation marks."""
    lines = (line.rstrip("\r") for line in text.split("\n"))
    rows = ((number, line.split("\t") if line else []) for number, line in enumerate(lines, 1))
    yield from _table(name, rows)


def _table(name: str, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    columns = next((row for _, row in rows if row), [])
    if not columns:
        raise InputError(f"{name} is empty", "give a header line, and a document a line below it")
    if not _TEXT_KEYS & set(columns):
        hint = f"its columns are {', '.join(columns)}; rename one"
        if len(columns) == 1 and ";" in columns[0]:
            hint = "separate the columns by commas, not by semicolons"
        raise InputError(f"{name}: no column is named content or text", hint)
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{name}: two columns are named {twice}", "rename one")
    for number, row in rows:
        if not row:
            continue
        where = f"{name}, line {number}"
        if len(row) != len(columns):
            raise InputError(
                f"{where}: it has {len(row)} fields, and the header has {len(columns)}"
            )
        record: Record = dict(zip(columns, row, strict=True))
        score = record.get("first_stage_score")
        if score is not None:
            record["first_stage_score"] = _number(score, where) if score.strip() else None
        yield _checked(record, where)


_READERS = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _tsv,
    **dict.fromkeys(_TEXT_FILES, _lines),
}  # fmt: skip


def _folder(path: Path) -> Iterator[Record]:
    try:
        found = (p for p in path.rglob("*") if p.suffix.lower() in _TEXT_FILES)
        files = sorted(p for p in found if p.is_file())
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
    if not files:
        raise InputError(f"`{path}` holds no text files ({', '.join(_TEXT_FILES)})")
    for file in files:
        text = _decode(_bytes(file), str(file))
        yield {"id": file.relative_to(path).as_posix(), "content": text}


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: first_stage_score is not a number: {text!r}") from None


def _checked(value: Any, where: str) -> Record:
    if isinstance(value, str):
        return {"content": value}
    if not isinstance(value, dict):
        raise InputError(f"{where}: a document must be a text, or an object with a content or text")
    key = next((k for k in ("content", "text") if value.get(k) is not None), None)
    if key is None:
        raise InputError(f"{where}: the document has neither content nor text")
    if not isinstance(value[key], str):
        raise InputError(f"{where}: {key} is not a string")
    score = value.get("first_stage_score")
    if score is not None and not _is_finite(score):
        raise InputError(f"{where}: first_stage_score is not a number: {str(score)[:40]!r}")
    return value


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False
