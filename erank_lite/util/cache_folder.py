"""Where the user's cache is."""

from __future__ import annotations

import os
from pathlib import Path

from erank_lite.errors import ModelError


def cache_folder() -> Path:
    """Return the cache's folder: ERANK_LITE_CACHE, or the one that the system has for caches.

    Raises:
        ModelError: there is none, since this user has no home.
    """
    from platformdirs import user_cache_path

    named = os.environ.get("ERANK_LITE_CACHE")
    try:
        return Path(named).expanduser() if named else user_cache_path("erank-lite", appauthor=False)
    except RuntimeError:
        why = f"ERANK_LITE_CACHE is `{named}`, a home" if named else "this user has no home"
        raise ModelError(
            f"there is no folder for the cache: {why}{' that is not there' if named else ''}",
            "set ERANK_LITE_CACHE to a folder for downloads and converted files",
        ) from None
