"""Plots of quality: against size, and by the weight of the first stage in the hybrid."""

from __future__ import annotations

from typing import Any, NamedTuple

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.canvas import (
    FAINT,
    INK,
    Plot,
    canvas,
    label_lines,
    label_points,
    line_style,
    sizes_at,
    title,
    write,
)
from erank_lite.benchmarks.report.quality import Group
from erank_lite.benchmarks.report.records import Record


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
    figure, axes = canvas(4.0)
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
    """Draw a line for each setting of a model; return the names to write at points."""
    series: dict[tuple[str, str], list[_Point]] = {}
    for point in sorted(points):
        model = point.record.data["model"].partition(":")[0]
        series.setdefault((group.settings[point.nth], model), []).append(point)
    models = [point.record.data["model"] for point in points]
    names = dict(zip(models, map(wording.short_names(models).__getitem__, models), strict=True))
    marked = []
    first_setting = next(iter(series))[0]
    for n, ((setting, _), line) in enumerate(series.items()):
        style = line_style(n)
        ax.plot(
            [p.size for p in line], [p.value for p in line], linewidth=1.2, markersize=8, **style
        )
        for point in line:  # the first setting's points carry the models, one of each its setting
            name = names[point.record.data["model"]] if setting == first_setting else ""
            if not group.settings[point.nth]:
                name += f" {point.value:.3f}"
            elif point is line[-1]:
                name = f"{name}, {setting}".removeprefix(", ")
            marked.append((point.size, point.value, name))
    return marked


_NICE = [a * 10**n for n in range(5, 13) for a in (1, 2, 5)]


def _by_alpha(group: Group, suffix: str) -> Plot | None:
    lines = [
        (record, label, points)
        for record, label in zip(group.records, group.labels, strict=True)
        if len(points := group.sweep(record)) > 1
    ]
    if not lines:
        return None
    names = wording.short_names([label for _, label, _ in lines])
    figure, axes = canvas(4.0)
    ax = axes[0, 0]
    title(ax, group.collection, "alpha: 0 the model alone, 1 the first stage alone", group.measure)
    for n, (_, _, points) in enumerate(lines):
        x, y = zip(*points, strict=True)
        style = line_style(n)
        ax.plot(x, y, linewidth=1.8, markersize=5, **style)
        best = max(points, key=lambda p: p[1])
        ax.plot(*best, markersize=11, markerfacecolor="none", linestyle="none", **style)
    ax.margins(x=0.03, y=0.1)
    # All lines meet at the first stage: the names stand at the left, where they part.
    ax.set_xlim(-0.02 - 0.026 * max(len(names[label]) for _, label, _ in lines), 1.03)
    ax.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1))
    colours = [line_style(n)["color"] for n in range(len(lines))]
    label_lines(ax, [(*points[0], names[label]) for _, label, points in lines], colours, left=True)
    told = "; ".join(
        f"{label}: best {max(y for _, y in points):.3f} at alpha "
        f"{max(points, key=lambda p: p[1])[0]:g}, alone {points[0][1]:.3f}"
        for _, label, points in lines
    )
    alt = f"{group.measure} of the hybrid by alpha, {group.title}. {told}."
    records = tuple(record for record, _, _ in lines)
    return Plot(f"alpha{suffix}.png", "The hybrid by alpha", alt, figure, records)
