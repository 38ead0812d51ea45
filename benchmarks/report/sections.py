"""The sections of the report below its first screen, one for each kind of measurement."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.benchmarks.report.content import Section
from erank_lite.benchmarks.report.fidelity import fidelity_groups
from erank_lite.benchmarks.report.quality import quality_groups
from erank_lite.benchmarks.report.records import Record
from erank_lite.benchmarks.report.speed import growth_groups, speed_groups

_SECTIONS = (
    ("fidelity", "Fidelity by type",
     "How near each file is to the reference, on the same documents.", fidelity_groups),
    ("quality", "Quality against size",
     "How well each file ranks judged collections. FollowIR's p-MRR tells how far the ranking "
     "follows a changed instruction, from −1 to 1. Open diamonds are the paper's own figures.",
     quality_groups),
    ("speed", "Speed by engine",
     "The same documents by each system. × is the multiple of erank-lite's speed; the ceiling is "
     "what the machine could do at best.", speed_groups),
    ("growth", "Growth", "How speed and memory change as the work grows.", growth_groups),
)  # fmt: skip


def sections(records: Sequence[Record]) -> list[Section]:
    """Return the sections for which there are records."""
    made = [
        Section(name, title, text, tuple(groups(records)))
        for name, title, text, groups in _SECTIONS
    ]
    return [section for section in made if section.groups]
