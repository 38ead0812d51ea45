"""Numbers and names as people read them; None is a dash."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from erank_lite.convert.estimate import amount
from erank_lite.machine.planning import gib

NONE = "–"


def size(value: float | None) -> str:
    """Return the bytes of a file."""
    return NONE if value is None else amount(int(value))


def memory(value: float | None) -> str:
    """Return bytes of memory."""
    if value is None:
        return NONE
    return gib(int(value)) if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def percent(value: float | None) -> str:
    """Return a share."""
    return NONE if value is None else f"{100 * value:.1f} %"


def decimals(value: float | None, places: int = 3) -> str:
    """Return a measure between 0 and 1, or a score."""
    return NONE if value is None else f"{value:.{places}f}"


def signed(value: float, places: int = 3) -> str:
    """Return a change, with its sign."""
    text = f"{value:+.{places}f}".replace("-", "−")
    return text if float(f"{value:.{places}f}") else f"±{0:.{places}f}"


def interval(low: float, high: float) -> str:
    """Return both ends of an interval of changes."""
    return f"{signed(low)} to {signed(high)}"


def rate(value: float | None) -> str:
    """Return something per second, or seconds: three digits, more for large numbers."""
    if value is None:
        return NONE
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def count(value: float | None) -> str:
    """Return a whole number, or one decimal where it is none."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"


def one_line(text: object) -> str:
    """Return a text without line breaks and control characters."""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(printable.split())


def listed(parts: Sequence[str], last: str = "and") -> str:
    """Return parts of a sentence: a, b and c."""
    return f" {last} ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def machine(found: Mapping[str, Any]) -> str:
    """Return a machine in a line."""
    parts = [found["system"], found.get("processor")]
    cores = found.get("cores")
    if cores:
        parts.append(f"{cores} core{'s' * (cores != 1)}")
    if found.get("memory"):
        parts.append(gib(int(found["memory"])))
    parts.append(" and ".join(found["gpus"]) or "no GPU")
    return one_line(", ".join(str(part) for part in parts if part and part != "?"))


def thinking(found: object) -> str:
    """Return how much a model might think."""
    if found in (None, "full"):
        return "full reasoning"
    return "no reasoning" if found == "none" else f"at most {one_line(found)} tokens of reasoning"


def counted(value: float, one: str, many: str = "") -> str:
    """Return so many of something."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def compared(documents: int, queries: int) -> str:
    """Return how much was compared."""
    return f"{counted(documents, 'document')} of {counted(queries, 'query', 'queries')}"


_KIND = r"(?:BF16|F16|F32|I?Q\d\w*|GPTQ)(?![A-Za-z0-9])"


def parts(name: str) -> tuple[str, str]:
    """Return the model that a name begins with, and the rest of it.

    Names are `OWNER/MODEL:TYPE, option=value`, or a file or folder `…/MODEL-TYPE+matrix.gguf`,
    `…/MODEL-GPTQ-4bit`.
    """
    if "://" in name:
        return one_line(name), ""
    place, *after = re.split("[:,]", name, maxsplit=1)
    last = (place.rstrip("/").rpartition("/")[2] or place).removesuffix(".gguf")
    found = re.fullmatch(rf"(.+?)-({_KIND}.*)", last, re.DOTALL)
    model, kind = found.groups() if found else (last, "")
    rest = ", ".join(filter(None, map(one_line, (kind, *after))))
    return one_line(model) or one_line(name), rest


def model_of(name: str) -> str:
    """Return the model that a name begins with; see `parts`."""
    return parts(name)[0]


def short_names(names: Sequence[str], model: str | None = None) -> dict[str, str]:
    """Return names without the model that they begin with, where that leaves them apart.

    Args:
        model: to be left out; None means the one of all names, if they have the same.
    """
    models = {model_of(name) for name in names}
    model = model or (models.pop() if len(models) == 1 else None)
    short = {}
    for name in names:
        own, rest = parts(name)
        short[name] = rest if rest and own == model else one_line(name)
    shared = Counter(short.values())
    return {name: text if shared[text] == 1 else one_line(name) for name, text in short.items()}


def type_of(name: str) -> str | None:
    """Return the type of weights that a name tells, such as Q4_K_M, or Q4_K_M+own by a matrix."""
    found = re.search(r"(?<![A-Za-z0-9])(?:BF16|F16|F32|I?Q\d\w*)(?![A-Za-z0-9])(?:\+\w+)?", name)
    return found[0] if found else None
