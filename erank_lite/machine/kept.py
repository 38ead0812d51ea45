"""Facts of this machine that took time to find: small files of the cache, in JSON."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from erank_lite.errors import ErankLiteError
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.files import atomic, locked

_log = logging.getLogger(__name__)
_VERSION = 1
_MOST = 64  # entries of a file, the last

Entry = dict[str, Any]


def kept(file: str) -> list[Entry]:
    """Return what a file of the cache holds, each with all that it depends on under "key".

    What cannot be read, or was written by another version, is as nothing.
    """
    try:
        found = json.loads((cache_folder() / file).read_text("utf-8"))
        entries = found["entries"] if found["version"] == _VERSION else []
        return [entry for entry in entries if isinstance(entry["key"], dict)]
    except (ErankLiteError, OSError, ValueError, KeyError, TypeError):
        return []


def keep(file: str, key: Mapping[str, Any], make: Callable[[Entry], Entry]) -> None:
    """Put an entry into a file of the cache, in place of the one of the same key.

    Args:
        file: its name.
        key: all that the entry depends on.
        make: from the one that is there, or {}, to the new one.
    """
    # Where the cache cannot be written, nothing is kept, and nothing is lost but time.
    try:
        path = cache_folder() / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path), contextlib.suppress(KeyError, TypeError, ValueError):
            others = [entry for entry in kept(file) if entry["key"] != key]
            old = next((entry for entry in kept(file) if entry["key"] == key), {})
            entries = [*others, {**make(old), "key": dict(key)}][-_MOST:]
            with atomic(path) as partial:
                text = json.dumps({"version": _VERSION, "entries": entries}, indent=1)
                partial.write_text(text, "utf-8")
    except (ErankLiteError, OSError) as error:
        _log.debug("`%s` is not kept: %s", file, error)
