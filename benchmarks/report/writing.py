"""The report as files: all is made first, then each file is put in its place, the page last."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from erank_lite.benchmarks.record import RECORDS
from erank_lite.benchmarks.report.choice import choices
from erank_lite.benchmarks.report.records import Record
from erank_lite.convert.output import claimed
from erank_lite.errors import InputError, ModelError

PAGE, TABLES = "report.html", "tables.md"
_PART = ".report.part"


def write_report(records: Sequence[Record], out: Path) -> Path:
    """Write report.html, its PNG plots, tables.md and a copy of the records into the folder `out`.

    Other files there stay; an earlier report's are replaced once the new ones are finished.

    Returns:
        The page.

    Raises:
        InputError: there is no record, or `out` cannot be a folder to write to.
        ModelError: matplotlib is missing.
    """
    if not records:
        raise InputError("there is no record to report")
    made = _made(records)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with claimed(out / PAGE):
            _put(made, out)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(f"the report cannot be written to {out}: {error.strerror}") from None
    return out / PAGE


def _made(records: Sequence[Record]) -> dict[str, bytes]:
    """Return the content of every file, by its name; the page is the last."""
    try:
        from erank_lite.benchmarks.report.sections import sections
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise ModelError("the report needs matplotlib: pip install 'erank-lite[eval]'") from None
    from erank_lite.benchmarks.report.markdown import markdown
    from erank_lite.benchmarks.report.page import page
    from erank_lite.benchmarks.report.verdicts import choice_table, machine_table

    chosen = choices(records)
    parts = sections(records)
    links = _links(records)
    made = {links[id(record)]: _json(record) for record in records}
    groups = [group for part in parts for group in part.groups]
    made |= {plot.file: plot.png() for group in groups for plot in group.plots}
    tables = [machine_table(chosen), *map(choice_table, chosen)]
    tables += [table for group in groups for table in group.tables]
    made[TABLES] = markdown(tables).encode()
    made[PAGE] = page(records, chosen, parts, links).encode()
    return made


def _json(record: Record) -> bytes:
    text = json.dumps(record.data, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace")  # half a pair is an escape in JSON too


def _links(records: Sequence[Record]) -> dict[int, str]:
    """Return a place beside the page for each record: its own file name, made safe and unique."""
    taken: dict[int, str] = {}
    used = set()
    for record in records:
        stem = re.sub(r"[^\w.-]", "_", Path(record.name).stem).strip(".")[:100] or "record"
        name, n = f"{RECORDS}/{stem}.json", 1
        while name.lower() in used:
            n += 1
            name = f"{RECORDS}/{stem}-{n}.json"
        used.add(name.lower())
        taken[id(record)] = name
    return taken


def _put(made: dict[str, bytes], out: Path) -> None:
    """Write all files beside their places, then give them their names."""
    part = out / _PART
    shutil.rmtree(part, ignore_errors=True)  # of a report that was killed
    before = _earlier(out)
    try:
        for name, content in made.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        for name in made:
            (out / name).parent.mkdir(exist_ok=True)
            (part / name).replace(out / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for name in before - made.keys():
        (out / name).unlink(missing_ok=True)


def _earlier(out: Path) -> set[str]:
    """Return the plots and records of an earlier report here, by its page."""
    from erank_lite.benchmarks.report.page import GENERATOR

    page = out / PAGE
    text = page.read_text("utf-8", errors="replace") if page.is_file() else ""
    if f'content="{GENERATOR}' not in text:
        return set()
    return set(re.findall(rf'(?:src|href)="([\w-]+\.png|{RECORDS}/[\w.-]+\.json)"', text))
