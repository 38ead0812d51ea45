"""Documents from files, folders and standard input."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError

Record = dict[str, Any]
_TEXT_FILES = (".txt", ".md", ".rst", ".text")


def read_documents(sources: Sequence[str]) -> list[Record]:
    """Return the records of all sources, in order, each with its own keys as they were found.

    Raises:
        InputError: a source cannot be read, or a record in it cannot be used; the message names the
            file and the line.
    """
    return [record for source in sources for record in _read(source)]


def content_of(record: Record) -> str:
    """Return the document's text: `content`, or else `text`."""
    text: str = record["content"] if "content" in record else record["text"]
    return text


def _read(source: str) -> Iterator[Record]:
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed")
        yield from _by_look("standard input", _decode(sys.stdin.buffer.read(), "standard input"))
        return
    path = Path(source)
    try:
        folder = path.is_dir()
    except OSError as error:
        raise InputError(f"`{source[:200]}` cannot be read: {error.strerror}") from None
    if folder:
        yield from _folder(path)
        return
    text = _decode(_bytes(path), source)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(source, text)
    elif suffix == ".json":
        yield from _json(source, text)
    elif suffix in (".csv", ".tsv"):
        yield from _table(source, text, "\t" if suffix == ".tsv" else ",")
    else:
        yield from _lines(source, text)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file or folder `{path}`") from None
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None


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
    return _json_lines(name, text) if text.lstrip()[:1] == "{" else _lines(name, text)


def _lines(name: str, text: str) -> Iterator[Record]:
    # Only line feeds end a line: str.splitlines would also cut at form feeds and U+2028.
    for line in text.split("\n"):
        if line.strip():
            yield {"content": line.rstrip("\r")}


def _json_lines(name: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise InputError(f"{name}, line {number}: not valid JSON ({reason})") from None
            yield _checked(value, f"{name}, line {number}")


def _json(name: str, text: str) -> Iterator[Record]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid JSON ({error})") from None
    if not isinstance(value, list):
        raise InputError(
            f"{name}: a .json file must hold a list",
            "end the name in .jsonl if each line is a document",
        )
    for number, item in enumerate(value):
        yield _checked(item, f"{name}, item {number}")


def _table(name: str, text: str, separator: str) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = rows.fieldnames or []
    except csv.Error as error:
        raise InputError(f"{name}, line 1: {error}") from None
    if not {"content", "text"} & set(columns):
        raise InputError(
            f"{name}: no column is named content or text",
            f"its columns are {', '.join(columns)}; rename one" if columns else "it is empty",
        )
    try:
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: it has more or fewer fields than the header")
            record: Record = dict(row)
            score = record.get("first_stage_score")
            if score is not None:
                record["first_stage_score"] = _number(score, where) if score.strip() else None
            yield _checked(record, where)
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.reader.line_num}: {error}") from None


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
    if not isinstance(value, dict):
        raise InputError(f"{where}: a document must be an object with a content or text")
    key = next((k for k in ("content", "text") if k in value), None)
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
