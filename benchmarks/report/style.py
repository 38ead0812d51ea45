"""How every plot looks: one width, few lines, labels at the data, colours that all can tell apart.

Figures are matplotlib's objects on its Agg canvas: no display, no global state. Their ground is a
light grey that stands on white and on dark pages.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import textalloc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report.format import machine, size
from erank_lite.benchmarks.report.records import Record

WIDTH = 6.0  # inches: beside another on a screen, and still to be read on a phone
GROUND, INK, FAINT, GRID = "#f4f3ef", "#1d1f24", "#63666d", "#d6d4cd"
# Okabe and Ito's, without the yellow; told apart by marker too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4b4b4b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAIN = COLOURS[0]
DASHED = {"color": FAINT, "linewidth": 1.2, "linestyle": (0, (4, 3))}
LABEL = 10.5  # points
_DPI = 200


@dataclass(frozen=True)
class Plot:
    """A figure with what a page says about it.

    Attributes:
        file: name of the PNG file.
        title: of the figure, in a few words.
        alt: what it shows, for those who do not see it.
        figure: matplotlib's.
        records: what it was drawn from.
    """

    file: str
    title: str
    alt: str
    figure: Figure
    records: Sequence[Record]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the page shows it, in CSS pixels."""
        width, height = self.figure.get_size_inches()
        return round(96 * width), round(96 * height)

    def png(self) -> bytes:
        """Return the image; the same records give the same bytes."""
        data = BytesIO()
        first = self.records[0]
        metadata = {
            "Title": self.title,
            "Description": one_line(first.command),
            "Source": one_line(f"{machine(first.machine)}; {first.commit}"),
            "Software": "erank-lite report",
        }
        metadata = {
            k: v.encode("latin-1", "replace").decode("latin-1") for k, v in metadata.items()
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            self.figure.savefig(data, format="png", dpi=_DPI, metadata=metadata)
        return data.getvalue()


def line_style(n: int) -> dict[str, str]:
    """Return the colour and marker of the line of that number."""
    return {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of the usual width, and its axes (rows × columns of them)."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=(WIDTH, height), facecolor=GROUND, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.set_facecolor(GROUND)
        ax.spines[:].set_visible(False)
        ax.tick_params(which="both", length=0, labelsize=LABEL, labelcolor=FAINT, pad=4)
        ax.grid(True, color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def panels(count: int, columns: int, row_height: float, rest: float) -> tuple[Figure, list[Any]]:
    """Return a figure of so many small plots with the same axes, and these.

    Args:
        row_height: of each row of plots, in inches.
        rest: inches for what stands above and below all of them.
    """
    rows = -(-count // columns)
    height = rest + row_height * rows
    figure, axes = canvas(height, rows, columns, sharex=True, sharey=True)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, [*axes.flat[:count]]


def title(ax: Any, text: str, x_label: str = "", y_label: str = "") -> None:
    """Name what a plot shows, and its axes."""
    ax.set_title(label(text, 50), loc="left", fontsize=12, color=INK, pad=8)
    ax.set_xlabel(label(x_label, 70), fontsize=LABEL, color=FAINT)
    ax.set_ylabel(label(y_label, 50), fontsize=LABEL, color=FAINT)


def panel_title(ax: Any, name: str, figure: str, columns: int) -> None:
    """Name one of several small plots in a row, with its figure under the name."""
    points, longest = {1: (12, 50), 2: (11, 30), 3: (10.5, 22)}.get(columns, (9.5, 17))
    ax.set_title(label(name, longest), loc="left", fontsize=points, color=INK, pad=18)
    ax.annotate(label(figure, longest + 3), (0, 1), xycoords="axes fraction", xytext=(0, 4),
                textcoords="offset points", fontsize=9, color=FAINT)  # fmt: skip


def label(text: str, longest: int = 44) -> str:
    """Return a text from a file as matplotlib may draw it: short, and no formula."""
    text = one_line(text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def write(ax: Any, text: str, at: tuple[float, float], **options: Any) -> Any:
    """Write a label at data coordinates, in ink unless told otherwise; lines stop before it."""
    options = {"fontsize": LABEL, "color": INK, "va": "center", "annotation_clip": False} | options
    options = {"xytext": (0, 0), "textcoords": "offset points"} | options
    ground = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.5}
    return ax.annotate(label(text), at, bbox=ground, **options)


def names_at_rows(ax: Any, names: Sequence[str]) -> None:
    """Name horizontal rows, the first one at the top."""
    ax.set_yticks(range(len(names)), [label(name, 28) for name in names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")


def sizes_at(axis: Any) -> None:
    """Tell an axis's bytes as MB and GB."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    axis.set_minor_formatter(NullFormatter())


def label_points(ax: Any, points: Iterable[tuple[float, float, str]]) -> None:
    """Write a name beside each point, off other names, points and lines, with a line to the point.

    All else must be drawn and the axes' limits set: what is free is found on the canvas.
    """
    ax.figure.draw_without_rendering()
    to_data = ax.transData.inverted()
    paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    drawn = [to_data.transform(path.vertices) for path in paths]
    drawn += [to_data.transform(text.get_window_extent().corners()) for text in ax.texts]
    x, y, names = zip(*((x, y, label(name)) for x, y, name in points if name), strict=True)
    at, up = np.concatenate(drawn).T
    _, leaders, *_ = textalloc.allocate(
        ax, x, y, [*names], x_scatter=at, y_scatter=up,
        x_lines=[line[:, 0] for line in drawn], y_lines=[line[:, 1] for line in drawn],
        nbr_candidates=400, margin=0.012, min_distance=0.02, draw_lines=False,
        textsize=LABEL, textcolor=INK, va="center",
        path_effects=[withStroke(linewidth=3, foreground=GROUND)],
    )  # fmt: skip
    lines = [list(zip(*leader[:2], strict=True)) for leader in leaders if leader]
    ax.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.8), autolim=False)
