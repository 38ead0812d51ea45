"""The report's plots: every point and name to be seen, nothing on anything else."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from support.records import (
    FILES,
    TYPES,
    fidelity,
    fidelity_run,
    growth,
    qualities,
    quality,
    records,
    speed,
)

from erank_lite.benchmarks.record import Variant


@cache
def drawn_qualities(count: int) -> dict[str, Any]:
    return drawn(qualities(FILES[:count]))


def drawn(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a report by their files' names, laid out as they are saved."""
    pytest.importorskip("matplotlib")
    from erank_lite.benchmarks.report.sections import sections

    plots = [p for s in sections(records(*data)) for group in s.groups for p in group.plots]
    for plot in plots:
        plot.figure.draw_without_rendering()
    return {plot.file: plot.figure for plot in plots}


def test_every_point_lies_inside_the_axes() -> None:
    falling = growth("a", paces=(5.8, 2.3, 0.1), memory=(900, 300, 10))
    both = [falling, growth("b", paces=(0.1, 7.0, 2.0), memory=(1, 2, 3))]
    data = [*both, growth(axis="one", paces=(9, 5, 1)), *qualities(FILES[:3]), speed()]
    figures = drawn([*data, fidelity(*(fidelity_run(*file) for file in FILES))])
    assert len(figures) == 8
    for name, figure in figures.items():
        for ax in filter(lambda ax: ax.get_visible(), figure.axes):
            (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
            for line in ax.lines:
                if line.get_transform() == ax.transData:
                    points = [*zip(line.get_xdata(), line.get_ydata(), strict=True)]
                    assert all(left <= x <= right and low <= y <= high for x, y in points), name


def texts(figure: Any) -> list[tuple[str, Any]]:
    """Return the names in the only axes of a figure, and the place of each without its line."""
    from matplotlib.text import Text

    (ax,) = figure.axes
    return [(text.get_text(), Text.get_window_extent(text).padded(-1)) for text in ax.texts]


@pytest.mark.parametrize("count", [3, 8, len(FILES)])
def test_no_name_of_a_point_is_struck_through_or_lies_on_another(count: int) -> None:
    figure = drawn_qualities(count)["quality-size.png"]
    names = texts(figure)
    (ax,) = figure.axes
    for n, (name, box) in enumerate(names):
        assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)
        for line in ax.lines:
            path = line.get_transform().transform_path(line.get_path())
            assert not path.intersects_bbox(box, filled=False), name
        for other, place in names[:n]:
            assert not box.overlaps(place), (name, other)


def test_two_points_of_one_height_have_their_names_beside_the_line() -> None:
    level = {"reranked": {"nDCG@10": 0.4}, "first stage": {"nDCG@10": 0.3}}
    data = [quality(name, size=size, measures=level) for name, size in FILES[:2]]
    figure = drawn(data)["quality-size.png"]
    (line, *_) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    path = line.get_transform().transform_path(line.get_path())
    assert not any(path.intersects_bbox(box, filled=False) for _, box in texts(figure))


def test_types_are_named_once_and_each_matrix_once() -> None:
    names = [name for name, _ in texts(drawn_qualities(len(FILES))["quality-size.png"])]
    assert sorted(n for n in names if not n.startswith("first stage")) == sorted(
        [*TYPES, "+own", "+generic", "GPTQ-8bit", "GPTQ-4bit"]
    )


def test_each_hybrids_line_has_a_plot_and_all_plots_have_the_whole_width() -> None:
    for count in (3, len(FILES)):
        figure = drawn_qualities(count)["alpha.png"]
        shown = [ax for ax in figure.axes if ax.get_visible()]
        titles = [ax.get_title("left") for ax in shown]
        assert sorted(titles) == sorted(Variant.from_label(name).name for name, _ in FILES[:count])
        assert all(ax.get_xlim()[0] > -0.1 for ax in shown)
        left, right = (f(edge for ax in shown for edge in ax.bbox.intervalx) for f in (min, max))
        assert right - left > 0.8 * figure.bbox.width


def test_twenty_runs_stay_legible() -> None:
    runs = [fidelity_run(*file) for file in FILES]
    figures = drawn([fidelity(*runs)])
    shown = [ax for ax in figures["agreement.png"].axes if ax.get_visible()]
    assert len(shown) == len(FILES)
    titles = [ax.title if ax.title.get_text() else ax._left_title for ax in shown]
    assert not any("…" in title.get_text() for title in titles)
    boxes = [title.get_window_extent() for title in titles]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    for name in ("fidelity.png", "ranking.png"):
        rows = [text for text in figures[name].axes[0].get_yticklabels() if text.get_text()]
        assert any(row.get_text().startswith("Q4_K_M+generic · ") for row in rows)
        places = sorted(row.get_window_extent().y0 for row in rows)
        height = rows[0].get_window_extent().height
        assert all(b - a > height for a, b in pairwise(places))
