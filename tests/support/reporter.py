"""A reporter that keeps what it is told."""

from __future__ import annotations

from erank_lite.util.reporter import Reporter


class RecordingReporter(Reporter):
    """Keeps what it is told.

    Attributes:
        reports: (stage, done, total, unit) of each.
        messages: as they came.
    """

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int, str]] = []
        self.messages: list[str] = []

    @property
    def stages(self) -> list[str]:
        """Each stage once, in the order in which they began."""
        return list(dict.fromkeys(stage for stage, *_ in self.reports))

    def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
        self.reports.append((stage, done, total, unit))

    def message(self, text: str) -> None:
        self.messages.append(text)
