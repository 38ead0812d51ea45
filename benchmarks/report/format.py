"""Numbers and names as people read them; None is a dash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from erank_lite.benchmarks.record import Variant, one_line
from erank_lite.benchmarks.report.records import Machine
from erank_lite.util.units import counted, file_size, gib

NONE = "–"


def size(value: float | None) -> str:
    """Return the bytes of a file."""
    return NONE if value is None else file_size(value)


def memory(value: float | None) -> str:
    """Return bytes of memory."""
    if value is None:
        return NONE
    return gib(value) if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return NONE if share is None else f"{100 * share:.1f} %"


def decimals(value: float | None, places: int = 3) -> str:
    """Return a measure between 0 and 1, or a score."""
    return NONE if value is None else f"{value:.{places}f}"


def signed(change: float) -> str:
    """Return a change of a measure, with its sign."""
    text = f"{change:+.3f}".replace("-", "−")
    return text if float(f"{change:.3f}") else "±0.000"


def interval(ends: tuple[float, float]) -> str:
    """Return both ends of an interval of changes."""
    return f"{signed(ends[0])} to {signed(ends[1])}"


def rate(value: float | None) -> str:
    """Return something per second, or seconds: three digits, more for large numbers."""
    if value is None:
        return NONE
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def ratio(rate_: float | None, ours: float | None) -> str:
    """Return a speed as a multiple of erank-lite's."""
    return NONE if rate_ is None or not ours else f"{rate(rate_ / ours)} ×"


def count(value: float | None) -> str:
    """Return a whole number, or one decimal where it is none."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"


def compared(documents: int, queries: int) -> str:
    """Return how much was compared."""
    return f"{counted(documents, 'document')} of {counted(queries, 'query')}"


def listed(parts: Sequence[str], last: str = "and") -> str:
    """Return parts of a sentence: a, b and c."""
    return f" {last} ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def machine(found: Machine) -> str:
    """Return a machine in a line."""
    parts = [found.system, found.processor]
    parts += [counted(found.cores, "core")] if found.cores else []
    parts += [gib(found.memory)] if found.memory else []
    parts.append(" and ".join(found.gpus) or "no GPU")
    return one_line(", ".join(part for part in parts if part and part != "?"))


def thinking(found: object) -> str:
    """Return how much a model might think."""
    if found in (None, "full"):
        return "full reasoning"
    return "no reasoning" if found == "none" else f"at most {one_line(found)} tokens of reasoning"


def short_names(files: Mapping[str, Variant], model: str | None = None) -> dict[str, str]:
    """Return each label without the model that it begins with, where that leaves them apart.

    Args:
        files: by their labels.
        model: to be left out; None means the one of all files, if they have the same.
    """
    models = {file.model for file in files.values()}
    model = model or (models.pop() if len(models) == 1 else None)
    short = {
        label: file.name if file.name and file.model == model else one_line(label)
        for label, file in files.items()
    }
    shared = Counter(short.values())
    return {label: name if shared[name] == 1 else one_line(label) for label, name in short.items()}


def sentence(note: str) -> str:
    """Return a note with a full stop, and a capital where it does not begin with our name.

    Example:
        >>> sentence("erank-lite is faster"), sentence("measured.")
        ('erank-lite is faster.', 'Measured.')
    """
    note = note.rstrip(".") + "."
    return note if note.startswith("erank-") else note[:1].upper() + note[1:]
