"""The examples in docstrings give what they say. Their model is erank-tiny."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "erank_lite": "erank_lite",
    "convert": "erank_lite.convert",
    "benchmarks": "erank_lite.benchmarks",
}


def _modules() -> list[str]:
    """Return the names of all modules with an example."""
    found = []
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                found.append(".".join((package, *(p for p in parts if p != "__init__"))))
    return found


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, in which erank-tiny is converted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERANK_LITE_CACHE", str(tmp_path_factory.getbasetemp() / "examples"))
        yield


@pytest.mark.parametrize("name", _modules())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the files that examples write belong
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("erank_lite"):
            raise
        pytest.skip(f"{error.name} is not installed")
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried, f"{name} has examples that doctest does not find"
    assert not failed
