"""What a record must hold to be shown, by its kind; what is not named here may be missing or more.

A schema is `str`, `bool`, `float` (any finite number), `int` or `object` (anything), a tuple of one
(it may be null or missing), a dict of keys, a list of one (any number of such), or `Named` of one
(keys are names).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erank_lite.errors import InputError


@dataclass(frozen=True)
class Named:
    """A dict whose keys are names, with values of one schema."""

    each: Any


_MEASURES = Named(float)
_COMMON = {
    "metrics_version": int, "command": str, "commit": str, "date": str, "versions": Named(str),
    "machine": {
        "system": str, "processor": (str,), "cores": (int,), "memory": (float,), "gpus": [str],
    },
}  # fmt: skip
_RUN = {
    "name": str, "ran": str, "size": (float,), "floor": (bool,), "same": float,
    "difference": float, "difference_95": (float,), "tau": (float,), "rbo": (float,),
    "top_10": (float,), "nDCG@10": float, "change": float, "interval": [float],
    "forced": (float,), "failed": (float,), "tokens": (float,), "kl": (float,), "kl_95": (float,),
    "same_answer": (float,), "documents_per_second": (float,), "scatter": [[float]],
}  # fmt: skip
_WAY = {
    "name": str, "what": (str,), "documents_per_second": (float,), "tokens_per_second": (float,),
    "first_result": (float,), "last_result": (float,), "peak_memory": (float,),
}  # fmt: skip
_CEILING = {"what": (str,), "documents_per_second": float}
SCHEMAS: dict[str, dict[str, Any]] = {
    "quality": {
        "model": str, "ran": str, "size": (float,), "collection": str, "queries": int,
        "documents": int, "depth": (int,), "first_stage": (str,), "thinking": (object,),
        "truncate_length": (int,), "measures": {
            "first stage": (_MEASURES,), "reranked": _MEASURES, "hybrid": (Named(_MEASURES),),
        },
        "published": (_MEASURES,), "failed": (float,), "forced": (float,), "tokens": (float,),
        "documents_per_second": (float,),
    },
    "fidelity": {
        "collection": str, "queries": int, "documents": int, "thinking": (object,),
        "reference": {
            "name": str, "ran": str, "size": (float,), "nDCG@10": float,
            "documents_per_second": (float,),
        },
        "runs": [_RUN],
    },
    "speed": {
        "model": str,
        "work": {"documents": int, "shared": int, "own": int, "tokens": int, "sequences": (int,)},
        "ways": [_WAY],
        "ceiling": (_CEILING,), "practical_ceiling": (_CEILING,), "notes": ([str],),
        "machine_rates": ({"gflops": (float,), "gigabytes_per_second": (float,)},),
    },
    "growth": {
        "model": str, "axis": str,
        "points": [{"x": float, "documents_per_second": float, "peak_memory": (float,)}],
    },
}  # fmt: skip
_NAMES = {str: "text", bool: "true or false", float: "a number", int: "a whole number"}


def check(data: Mapping[str, Any], kind: str, name: str) -> None:
    """Check that a record of `kind` from the file `name` holds what it needs.

    Raises:
        InputError: it lacks a key, or the key holds something else; the file and key are named.
    """
    _check(data, _COMMON | SCHEMAS[kind], f"{name} ({kind})", "")
    if kind == "fidelity":
        for i, run in enumerate(data["runs"]):
            _lengths(run["interval"], 2, name, f"runs[{i}].interval")
            for j, point in enumerate(run["scatter"]):
                _lengths(point, 2, name, f"runs[{i}].scatter[{j}]")
    elif kind == "quality":
        for alpha in data["measures"].get("hybrid") or {}:
            if not re.fullmatch(r"0|0?\.\d+|0\.|1|1\.0*", alpha):
                where = f"{name} (quality): measures.hybrid"
                raise InputError(f"{where}: {alpha!r} is no alpha, a number from 0 to 1")


def _lengths(found: list[Any], wanted: int, name: str, key: str) -> None:
    if len(found) != wanted:
        raise InputError(f"{name} (fidelity): {key} must hold {wanted} numbers, not {len(found)}")


def _check(value: Any, schema: Any, name: str, key: str) -> None:
    if isinstance(schema, tuple):
        if value is not None:
            _check(value, schema[0], name, key)
    elif isinstance(schema, dict | Named):
        if not isinstance(value, dict):
            raise InputError(f"{name}: {key} must be an object, not {_shown(value)}")
        parts = schema if isinstance(schema, dict) else dict.fromkeys(value, schema.each)
        for part, each in parts.items():
            inner = f"{key}.{part}" if key else part
            if part not in value and not isinstance(each, tuple):
                raise InputError(f"{name}: the key {inner} is missing")
            _check(value.get(part), each, name, inner)
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise InputError(f"{name}: {key} must be a list, not {_shown(value)}")
        for i, item in enumerate(value):
            _check(item, schema[0], name, f"{key}[{i}]")
    elif not _is(value, schema):
        raise InputError(f"{name}: {key} must be {_NAMES[schema]}, not {_shown(value)}")


def _is(value: Any, schema: type) -> bool:
    if schema in (float, int):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        try:
            return math.isfinite(value) and (schema is float or value == int(value))
        except OverflowError:
            return False
    return isinstance(value, schema)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
