"""The report's tables in GitHub's markdown, to be included in documentation as they are.

Headings are of the second and third level, for a page that has its own title.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from erank_lite.benchmarks.record import one_line
from erank_lite.benchmarks.report.content import Section, Table
from erank_lite.benchmarks.report.format import machine


def markdown(sections: Sequence[Section]) -> str:
    """Return all tables by section, each with its commands, the machine and the commit."""
    lines = []
    for section in sections:
        lines += [f"## {_escaped(section.title)}", "", _escaped(section.text), ""]
        for group in section.groups:
            lines += [f"### {_escaped(group.title)}", ""]
            for table in group.tables:
                lines += _table(table)
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    words = {0, *table.text_columns}
    rules = ["---" if n in words else "--:" for n in range(len(table.head))]
    rows = [[*map(_escaped, row)] for row in (table.head, *table.rows)]
    lines = [f"**{_escaped(table.caption)}**", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in (rows[0], rules, *rows[1:])]
    lines += ["", _escaped(table.note)] if table.note else []
    commands = _once(one_line(record.command) for record in table.records)
    if commands:
        longest = max(map(len, re.findall("`+", "".join(commands))), default=0)
        fence = "`" * max(3, longest + 1)
        lines += ["", f"{fence}console", *(f"$ {command}" for command in commands), fence]
        made = _once(
            f"{machine(r.machine)}; commit {r.commit}, {r.date[:10]}" for r in table.records
        )
        lines += ["", f"{_escaped('; '.join(made))}."]
    return [*lines, ""]


def _once(texts: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(texts)]


def _escaped(text: str) -> str:
    """Return text that stays text: no cell border, markup or tag."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]~])", r"\\\1", text)
