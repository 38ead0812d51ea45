"""Names beside points and lines, where they hide nothing and no line strikes them through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.path import Path
from matplotlib.transforms import Bbox

from erank_lite.benchmarks.report.canvas import FAINT, write

_NEAR = 15  # points above or below, beyond which a name needs a line to what it names
_PLACES = [
    ((9, 0), "left"), ((-9, 0), "right"), ((0, 13), "center"), ((0, -13), "center"),
    *(((side * 9, dy), align) for dy in (13, -13) for side, align in ((1, "left"), (-1, "right"))),
    *(((dx, dy), align) for far in (26, 40, 54, 68, 82) for dy in (far, -far)
      for dx, align in ((0, "center"), (12, "left"), (-12, "right"))),
]  # fmt: skip
"""Where a name may stand beside its point, in points of the page, the best first."""
_LEADER = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}


def label_points(ax: Any, points: Iterable[tuple[float, float, str]]) -> None:
    """Write a name beside each point, where no other name, point or line is.

    All else must be drawn and the axes' limits set: what is free is found on the canvas. A name
    that finds a place only further away gets a line to its point.
    """
    points = list(points)
    ax.figure.draw_without_rendering()
    at = [tuple(ax.transData.transform((x, y))) for x, y, _ in points]
    frame = ax.get_window_extent().padded(2)
    taken = [text.get_window_extent() for text in ax.texts]
    taken += [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in at]
    lines = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    for (x, y, name), here in zip(points, at, strict=True):
        if not name:
            continue
        text = write(ax, name, (x, y))
        extent = text.get_window_extent()
        text.remove()
        places = []
        for n, (offset, align) in enumerate(_PLACES):
            box = _box(here, offset, align, extent, ax.figure.dpi / 72)
            leader = _leader(here, box) if abs(offset[1]) > _NEAR else None
            cost = 0.1 * n + _cost(box, leader, here, frame, taken, lines)
            places.append((cost, n, box, leader))
        _, n, box, leader = min(places, key=lambda place: place[:2])
        offset, align = _PLACES[n]
        taken.append(box)
        lines += [leader] if leader else []
        write(ax, name, (x, y), xytext=offset, ha=align, arrowprops=_LEADER if leader else None)


def _box(
    here: tuple[float, ...], offset: tuple[int, int], align: str, extent: Any, scale: float
) -> Any:
    """Return where a text of that extent would stand."""
    x, y = here[0] + scale * offset[0], here[1] + scale * offset[1]
    left = x - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * extent.width
    return Bbox.from_bounds(left, y - extent.height / 2, extent.width, extent.height)


def _leader(here: tuple[float, ...], box: Any) -> Any:
    """Return the line from a point to the middle of the nearer edge of its name."""
    return Path([here, ((box.x0 + box.x1) / 2, box.y0 if box.y0 > here[1] else box.y1)])


def _cost(
    box: Any,
    leader: Any,
    here: tuple[float, ...],
    frame: Any,
    taken: Sequence[Any],
    lines: Sequence[Any],
) -> float:
    """Return how bad it is to write into `box`: over the edge, on something, or under a line."""
    inside = frame.containsx(box.x0) and frame.containsx(box.x1)
    inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
    cost: float = 0.0 if inside else 30.0
    cost += 10 * sum(box.overlaps(other) for other in taken)
    cost += 6 * sum(line.intersects_bbox(box.padded(-1), filled=False) for line in lines)
    if leader is not None:
        others = (other for other in taken if not other.contains(*here))
        cost += 4 * sum(leader.intersects_bbox(other, filled=False) for other in others)
    return cost


def label_lines(
    ax: Any,
    ends: Sequence[tuple[float, float, str]],
    colours: Sequence[str],
    gap: float = 0.075,
) -> None:
    """Write the names of lines at their ends, apart from each other.

    Args:
        ends: the last point of each line.
        colours: of each line.
        gap: the least distance of two names, as a share of the axis.
    """
    low, high = ax.get_ylim()
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    at = [(ends[i][1] - low) / (high - low) for i in order]
    for _ in range(60):  # names that are too near push each other apart
        for i in range(len(at) - 1):
            short = gap - (at[i + 1] - at[i])
            if short > 1e-4:
                at[i], at[i + 1] = at[i] - short / 2, at[i + 1] + short / 2
    if len(at) > 1:  # and stay beside the axis where there is room
        shift = max(0.0, at[-1] - 0.98)
        at = [max(place - shift, 0.02 + i * min(gap, 0.96 / (len(at) - 1)))
              for i, place in enumerate(at)]  # fmt: skip
    for i, place in zip(order, at, strict=True):
        x, y, name = ends[i]
        text = (24, low + place * (high - low))
        leader = {
            "arrowstyle": "-",
            "color": colours[i],
            "linewidth": 1,
            "shrinkA": 2,
            "shrinkB": 5,
        }
        write(ax, name, (x, y), xytext=text, textcoords=("offset points", "data"), ha="left",
              arrowprops=leader)  # fmt: skip
