"""The text of a file: plain, Markdown, HTML, e-mail, notebooks; PDF and Word by `foreign`."""

from __future__ import annotations

import email
import email.policy
import json
import mailbox
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from erank_lite.search.html import html_text
from erank_lite.util.units import file_size

MAX_BYTES = 20 << 20
"""A larger file is not read."""

Unit = Literal["line", "page", "cell", "message"]
MARKDOWN = {".md", ".markdown", ".mdx", ".rmd", ".qmd"}
FOREIGN = {".pdf", ".docx"}
_SNIFFED = 8192
_FEW = 0.4
_HEADERS = ("Subject", "From", "To", "Date")


class Unreadable(Exception):
    """A file has no text that can be read; says why."""


class NoText(Unreadable):
    """It is none that would have any: an image, a program, an archive."""


class NotNow(Unreadable):
    """The system does not give it, and may another time."""


@dataclass(frozen=True)
class FileText:
    """What is written in a file.

    Attributes:
        text: in Markdown where the format has headings.
        markdown: whether it is.
        unit: what `places` counts; None where the file has neither lines nor pages of its own.
        places: for each line of `text` the number of its unit, from 1; None where these are the
            lines themselves.
    """

    text: str
    markdown: bool = False
    unit: Unit | None = "line"
    places: list[int] | None = None


def read_file(path: Path) -> FileText:
    """Return the text of a file that is not of a `FOREIGN` format.

    Raises:
        Unreadable: it cannot be read; `NoText`: it is no text.
        OSError: as the system says.
    """
    suffix = path.suffix.lower()
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Unreadable(f"larger than {file_size(MAX_BYTES)}")
    data = path.read_bytes()
    if suffix == ".mbox":
        return _mbox(path)
    if suffix == ".eml":
        return _messages([email.message_from_bytes(data, policy=email.policy.default)])
    text = decode(data)
    if suffix in (".html", ".htm", ".xhtml"):
        lines, places = html_text(text)
        return FileText("\n".join(lines), True, "line", places)
    if suffix == ".ipynb":
        return _notebook(text)
    return FileText(text, suffix in MARKDOWN)


def decode(data: bytes) -> str:
    """Return the text that bytes are, whatever their encoding.

    Raises:
        NoText: they are none.

    Example:
        >>> decode("Brot hält sich".encode("utf-16")), decode("für".encode("cp1252"))
        ('Brot hält sich', 'für')
    """
    from charset_normalizer import from_bytes

    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"),
                           (b"\xfe\xff", "utf-16")):  # fmt: skip
        if data.startswith(mark):
            return _lines(data.decode(encoding, "replace"))
    if b"\0" in data[:_SNIFFED]:
        raise NoText("not text")
    try:
        return _lines(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" or _nearly(data):  # cut off, or a slip
            return _lines(data.decode("utf-8", "replace"))
    # A few characters of a language in Latin script say little of its encoding: the usual one.
    if sum(byte > 127 for byte in data[:_SNIFFED]) < _FEW * len(data[:_SNIFFED]):
        return _lines(data.decode("cp1252", "replace"))
    best = from_bytes(data[: 1 << 16]).best()
    if best is None:
        raise NoText("not text")
    return _lines(data.decode(best.encoding, "replace"))


def _nearly(data: bytes) -> bool:
    """Whether bytes are UTF-8 but for one character in a thousand."""
    text = data.decode("utf-8", "replace")
    return text.count("\ufffd") * 1000 < len(text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _notebook(text: str) -> FileText:
    """Return the cells of a Jupyter notebook (nbformat 4), without their outputs.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    try:
        cells = json.loads(text)["cells"]
        parts = [_source(cell) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable("not a notebook of format 4") from None
    lines: list[str] = []
    places: list[int] = []
    for number, part in enumerate(parts, 1):
        added = [*part.split("\n"), ""]
        lines += added
        places += [number] * len(added)
    return FileText("\n".join(lines), True, "cell", places)


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)
    # A `#` in code is a comment, not a heading.
    return text if cell["cell_type"] == "markdown" else f"```\n{text}\n```"


def _mbox(path: Path) -> FileText:
    def parse(file: Any) -> Any:
        return email.message_from_binary_file(file, policy=email.policy.default)

    box: Any = mailbox.mbox(path, factory=parse, create=False)
    try:
        return _messages(box)
    finally:
        box.close()


def _messages(messages: Any) -> FileText:
    lines: list[str] = []
    places: list[int] = []
    for number, message in enumerate(messages, 1):
        added = [*_message(message), ""]
        lines += added
        places += [number] * len(added)
    return FileText("\n".join(lines), True, "message", places)


def _message(message: EmailMessage) -> Iterator[str]:
    """Yield the lines of an e-mail: its subject as a heading, and its text; no attachments."""
    headers = {}
    for name in _HEADERS:
        try:
            headers[name] = " ".join(str(message[name] or "").split())
        except Exception:  # a malformed header can raise anything
            headers[name] = ""
    yield f"# {headers['Subject'] or 'no subject'}"
    yield from (f"{name}: {headers[name]}" for name in _HEADERS[1:] if headers[name])
    yield ""
    try:
        body = message.get_body(("plain", "html"))
        content = "" if body is None else body.get_content()
    except Exception:  # an unknown encoding, or one that is not what it says
        content, body = "", None
    if body is not None and body.get_content_subtype() == "html":
        yield from html_text(content)[0]
    else:
        # Quoted lines and comments are no headings.
        yield from (line.lstrip("#") for line in str(content).splitlines())


def joined(pages: list[str]) -> FileText:
    """Return pages as one text.

    Example:
        >>> joined(["one", "two\\nthree"]).places
        [1, 1, 2, 2, 2]
    """
    split = [[*page.split("\n"), ""] for page in pages]
    places = [number for number, lines in enumerate(split, 1) for _ in lines]
    return FileText("\n".join(chain.from_iterable(split)), False, "page", places)
