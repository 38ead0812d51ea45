"""What may go to a terminal, and how."""

from rich.console import Console


class Terminal(Console):
    """A console that leaves a reader who went away to the caller."""

    def on_broken_pipe(self) -> None:
        """Let the error go on: rich would end the program here, with a code of its own."""
        raise


def printable(text: str) -> str:
    """Return `text` with control characters as spaces: foreign text must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
