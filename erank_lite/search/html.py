"""HTML as Markdown, each line with the line of the source that it comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

_HIDDEN = {"script", "style", "template", "noscript", "svg", "head", "nav", "select", "button"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div",
    "dl", "dt", "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "ol", "p",
    "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr",
    "ul",
}  # fmt: skip
_HEADING = re.compile(r"h([1-6])\Z")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_MARK = "\u00b6"  # with which manuals link to their own headings
_FENCE = "```"
# Elements that are never closed, and so hide nothing.
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"}


def html_text(source: str) -> tuple[list[str], list[int]]:
    """Return the lines of a page's text, headings as Markdown has them, and where each begins.

    Scripts, styles and navigation are left out; what is preformatted is code. What is malformed is
    read as far as it goes.

    Returns:
        The lines, and for each the line of the source, from 1.

    Example:
        >>> html_text("<h1>Bread</h1>\\n<p>It stays <b>fresh</b>.</p>\\n<script>x()</script>")
        (['# Bread', '', 'It stays fresh.', ''], [1, 1, 2, 2])
    """
    reader = _Reader()
    reader.feed(source)
    reader.close()
    reader.end_block()
    return reader.lines, reader.places


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.places: list[int] = []
        self._text = ""
        self._begun = 1
        self._hidden: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if self._hidden:
            # What is not closed in the order it was opened must not hide the rest of the page.
            if tag == self._hidden[-1]:
                self._hidden.append(tag)
            elif tag == "body":
                self._hidden.clear()
            return
        if tag not in _VOID and (tag in _HIDDEN or ("role", "navigation") in attrs):
            self._hidden.append(tag)
            return
        heading = _HEADING.match(tag)
        if heading or tag in _BLOCKS:
            self.end_block()
        if heading:
            self._text, self._begun = "#" * int(heading[1]) + " ", self.getpos()[0]
        if tag == "pre":
            self._pre += 1
            self._begun = self.getpos()[0]
            self._add(self._begun, _FENCE)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        if tag == "pre" and self._pre:
            if self._text.strip():
                self._end_line(self.getpos()[0])
            self._text = ""
            self._add(self.getpos()[0], _FENCE)
            self._pre -= 1
        elif _HEADING.match(tag) or tag in _BLOCKS:
            self.end_block()

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._pre:
            first, *others = data.replace("\r\n", "\n").split("\n")
            self._text += first
            for number, part in enumerate(others, self.getpos()[0]):
                self._end_line(number)
                self._text = part
            return
        data = _SPACE.sub(" ", data)
        if not self._text:
            data = data.lstrip()
            self._begun = self.getpos()[0]
        self._text += data if not self._text.endswith(" ") else data.lstrip()

    def end_block(self) -> None:
        """Put what was gathered on a line of its own, and an empty one after it."""
        if self._pre:
            self._end_line(self._begun)
            return
        text, self._text = self._text.strip().rstrip(_MARK).rstrip(), ""
        if text.strip("# "):
            self._add(self._begun, text)
            self._add(self._begun, "")

    def _end_line(self, place: int) -> None:
        """Put what was gathered of preformatted text on a line."""
        text, self._text = self._text.rstrip(), ""
        if text or self.lines[-1:] != [_FENCE]:
            self._add(place, text)

    def _add(self, place: int, line: str) -> None:
        self.lines.append(line)
        self.places.append(place)
