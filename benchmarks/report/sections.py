"""What the page shows below its first screen: sections of groups, each with plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from erank_lite.benchmarks.report import quality, tables, wording
from erank_lite.benchmarks.report.canvas import Plot
from erank_lite.benchmarks.report.plots_fidelity import fidelity_plots
from erank_lite.benchmarks.report.plots_quality import quality_plots
from erank_lite.benchmarks.report.plots_speed import growth_plot, speed_plot
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.tables import Table


@dataclass(frozen=True)
class Group:
    """What compares: its name, plots and tables."""

    title: str
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...]

    @property
    def records(self) -> list[Record]:
        """What all of it was computed from."""
        found = [record for plot in self.plots for record in plot.records]
        found += [record for table in self.tables for record in table.records]
        return [*{id(record): record for record in found}.values()]


@dataclass(frozen=True)
class Section:
    """A kind of measurement.

    Attributes:
        id: for links to it.
        title: in a few words.
        text: what is measured, and how to read it.
        groups: at least one.
    """

    id: str
    title: str
    text: str
    groups: tuple[Group, ...]

    @property
    def records(self) -> list[Record]:
        """What all of it was computed from."""
        return [record for group in self.groups for record in group.records]


def sections(records: Sequence[Record]) -> list[Section]:
    """Return the sections for which there are records."""
    made = [
        Section(name, title, text, tuple(make(records))) for name, title, text, make in _SECTIONS
    ]
    return [section for section in made if section.groups]


def _of(records: Iterable[Record], kind: str) -> list[Record]:
    return [record for record in records if record.kind == kind]


def _suffix(n: int) -> str:
    return f"-{n + 1}" if n else ""


def _fidelity(records: Sequence[Record]) -> list[Group]:
    made = []
    for n, record in enumerate(_of(records, "fidelity")):
        data = record.data
        title = f"{data['reference']['name']} on {data['collection']}"
        title += f", {wording.thinking(data.get('thinking'))}"
        plots = fidelity_plots(record, _suffix(n))
        made.append(Group(wording.one_line(title), tuple(plots), (tables.fidelity_table(record),)))
    return made


def _quality(records: Sequence[Record]) -> list[Group]:
    made = []
    for n, group in enumerate(quality.groups(records)):
        found = (quality.quality_table(group), quality.sweep_table(group))
        plots = quality_plots(group, _suffix(n))
        made.append(Group(group.title, tuple(plots), tuple(filter(None, found))))
    return made


def _speed(records: Sequence[Record]) -> list[Group]:
    made = []
    for n, record in enumerate(_of(records, "speed")):
        plot = speed_plot(record, _suffix(n))
        plots = (plot,) if plot else ()
        title = tables.speed_caption(record).partition(": ")
        made.append(
            Group(wording.one_line(f"{record.data['model']}: {title[2]}"), plots,
                  (tables.speed_table(record),))
        )  # fmt: skip
    return made


def _growth(records: Sequence[Record]) -> list[Group]:
    axes: dict[str, list[Record]] = {}
    for record in _of(records, "growth"):
        axes.setdefault(record.data["axis"], []).append(record)
    made = []
    for n, (axis, alike) in enumerate(axes.items()):
        plot = growth_plot(alike, _suffix(n))
        plots = (plot,) if plot else ()
        made.append(
            Group(f"As {wording.one_line(axis)} grow", plots, (tables.growth_table(alike),))
        )
    return made


_SECTIONS: tuple[tuple[str, str, str, Callable[[Sequence[Record]], list[Group]]], ...] = (
    ("fidelity", "Fidelity by type",
     "How near each file is to the reference, on the same documents.", _fidelity),
    ("quality", "Quality against size",
     "How well each file ranks judged collections. FollowIR's p-MRR tells how far the ranking "
     "follows a changed instruction, from −1 to 1. Open diamonds are the paper's own figures.",
     _quality),
    ("speed", "Speed by engine",
     "The same documents by each way. × is the multiple of erank-lite's speed; the ceiling is "
     "what the machine could do at best.", _speed),
    ("growth", "Growth", "How speed and memory change as the work grows.", _growth),
)  # fmt: skip
