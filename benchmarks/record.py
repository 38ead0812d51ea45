"""What every result says of itself: the command, the commit, the machine and the versions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError
from erank_lite.machine.hardware import probe
from erank_lite.version import __version__

METRICS_VERSION = 1
"""Raised when the meaning of a figure changes, so that older results are not set beside newer."""

RECORDS = "records"
"""Folder of the records, in the folder of all that a command makes."""

_PACKAGES = (
    "llama-cpp-python", "torch", "transformers", "gptqmodel", "bm25s", "ir-measures", "numpy",
)  # fmt: skip

# A list of nothing but numbers, as json spreads it over lines; in a text a line break is escaped.
_NUMBERS = re.compile(r"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")

Record = dict[str, Any]


def record(kind: str, command: str, **payload: Any) -> Record:
    """Return a result with what it needs to be judged by a stranger.

    Args:
        kind: what it is: "quality", "fidelity", "speed" or "growth".
        command: what was typed to get it (`command_line`).
        payload: the figures.
    """
    return {
        "kind": kind,
        "metrics_version": METRICS_VERSION,
        "command": command,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(_PACKAGES),
        **payload,
    }


def command_line(arguments: Sequence[str] | None = None) -> str:
    """Return the command as it was typed, paths cut to their last part: a result travels."""
    words = list(sys.argv if arguments is None else arguments)
    return shlex.join([Path(words[0]).name, *map(_short, words[1:])]) if words else ""


def _short(word: str) -> str:
    parts = re.split(r"([,=])", word)
    return "".join(Path(part).name if Path(part).is_absolute() else part for part in parts)


def machine() -> dict[str, Any]:
    """Return the facts of this machine that speed and memory depend on; memory in bytes."""
    found = probe()
    return {
        "system": found.system,
        "processor": found.processor,
        "cores": found.cores,
        "memory": found.memory_total,
        "gpus": [gpu.name for gpu in found.gpus],
    }


def commit() -> str:
    """Return the commit that runs, with "+" where files differ from it; else the version."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A copy installed below somebody's repository is not that repository's.
        if git("ls-files", "--error-unmatch", "record.py") != "record.py":
            return f"{__version__}, installed"
        changed = git("status", "--porcelain", "--untracked-files=no", ":/")
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return f"{__version__}, installed"


def write_json(path: Path, value: Any) -> None:
    """Write `value` beside `path` and rename it, so that no reader meets half a file.

    Raises:
        InputError: the place cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=1, ensure_ascii=False)
        beside.write_text(_NUMBERS.sub(_in_one_line, text) + "\n", "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _in_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def file_name(text: str) -> str:
    """Return a name for a file; two labels that differ only in signs differ in a short hash."""
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip("-.")
    short = "" if plain == text else hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{plain[:80]}-{short}".rstrip("-")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
