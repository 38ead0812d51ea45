"""What every result of a benchmark says of itself, so that a stranger can judge and repeat it.

A record is a JSON object: the header that `record` makes, and the figures of its kind. What the
report reads of them is typed in `erank_lite.benchmarks.report.records`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from erank_lite.machine.hardware import probe
from erank_lite.version import __version__

METRICS_VERSION = 1
"""Raised when the meaning of a figure changes, so that older results are not set beside newer."""

RECORDS = "records"
"""Folder of the records, in the folder of all that a command makes."""

_PACKAGES = (
    "llama-cpp-python", "torch", "transformers", "gptqmodel", "bm25s", "ir-measures", "numpy",
)  # fmt: skip

Record = dict[str, Any]


def record(kind: str, command: str, **figures: Any) -> Record:
    """Return the figures of a benchmark under a header that says how they came about.

    Args:
        kind: one of `erank_lite.benchmarks.report.records.KINDS` or `WITHOUT_SECTION`.
        command: what was typed to get them (`command_line`).
        figures: by their keys in the record.
    """
    return {
        "kind": kind,
        "metrics_version": METRICS_VERSION,
        "command": command,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(_PACKAGES),
        **figures,
    }


def command_line(arguments: Sequence[str] | None = None) -> str:
    """Return the command as it was typed, paths cut to their last part: a result travels.

    Example:
        >>> command_line(["/usr/bin/erank-lite", "eval", "--out=/data/results"])
        'erank-lite eval --out=results'
    """
    words = list(sys.argv if arguments is None else arguments)
    return shlex.join([Path(words[0]).name, *map(_without_folders, words[1:])]) if words else ""


def _without_folders(word: str) -> str:
    parts = re.split(r"([,=])", word)
    return "".join(Path(part).name if Path(part).is_absolute() else part for part in parts)


def machine() -> dict[str, Any]:
    """Return the facts of this machine that speed and memory depend on; memory in bytes."""
    found = probe()
    return {
        "system": found.system,
        "processor": found.cpu,
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


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass(frozen=True)
class Variant:
    """Which of a model's files was measured, in parts; a record holds it beside the label.

    Attributes:
        model: without owner and type, such as "ERank-4B".
        name: what tells it from the model's other files and settings, such as "Q4_K_M+own" or
            "Q8_0, sequences=5".
        type: the GGUF type or number format of the weights, such as "Q4_K_M"; None if unknown.
        imatrix: the importance matrix that it was quantized with, by its name.
    """

    model: str
    name: str = ""
    type: str | None = None
    imatrix: str | None = None

    @classmethod
    def from_label(cls, label: str) -> Variant:
        """Take apart what people call a file: this is the only place that does.

        Args:
            label: `OWNER/MODEL:TYPE, option=value`, the address of a server, or a file or folder
                `…/MODEL-TYPE+imatrix.gguf`, `…/MODEL-GPTQ-4bit`.

        Example:
            >>> Variant.from_label("files/erank-tiny-Q4_K_M+own.gguf")
            Variant(model='erank-tiny', name='Q4_K_M+own', type='Q4_K_M', imatrix='own')
        """
        if "://" in label:
            return cls(one_line(label))
        path, *options = re.split("[:,]", label, maxsplit=1)
        file = (path.rstrip("/").rpartition("/")[2] or path).removesuffix(".gguf")
        parts = re.fullmatch(rf"(.+?)-((?:{_TYPE}|GPTQ)(?![A-Za-z0-9]).*)", file, re.DOTALL)
        model, kind = parts.groups() if parts else (file, "")
        name = ", ".join(filter(None, map(one_line, (kind, *options))))
        found = re.search(rf"(?<![A-Za-z0-9])({_TYPE})(?![A-Za-z0-9])(?:\+(\w+))?", label)
        return cls(one_line(model) or one_line(label), name, *(found.groups() if found else ()))


_TYPE = r"(?:BF16|F16|F32|I?Q\d\w*)"


def one_line(text: object) -> str:
    """Return a text without line breaks and control characters."""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(printable.split())
