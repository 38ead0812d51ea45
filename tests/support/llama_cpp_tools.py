"""llama.cpp's own programs, which the comparisons with them run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def tool(variable: str, name: str) -> Path:
    """Return what `variable` of the environment names, or skip the test."""
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} names no {name} (see this file's beginning)")
    return Path(found)
