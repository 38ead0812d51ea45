"""Tables in GitHub's markdown, each with the command under it, ready for a README."""

from __future__ import annotations

import re
from collections.abc import Iterable

from erank_lite.benchmarks.report import wording
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.tables import Table


def markdown(tables: Iterable[Table]) -> str:
    """Return tables, each with what it shows, its commands, the machine and the commit."""
    return "\n".join(_one(table) for table in tables)


def _one(table: Table) -> str:
    words = {0, *table.text_columns}
    lines = [f"**{_escaped(table.caption)}**", ""]
    lines.append(_row(map(_escaped, table.head)))
    lines.append(_row("---" if n in words else "--:" for n in range(len(table.head))))
    lines += [_row(map(_escaped, row)) for row in table.rows]
    lines.append("")
    if table.note:
        lines += [_escaped(table.note), ""]
    commands = list(dict.fromkeys(wording.one_line(r.data["command"]) for r in table.records))
    fence = "`" * max(
        3, 1 + max((len(run) for run in re.findall("`+", "".join(commands))), default=0)
    )
    if commands:
        lines += [f"{fence}console", *(f"$ {command}" for command in commands), fence, ""]
        places = dict.fromkeys(map(_place, table.records))
        lines += [f"{_escaped('; '.join(places))}.", ""]
    return "\n".join(lines)


def _place(record: Record) -> str:
    data = record.data
    return f"{wording.machine(data['machine'])}; commit {data['commit']}, {data['date'][:10]}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text that stays text: no cell border, markup or tag."""
    text = wording.one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]~])", r"\\\1", text)
