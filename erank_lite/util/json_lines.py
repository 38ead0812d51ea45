"""JSON that stays on its line, whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_LINE_ENDS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def fault(error: ValueError | RecursionError) -> str:
    """Return what is wrong with a text that `json.loads` refused.

    Example:
        >>> try:
        ...     json.loads('{"a": }')
        ... except ValueError as error:
        ...     fault(error)
        'Expecting value'
    """
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deep" if isinstance(error, RecursionError) else "a number too long to read"


def json_line(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as one line of JSON; NaN and infinities, which JSON lacks, are null.

    Other characters than ASCII stay as they are, except those that end a line for many programs,
    Python's `str.splitlines` among them.

    Args:
        value: of the types that JSON has.
        default: makes one of these types of what is of another.

    Example:
        >>> print(json_line({"a": "é\u2028", "b": float("inf")}))
        {"a": "é\\u2028", "b": null}
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, default=default)
    for end, escape in _LINE_ENDS.items():
        text = text.replace(end, escape)
    return text


def finite(value: Any) -> Any:
    """Return a value of JSON's types with null in place of NaN and infinities, which JSON lacks."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
