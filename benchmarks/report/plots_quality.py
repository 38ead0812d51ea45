"""Plots of quality: against size, and by the weight of the first stage in the hybrid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.canvas import (
    FAINT,
    GRID,
    INK,
    MAIN,
    Plot,
    canvas,
    label,
    line_style,
    panel,
    sizes_at,
    title,
    write,
)
from erank_lite.benchmarks.report.labels import label_points
from erank_lite.benchmarks.report.quality import Group
from erank_lite.benchmarks.report.records import Record

_Sweep: TypeAlias = Sequence[tuple[float, float]]  # alpha and the measure there


def quality_plots(group: Group, suffix: str) -> list[Plot]:
    """Return the plots of one group of quality records."""
    return [plot for plot in (_by_size(group, suffix), _by_alpha(group, suffix)) if plot]


def _by_size(group: Group, suffix: str) -> Plot | None:
    points = [
        _Point(float(record.data["size"]), value, n, record)
        for n, record in enumerate(group.records)
        if (value := group.reranked(record)) is not None and (record.data.get("size") or 0) > 0
    ]
    if not points:
        return None
    figure, axes = canvas(4.0 if len(points) <= _MANY else 5.2)
    ax = axes[0, 0]
    title(ax, group.collection, "size of the file", group.measure)
    sizes = [point.size for point in points]
    left, right = min(sizes) / 1.5, max(sizes) * 1.5
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_xticks([s for s in _NICE if left <= s <= right] or sorted({min(sizes), max(sizes)}))
    sizes_at(ax.xaxis)
    base = group.first_stage()
    published = {
        (point.size, p) for point in points if (p := group.published(point.record)) is not None
    }
    values = [point.value for point in points] + [p for _, p in published]
    values += [base] if base is not None else []
    span = max(values) - min(values) or 0.1
    ax.set_ylim(min(values) - 0.12 * span, max(values) + 0.2 * span)
    if base is not None:
        ax.axhline(base, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        write(ax, f"first stage {base:.3f}", (right, base), xytext=(-4, 8), ha="right",
              color=FAINT)  # fmt: skip
    for x, p in published:
        ax.plot(x, p, "D", color=INK, markersize=8, markerfacecolor="none")
    label_points(ax, [*_series(ax, group, points),
                      *((x, p, f"published {p:.3f}") for x, p in sorted(published))])  # fmt: skip
    told = "; ".join(
        f"{group.labels[p.nth]}, {wording.size(p.size)}: {p.value:.3f}" for p in points
    )
    alt = f"{group.measure} against the file's size, {group.title}. {told}"
    alt += f"; the first stage alone: {base:.3f}." if base is not None else "."
    records = tuple(point.record for point in points)
    return Plot(f"quality-size{suffix}.png", "Quality against size", alt, figure, records)


class _Point(NamedTuple):
    size: float
    value: float
    nth: int
    record: Record


def _series(ax: Any, group: Group, points: list[_Point]) -> list[tuple[float, float, str]]:
    """Draw a line for each way a model was made or run; return the names to write at points.

    Types are named along the first line. The others are named once, at their end, as far as their
    points are of types that the first one names at the same model.
    """
    series: dict[tuple[str, str, str], list[_Point]] = {}
    for point in sorted(points):
        made = wording.parts(point.record.data["model"])
        key = group.settings[point.nth], made[0], _way(made[1])
        series.setdefault(key, []).append(point)
    models = [point.record.data["model"] for point in points]
    names = wording.short_names(models)
    (first_setting, *_), _ = max(series.items(), key=lambda found: len(found[1]))
    named = {
        (model, wording.type_of(point.record.data["model"]))
        for (setting, model, way), line in series.items()
        if setting == first_setting and not way
        for point in line
    }
    figures = len(points) <= _MANY and not any(group.settings)
    marked = []
    for n, ((setting, model, way), line) in enumerate(series.items()):
        style = line_style(n)
        ax.plot(
            [p.size for p in line], [p.value for p in line], linewidth=1.2, markersize=7, **style
        )
        for point in line:
            name = names[point.record.data["model"]]
            plain = (wording.type_of(name) or "").partition("+")[0]
            if (setting != first_setting or way.startswith("+")) and (model, plain) in named:
                name = ", ".join(filter(None, (way, setting))) if point is line[-1] else ""
            elif setting and point is line[-1]:
                name += f", {setting}"
            elif figures:
                name += f" {point.value:.3f}"
            marked.append((point.size, point.value, name))
    return marked


def _way(rest: str) -> str:
    """Return how a file was made, beside its type: "" for a plain one, or such as "+own"."""
    kind = wording.type_of(rest)
    if kind is None or not rest.startswith(kind):
        return "GPTQ" if rest.startswith("GPTQ") else rest
    return (kind[len(kind.partition("+")[0]) :] + rest[len(kind) :]).strip(", ")


_MANY = 12  # points, beyond which their names go without their figures
_NICE = [a * 10**n for n in range(5, 13) for a in (1, 2, 5)]


def _by_alpha(group: Group, suffix: str) -> Plot | None:
    lines = [
        (record, name, points)
        for record, name in zip(group.records, group.labels, strict=True)
        if len(points := group.sweep(record)) > 1
    ]
    if not lines:
        return None
    names = wording.short_names([name for _, name, _ in lines])
    if len(lines) <= _TOGETHER:
        figure = _together(group, {names[name]: points for _, name, points in lines})
    else:
        figure = _apart(group, {names[name]: points for _, name, points in lines})
    told = "; ".join(
        f"{name}: best {max(y for _, y in points):.3f} at alpha "
        f"{max(points, key=lambda p: p[1])[0]:g}, alone {points[0][1]:.3f}"
        for _, name, points in lines
    )
    alt = f"{group.measure} of the hybrid by alpha, {group.title}. {told}."
    records = tuple(record for record, _, _ in lines)
    return Plot(f"alpha{suffix}.png", "The hybrid by alpha", alt, figure, records)


_TOGETHER = 6  # lines, beyond which each gets a plot of its own: they lie on each other


def _together(group: Group, lines: Mapping[str, _Sweep]) -> Figure:
    figure, axes = canvas(4.0 + 0.25 * -(-len(lines) // 2))
    ax = axes[0, 0]
    title(ax, group.collection, _ALPHA, group.measure)
    for n, (name, points) in enumerate(lines.items()):
        style = line_style(n)
        ax.plot(*zip(*points, strict=True), linewidth=1.8, markersize=5, label=label(name, 32),
                **style)  # fmt: skip
        _best(ax, points, 11, **style)
    ax.margins(x=0.03, y=0.1)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10, labelcolor=INK)
    return figure


def _apart(group: Group, lines: Mapping[str, _Sweep]) -> Figure:
    """Return small plots, one for each line, with all others behind it."""
    columns = 3 if len(lines) <= 9 else 4
    rows = -(-len(lines) // columns)
    figure, axes = canvas(0.9 + 1.45 * rows, rows, columns, sharex=True, sharey=True)
    for ax, (name, points) in zip(axes.flat, lines.items(), strict=False):
        for other in lines.values():
            ax.plot(*zip(*other, strict=True), linewidth=0.8, color=GRID)
        ax.plot(*zip(*points, strict=True), linewidth=1.8, color=MAIN)
        alpha, best = _best(ax, points, 6, color=MAIN, marker="o")
        panel(ax, name, f"best {best:.3f} at {alpha:g}", columns)
        ax.set(xlim=(-0.05, 1.05), xticks=(0, 0.5, 1))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    for ax in axes.flat[len(lines) :]:
        ax.set_visible(False)
    figure.suptitle(label(group.collection, 50), x=0.02, ha="left", fontsize=12, color=INK)
    figure.supxlabel(_ALPHA, fontsize=10.5, color=FAINT)
    figure.supylabel(group.measure, fontsize=10.5, color=FAINT)
    return figure


_ALPHA = "alpha: 0 the model alone, 1 the first stage alone"


def _best(ax: Any, points: _Sweep, size: float, **style: Any) -> tuple[float, float]:
    """Mark the best point, and return it."""
    best = max(points, key=lambda point: point[1])
    ax.plot(*best, markersize=size, markerfacecolor="none", linestyle="none", **style)
    return best
