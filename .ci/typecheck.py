"""Check types with mypy as the package is laid out once it is installed.

`convert/` and `benchmarks/` lie beside `erank_lite/` in the repository and inside it in an
installation, which mypy does not see in an editable one. Needed is Python 3.11 or newer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def source(package: str) -> Path:
    """Return the folder of a package in the repository.

    Example:
        >>> source("erank_lite.convert.gguf").relative_to(ROOT).as_posix()
        'convert/gguf'
    """
    for name, folder in SETUPTOOLS["package-dir"].items():
        if f"{package}.".startswith(f"{name}."):
            return ROOT / folder / package[len(name) + 1 :].replace(".", "/")
    return ROOT / package.replace(".", "/")


def main() -> int:
    """Lay the packages out in a temporary folder, run mypy there, and return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        for package in SETUPTOOLS["packages"]:
            made = Path(folder, package.replace(".", "/"))
            made.mkdir(parents=True, exist_ok=True)
            for file in source(package).glob("*.py*"):
                shutil.copy(file, made)
        options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
        return subprocess.run([sys.executable, "-m", "mypy", *options], cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
