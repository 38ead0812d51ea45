"""The files that benchmarks write: JSON that appears whole or not at all, and file names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from erank_lite.errors import InputError
from erank_lite.util.files import atomic

# A list of nothing but numbers, as json spreads it over lines; in a text a line break is escaped.
_NUMBERS = re.compile(r"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, each list of numbers in one line; missing folders are made.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = _NUMBERS.sub(lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            partial.write_text(f"{text}\n", "utf-8")
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from None


def file_name(label: str) -> str:
    """Return a file name for `label`, with a short hash where characters had to be replaced.

    Example:
        >>> file_name("erank-tiny"), file_name("erank-tiny:Q8_0")
        ('erank-tiny', 'erank-tiny-Q8_0-e1abaa')
    """
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in label).strip("-.")
    short = "" if plain == label else hashlib.blake2b(label.encode(), digest_size=3).hexdigest()
    return f"{plain[:80]}-{short}".rstrip("-")
