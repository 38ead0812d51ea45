"""How work that takes long reports its progress. The command line has a reporter that prints."""

from __future__ import annotations

from typing import Protocol


class Computing(Protocol):
    """What computes documents, and says how far it is."""

    tokens_generated: int
    under_way: float


class Reporter:
    """Receives progress and messages, and does nothing with them. Subclass it to show them.

    Example:
        >>> class Printing(Reporter):
        ...     def progress(self, stage, done, total, unit="B"):
        ...         print(f"{stage}: {done} of {total} {unit}")
        >>> Printing().progress("quantizing", 3, 4, "tensors")
        quantizing: 3 of 4 tensors
    """

    def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
        """Receive that `done` of `total` units ("B" for bytes) of a stage are finished."""

    def watch(self, engine: Computing) -> None:
        """Receive what computes the documents whose progress is told next."""

    def message(self, text: str) -> None:
        """Receive a message that deserves a line of its own."""


SILENT = Reporter()
