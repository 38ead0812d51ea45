"""What the report shows, as a page or as markdown: sections of groups of plots and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report.format import NONE
from erank_lite.benchmarks.report.records import Record

if TYPE_CHECKING:
    from erank_lite.benchmarks.report.style import Plot


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        caption: what it shows.
        head: the names of the columns.
        rows: as many cells each.
        records: what it was computed from.
        note: what to know about it.
        text_columns: columns, apart from the first, that hold words and not numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Record, ...]
    note: str = ""
    text_columns: tuple[int, ...] = ()

    @classmethod
    def from_rows(
        cls,
        caption: str,
        rows: Sequence[Mapping[str, str]],
        records: Iterable[Record],
        note: str = "",
        text: Sequence[str] = (),
    ) -> Table:
        """Return a table of cells by column, in the order that the fullest row has them.

        Columns, apart from the first, are left out where no row has anything.

        Args:
            text: names of the columns, apart from the first, that hold words and not numbers.
        """
        names = [*max(rows, key=len)]
        kept = names[:1] + [
            name for name in names[1:] if any(row.get(name) not in (None, "", NONE) for row in rows)
        ]
        return cls(
            one_line(caption),
            tuple(map(one_line, kept)),
            tuple(tuple(one_line(row.get(name, "")) for name in kept) for row in rows),
            tuple(records),
            note,
            tuple(n for n, name in enumerate(kept) if name in text),
        )


@dataclass(frozen=True)
class Group:
    """Plots and tables of what may be compared with each other."""

    title: str
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...]

    @property
    def records(self) -> list[Record]:
        """What all of it was computed from."""
        found = [record for plot in self.plots for record in plot.records]
        found += [record for table in self.tables for record in table.records]
        return [*dict.fromkeys(found)]


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
