"""How long work says how far it is. Nothing is printed here: the command line has a reporter."""

from __future__ import annotations


class Reporter:
    """Told what goes on; does nothing with it. Subclass it to show progress.

    Example:
        >>> class Printing(Reporter):
        ...     def progress(self, stage, done, total, unit="B"):
        ...         print(f"{stage}: {done} of {total} {unit}")
        >>> Printing().progress("quantizing", 3, 4, "tensors")
        quantizing: 3 of 4 tensors
    """

    def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
        """Be told that `done` of `total` units ("B" for bytes) of a stage are finished."""

    def message(self, text: str) -> None:
        """Be told something that is worth a line of its own."""


SILENT = Reporter()
