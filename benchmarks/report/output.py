"""The report as files: all is made first, then each file gets its name, the page last."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from erank_lite.benchmarks.record import RECORDS
from erank_lite.benchmarks.report.content import Group, Section
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.rule import comparisons
from erank_lite.errors import InputError, missing_extra
from erank_lite.util.files import atomic, locked

PAGE, TABLES = "report.html", "tables.md"
MANIFEST = ".report-files"
"""The names of a report's files, a line each: a later one there removes those that it lacks."""


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
    contents = _contents(records)
    try:
        (out / RECORDS).mkdir(parents=True, exist_ok=True)
        with locked(out / PAGE, wait=False):
            _replace(contents, out)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(f"the report cannot be written to `{out}`: {error.strerror}") from None
    return out / PAGE


def _contents(records: Sequence[Record]) -> dict[str, bytes]:
    """Return the content of every file, by its name."""
    try:
        from erank_lite.benchmarks.report.sections import sections
    except ModuleNotFoundError as error:
        for package in ("matplotlib", "textalloc"):
            if (error.name or "").partition(".")[0] == package:
                raise missing_extra("the report", package, "eval") from None
        raise
    from erank_lite.benchmarks.report.markdown import markdown
    from erank_lite.benchmarks.report.page import page
    from erank_lite.benchmarks.report.summary import file_table, machine_table

    compared, parts = comparisons(records), sections(records)
    choice = Section("choice", "Which file to take",
                     "What each file keeps of the reference's ranking and scores, judged by one "
                     "rule, and the type to take on usual machines.",
                     (Group("For your machine", (), (machine_table(compared),)),
                      *(Group(f"Files of {each.model}", (), (file_table(each),))
                        for each in compared)))  # fmt: skip
    links = _links(records)
    contents = {name: _json(record) for record, name in links.items()}
    plots = [plot for part in parts for group in part.groups for plot in group.plots]
    contents |= {plot.file: plot.png() for plot in plots}
    contents[TABLES] = markdown([choice, *parts]).encode()
    contents[PAGE] = page(records, compared, parts, links).encode()
    contents[MANIFEST] = "".join(f"{name}\n" for name in contents).encode()
    return contents


def _json(record: Record) -> bytes:
    text = json.dumps(record.data, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace")  # half a pair is an escape in JSON too


def _links(records: Sequence[Record]) -> dict[Record, str]:
    """Return the path of a copy of each record: its own file name, made safe and unique."""
    links: dict[Record, str] = {}
    for record in records:
        stem = re.sub(r"[^\w.-]", "_", Path(record.file).stem).strip(".")[:100] or "record"
        name, n = f"{RECORDS}/{stem}.json", 1
        while name.lower() in map(str.lower, links.values()):
            n += 1
            name = f"{RECORDS}/{stem}-{n}.json"
        links[record] = name
    return links


def _replace(contents: dict[str, bytes], out: Path) -> None:
    """Write all files, then give all of them their names, and remove an earlier report's others."""
    manifest = out / MANIFEST
    earlier = manifest.read_text("utf-8").splitlines() if manifest.is_file() else []
    with ExitStack() as stack:
        for name in reversed(contents):  # the last to be entered is the first to be left
            stack.enter_context(atomic(out / name)).write_bytes(contents[name])
    for name in {*earlier} - contents.keys():
        if (out / name).resolve().is_relative_to(out.resolve()):
            (out / name).unlink(missing_ok=True)
