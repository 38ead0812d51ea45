"""Options as frozen dataclasses: each field knows what it means and what it may be."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from erank_lite.errors import InputError

_O = TypeVar("_O", bound="Options")
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    Path: "a path",
    tuple: "a list of numbers",
}
_BOOLEANS = {"true": True, "false": False}


def option(
    default: Any, help: str, *, min: float | None = None, max: float | None = None,
    choices: Iterable[str] = (),
) -> Any:  # fmt: skip
    """Return a field of `Options`.

    Args:
        default: its value where none is given; None leaves it to the plan or the engine.
        help: what it means, with its unit.
        min: the least value allowed, of a number or of each in a list; None sets no limit.
        max: the greatest.
        choices: the words allowed.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "min": min, "max": max, "choices": tuple(choices)},
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of a set of options, all of which have defaults.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Oven(Options):
        ...     degrees: int = option(180, "heat, in °C", min=50, max=250)
        >>> Oven.from_values({"degrees": "220"}, "the oven")
        Oven(degrees=220)
        >>> Oven.from_values({"degrees": 900}, "the oven")
        Traceback (most recent call last):
        ...
        erank_lite.errors.InputError: degrees must be between 50 and 250, not 900
    """

    @classmethod
    def from_values(cls: type[_O], values: Mapping[str, Any], owner: str) -> _O:
        """Check and convert values; numbers, booleans and lists may be given as text.

        Args:
            values: option name → value; None is as if it were not given.
            owner: whose options they are, for messages.

        Raises:
            InputError: an option does not exist, is of the wrong type or out of its range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        types = _types(cls)
        given = {}
        for name, value in values.items():
            if name not in fields:
                close = difflib.get_close_matches(name, fields, 1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise InputError(
                    f"{owner} has no option {name}{meant}", f"its options are {', '.join(fields)}"
                )
            if value is None:
                continue  # as if it were not given: callers pass on what they were not told
            limits = fields[name].metadata
            given[name] = _converted(name, value, types[name])
            if isinstance(given[name], str):  # a word may be written in capitals
                words = {choice.lower(): choice for choice in limits["choices"]}
                given[name] = words.get(given[name].lower(), given[name])
            _check_range(name, given[name], limits)
        return cls(**given)


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Return the options in texts of the form `name=value`.

    Raises:
        InputError: a text has no `=`, or a name is given twice.

    Example:
        >>> parse_assignments(["sequences=4", "kv_type=q8_0"])
        {'sequences': '4', 'kv_type': 'q8_0'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise InputError(f"`{text}` is not an option", "write name=value, as in sequences=4")
        if name in found:
            raise InputError(f"the option {name} is given twice", "give it once")
        found[name] = value.strip()
    return found


def _types(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the types that each field may have, None apart."""
    hints = typing.get_type_hints(cls)
    kinds = {name: get_args(hint) if _is_union(hint) else (hint,) for name, hint in hints.items()}
    return {name: tuple(k for k in found if k is not type(None)) for name, found in kinds.items()}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) is not None and get_origin(hint) is not tuple


def _converted(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return _as_type(value, get_origin(kind) or kind)
        except (TypeError, ValueError):
            continue
    words = " or ".join(_WORDS[get_origin(kind) or kind] for kind in kinds)
    raise InputError(f"{name} must be {words}, not {str(value)[:40]!r}")


def _as_type(value: Any, kind: Any) -> Any:
    text = value.strip() if isinstance(value, str) else None
    if kind is bool:
        if isinstance(value, bool):
            return value
        if text is not None and text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        raise TypeError
    if kind is int:
        if text is not None:
            return int(text)
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        raise TypeError
    if kind is float:
        if text is not None:
            return float(text)
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return float(value)
        raise TypeError
    if kind is tuple:
        parts = text.split(",") if text is not None else value
        if not isinstance(parts, list | tuple):
            raise TypeError
        return tuple(_as_type(part, float) for part in parts)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _check_range(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices = limits["choices"]
    if choices and value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    least, greatest = limits["min"], limits["max"]
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float):
            continue
        low = -math.inf if least is None else least
        high = math.inf if greatest is None else greatest
        if not low <= number <= high:
            bounds = f"between {least} and {greatest}"
            if greatest is None:
                bounds = f"at least {least}"
            elif least is None:
                bounds = f"at most {greatest}"
            raise InputError(f"{name} must be {bounds}, not {number}")
