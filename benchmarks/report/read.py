"""Records read from JSON files, and checked: a mistake names the file and the key."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from erank_lite.benchmarks.record import RECORDS, Variant
from erank_lite.benchmarks.report.records import KINDS, WITHOUT_SECTION, Record
from erank_lite.errors import InputError
from erank_lite.util.files import name_like

log = logging.getLogger(__name__)


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
            here, others = _read_folder(source)
            if not here:
                here, more = _read_folder(source / RECORDS)
                others += more
            passed_over += others
        elif source.exists():
            here = {source: _read_json(source)}
        else:
            raise InputError(f"there is no file or folder `{source}`", name_like(source))
        for path, data in here.items():
            if path.resolve() not in found:
                found[path.resolve()] = from_dict(data, str(path))
    if not found:
        where = ", ".join(f"`{source}`" for source in given) or "no file"
        counted = f" ({passed_over} other files there)" * bool(passed_over)
        raise InputError(
            f"there is no record in {where}{counted}",
            "give JSON files that the benchmarks wrote, or a folder of them",
        )
    return list(found.values())


def _read_folder(folder: Path) -> tuple[dict[Path, Any], int]:
    """Return what the folder's own records hold that a report shows, and how many others it has."""
    found: dict[Path, Any] = {}
    passed_over = 0
    for path in sorted(file for file in folder.glob("*.json") if file.is_file()):
        try:
            data = _read_json(path)
        except InputError as error:
            log.warning("%s: passed over", error)
            data = None
        if isinstance(data, dict) and "kind" in data and data["kind"] not in WITHOUT_SECTION:
            found[path] = data
        else:
            passed_over += 1
    return found, passed_over


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "its text"
        raise InputError(f"`{path}` is not JSON: {where} cannot be read") from None
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None


def from_dict(data: Any, file: str) -> Record:
    """Return what the JSON of a file holds, as the class of its kind.

    Raises:
        InputError: it is not a record, or a key is missing or holds something else.
    """
    if not isinstance(data, dict) or "kind" not in data:
        raise InputError(f"`{file}` is not a record: it has no kind ({', '.join(KINDS)})")
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"`{file}`: there is no kind {kind!r}, only {', '.join(KINDS)}")
    key = _Key(f"`{file}` ({kind})")
    found = _object(KINDS[kind], data | {"file": Path(file).name, "data": data}, key)
    assert isinstance(found, Record)
    return found


@dataclass(frozen=True)
class _Key:
    """What stands somewhere in a file."""

    file: str
    path: str = ""

    def at(self, part: str | int) -> _Key:
        inner = f"[{part}]" if isinstance(part, int) else f".{part}" if self.path else part
        return _Key(self.file, self.path + inner)

    def must(self, wanted: str, value: object = None) -> InputError:
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"
        return InputError(f"{self.file}: {self.path} must {wanted}, not {shown}")


def _value(wanted: Any, value: Any, key: _Key) -> Any:
    """Return `value`, from JSON, as the type `wanted`: a number, a dataclass, a tuple, a mapping.

    Raises:
        InputError: it is something else.
    """
    kind, inner = get_origin(wanted) or wanted, get_args(wanted)
    if kind is UnionType:  # with None
        return None if value is None else _value(inner[0], value, key)
    if kind is tuple:
        if not isinstance(value, list):
            raise key.must("be a list", value)
        if inner[-1] is not ... and len(value) != len(inner):
            raise key.must(f"hold {len(inner)} numbers", len(value))
        return tuple(_value(inner[0], item, key.at(n)) for n, item in enumerate(value))
    if kind is Mapping or dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise key.must("be an object", value)
        if kind is not Mapping:
            return _object(wanted, value, key)
        return {_name(inner[0], k, key): _value(inner[1], v, key.at(k)) for k, v in value.items()}
    if kind in _WORDS and not _is(kind, value):
        raise key.must(f"be {_WORDS[kind]}", value)
    return value


_WORDS = {str: "text", bool: "true or false", float: "a number", int: "a whole number"}


def _is(kind: type, value: Any) -> bool:
    if kind in (str, bool):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and (kind is float or value == int(value))
    except OverflowError:
        return False


def _object(wanted: Any, value: Mapping[str, Any], key: _Key) -> Any:
    hints, found = get_type_hints(wanted), {}
    for each in dataclasses.fields(wanted):
        name = each.metadata.get("key", each.name)
        optional = each.default is not MISSING or each.default_factory is not MISSING
        if each.name == "variant" and name not in value:
            label = value.get("model", value.get("name"))  # a record from before it had the key
            found[each.name] = Variant.from_label(str(label))
        elif name not in value and not optional:
            raise InputError(f"{key.file}: the key {key.at(name).path} is missing")
        elif value.get(name) is not None or not optional:
            found[each.name] = _value(hints[each.name], value[name], key.at(name))
    return wanted(**found)


def _name(wanted: type, name: str, key: _Key) -> Any:
    """Return a name in an object: of the hybrids it is an alpha."""
    if wanted is str:
        return name
    try:
        alpha = float(name)
    except ValueError:
        alpha = math.nan
    if not 0 <= alpha <= 1:
        where = f"{key.file}: {key.path}"
        raise InputError(f"{where}: {name!r} is not an alpha, a number from 0 to 1")
    return alpha
