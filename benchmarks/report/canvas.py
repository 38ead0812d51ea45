"""How every plot looks: one width, few lines, labels at the data, colours that all can tell apart.

Figures are matplotlib's objects on its Agg canvas: no pyplot, no display, no global state. Their
ground is a light grey that stands on white and on dark pages.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.records import Record

WIDTH = 6.0  # inches: beside another on a screen, and still to be read on a phone
GROUND, INK, FAINT, GRID = "#f4f3ef", "#1d1f24", "#63666d", "#d6d4cd"
# Okabe and Ito's, without the yellow; told apart by marker too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4b4b4b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAIN, GOOD, FAIR, BAD = COLOURS[0], COLOURS[0], "#b97a00", "#c04a00"
_DPI = 200
_SIZES = {"title": 12, "label": 10.5}


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
    records: tuple[Record, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the page shows it, in CSS pixels."""
        width, height = self.figure.get_size_inches()
        return round(96 * width), round(96 * height)

    def png(self) -> bytes:
        """Return the image; the same records give the same bytes."""
        data = BytesIO()
        first = self.records[0].data
        metadata = {
            "Title": self.title,
            "Description": wording.one_line(first["command"]),
            "Source": wording.one_line(f"{wording.machine(first['machine'])}; {first['commit']}"),
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
    figure = Figure(
        figsize=(WIDTH, height),
        facecolor=GROUND,
        layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        _plain(ax)
    return figure, axes


def _plain(ax: Any) -> None:
    ax.set_facecolor(GROUND)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(which="both", length=0, labelsize=_SIZES["label"], labelcolor=FAINT, pad=4)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)


def title(ax: Any, text: str, x_label: str = "", y_label: str = "", most: int = 50) -> None:
    """Name what a plot shows, in at most so many letters, and its axes."""
    ax.set_title(label(text, most), loc="left", fontsize=_SIZES["title"], color=INK, pad=8)
    ax.set_xlabel(label(x_label, 70), fontsize=_SIZES["label"], color=FAINT)
    ax.set_ylabel(label(y_label, 50), fontsize=_SIZES["label"], color=FAINT)


def panel(ax: Any, name: str, figure: str, columns: int) -> None:
    """Name one of several small plots beside each other, with its figure under the name."""
    size, most = {1: (12, 50), 2: (11, 30), 3: (10.5, 22)}.get(columns, (9.5, 17))
    ax.set_title(label(name, most), loc="left", fontsize=size, color=INK, pad=18)
    ax.annotate(label(figure, most + 3), (0, 1), xycoords="axes fraction", xytext=(0, 4),
                textcoords="offset points", fontsize=9, color=FAINT)  # fmt: skip


def label(text: str, most: int = 44) -> str:
    """Return a text from a file as matplotlib may draw it: short, and no formula."""
    text = wording.one_line(text)
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")


def write(ax: Any, text: str, at: tuple[float, float], **options: Any) -> Any:
    """Write a label at data coordinates, in ink unless told otherwise."""
    options = {"fontsize": _SIZES["label"], "color": INK, "va": "center"} | options
    options = {"xytext": (0, 0), "textcoords": "offset points", "annotation_clip": False} | options
    options["path_effects"] = [withStroke(linewidth=3, foreground=GROUND)]  # lines stop before it
    return ax.annotate(label(text), at, **options)


def names_at_rows(ax: Any, names: Sequence[str]) -> None:
    """Name horizontal rows, the first one at the top."""
    ax.set_yticks(range(len(names)), [label(name, 28) for name in names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")


def sizes_at(axis: Any) -> None:
    """Tell an axis's bytes as MB and GB."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: wording.size(value)))
    axis.set_minor_formatter(NullFormatter())
