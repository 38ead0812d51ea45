"""The plot of an effort record: how near each way comes to full reasoning, by what it costs."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from erank_lite.benchmarks.record import Record
from erank_lite.benchmarks.report import style

_LINES = {
    "first N of the first stage": "of the first stage",
    "best N of the first pass": "of the first pass",
    "best N after a glance": "of a glance",
    "all, cut at N tokens": "cut at",
}
"""The name of each line, and what the names of its ways have in common."""


def draw(record: Record) -> Figure:
    """Return the figure of an effort record."""
    figure, axes = style.canvas(4.2)
    ax = axes[0, 0]
    style.title(
        ax,
        f"{record['model']} on {record['collection']}",
        "cost, of full reasoning about all documents",
        "self-nDCG@10",
    )
    for number, (name, part) in enumerate(_LINES.items()):
        points = [(row["cost"], row["self_ndcg"]) for row in record["ways"] if part in row["way"]]
        if points:
            _line(ax, sorted(points), name, number)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlim(0, 1.05 * max(1, *(row["cost"] for row in record["ways"])))
    ax.legend(frameon=False, fontsize=style.LABEL, labelcolor=style.INK, loc="lower right")
    return figure


def _line(ax: Any, points: list[tuple[float, float]], name: str, number: int) -> None:
    x, y = zip(*points, strict=True)
    ax.plot(x, y, label=style.label(name), linewidth=1.6, markersize=5, **style.line_style(number))
