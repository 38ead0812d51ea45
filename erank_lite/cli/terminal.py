"""What may go to a terminal."""


def printable(text: str) -> str:
    """Return `text` with control characters as spaces: foreign text must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
