"""A server for all real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.serving import KEY, serving


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n")
    with serving("--api-key-file", str(key)) as (found, _):
        yield found


@pytest.fixture(scope="session")
def open_address() -> Iterator[str]:
    """One that asks for no key, for clients that send none."""
    with serving() as (found, _):
        yield found
