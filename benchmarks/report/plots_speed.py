"""Plots of speed: each way beside the others, and what grows with the work."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.canvas import (
    GRID,
    INK,
    MAIN,
    Plot,
    canvas,
    line_style,
    names_at_rows,
    title,
    write,
)
from erank_lite.benchmarks.report.labels import label_lines
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.tables import ceilings, ours_of, ratio, speed_caption
from erank_lite.benchmarks.report.wording import rate

_CUT = 1.8  # a bar longer than so many times erank-lite's and the ceiling is cut
_OURS, _OTHERS = "#86b9d8", "#9aa3ad"


def speed_plot(record: Record, suffix: str) -> Plot | None:
    """Return the bars of one speed record, or None where nothing in it was measured."""
    found = [
        (way["name"], float(pace))
        for way in record.data["ways"]
        if (pace := way.get("documents_per_second")) is not None
    ]
    if not found:
        return None
    ours = ours_of(record)
    found.sort(key=lambda way: -way[1])
    tops = ceilings(record)
    top = max((pace for _, pace, _ in tops), default=0.0)
    most = _CUT * max(ours or 0.0, top) or max(pace for _, pace in found)
    longest = min(max(top, *(pace for _, pace in found)), most)
    figure, axes = canvas(1.5 + 0.46 * len(found))
    ax = axes[0, 0]
    title(ax, record.data["model"], "documents per second")
    for row, (name, pace) in enumerate(found):
        colour = (
            MAIN if name == "erank-lite" else _OURS if name.startswith("erank-lite") else _OTHERS
        )
        cut = pace > most
        ax.barh(row, min(pace, longest), height=0.62, color=colour)
        if cut:  # a gap in the bar says that it goes on
            ax.barh(row, 0.02 * longest, left=0.9 * longest, height=0.7, color=ax.get_facecolor())
        beside = "" if name == "erank-lite" or not ours else f" · {ratio(pace, ours)}"
        note = " (bar cut)" if cut else ""
        write(ax, rate(pace) + beside + note, (min(pace, longest), row), xytext=(6, 0))
    names_at_rows(ax, [name for name, _ in found])
    ax.set_xlim(0, (1.85 if found[0][1] > most else 1.42) * longest or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    told = "; ".join(f"{n}: {rate(p)} documents/s, {ratio(p, ours)}" for n, p in found)
    alt = f"{speed_caption(record)}. {told}"
    for n, (name, pace, _) in enumerate(sorted(tops, key=lambda found: found[1])):
        height = 0.55 * (n - len(tops) + 1) - 0.75
        ax.axvline(pace, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        ax.set_ylim(len(found) - 0.5, -1.0 - 0.55 * (len(tops) - 1))
        write(ax, f"{name} {rate(pace)}", (pace, height), xytext=(5, 0))
        alt += f"; {name}: {rate(pace)} documents/s"
    return Plot(f"speed{suffix}.png", "Speed by engine", f"{alt}.", figure, (record,))


def growth_plot(records: Sequence[Record], suffix: str) -> Plot | None:
    """Return speed and memory along one axis, a line for each record."""
    drawn = [record for record in records if record.data["points"]]
    if not drawn:
        return None
    axis = wording.one_line(drawn[0].data["axis"])
    figure, axes = canvas(4.6, 2, 1, sharex=True)
    speed, memory = axes[:, 0]
    title(speed, "Documents per second")
    title(memory, "Peak memory, GiB", axis)
    told = []
    ends: tuple[list[tuple[float, float, str, str]], ...] = ([], [])
    tops = [0.0, 0.0]
    for n, record in enumerate(drawn):
        points = sorted(record.data["points"], key=lambda p: p["x"])
        model = wording.one_line(record.data["model"])
        style = line_style(n)
        paces = [(p["x"], p["documents_per_second"]) for p in points]
        peaks = [(p["x"], p["peak_memory"] / 2**30) for p in points if p.get("peak_memory")]
        for i, (ax, values) in enumerate(zip((speed, memory), (paces, peaks), strict=True)):
            if values:
                ax.plot(*zip(*values, strict=True), linewidth=1.8, markersize=6, **style)
                ends[i].append((*values[-1], model, style["color"]))
                tops[i] = max(tops[i], *(y for _, y in values))
        told.append(
            f"{model}: {rate(paces[0][1])} documents/s at {paces[0][0]:,g} and "
            f"{rate(paces[-1][1])} at {paces[-1][0]:,g}"
        )
    x = sorted({p["x"] for record in drawn for p in record.data["points"]})
    if x[0] > 0 and x[-1] / x[0] > 20:
        speed.set_xscale("log")
    speed.set_xticks(x if len(x) <= 6 else x[:: -(-len(x) // 6)])
    speed.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    speed.xaxis.set_minor_formatter(lambda *_: "")
    for ax, each, top in zip((speed, memory), ends, tops, strict=True):
        ax.set_ylim(0, 1.15 * top or 1.0)
        ax.spines["bottom"].set(visible=True, color=GRID)
        if len(drawn) > 1:
            label_lines(ax, [end[:3] for end in each], [end[3] for end in each], 0.14)
    if len(drawn) == 1:
        title(speed, f"Documents per second, {drawn[0].data['model']}")
    alt = f"Documents per second and peak memory as {axis} grow. {'; '.join(told)}."
    return Plot(f"growth{suffix}.png", f"As {axis} grow", alt, figure, tuple(drawn))
