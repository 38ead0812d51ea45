"""Sizes and times, written for people."""

from __future__ import annotations


def gib(size: float) -> str:
    """Return a number of bytes of memory, in MiB below a tenth of a GiB.

    Example:
        >>> gib(3 * 2**30), gib(5_000_000)
        ('3.0 GiB', '5 MiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"


def file_size(size: float) -> str:
    """Return a number of bytes on disk, in MB below 1 GB.

    Example:
        >>> file_size(78_400_000), file_size(2.5e9)
        ('78 MB', '2.5 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Return a number of seconds, rounded as far as a forecast deserves.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> counted(1, "document"), counted(1200, "document"), counted(0, "query")
        ('1 document', '1,200 documents', '0 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
