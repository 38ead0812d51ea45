"""A file's text cut into passages that a model reads, each with its heading and its lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from erank_lite.models.checkpoint import BUNDLED_FOLDER
from erank_lite.search.files import FileText
from erank_lite.text.tokenizer import Tokenizer

MAX_TOKENS = 400
"""Of a passage, as the packaged model counts them: what it still reads well. One index serves every
model, so this does not depend on which is asked."""

_LEAST = 0.5  # of that, from which a passage may end where the text's own structure does
_SAMPLE = 1500  # characters by which a file's tokens are judged
_USUAL = 4.0  # characters of a token
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]{0,3}(```|~~~)", re.MULTILINE)
_DEFINITION = re.compile(
    r"^[ \t]{0,12}(?:(?:export|default|public|private|protected|static|async|pub|abstract|final) )*"
    r"(?:def|class|func|function|fn|impl|interface|struct|enum|trait|module|namespace) [\w:.$]+.*$",
    re.MULTILINE,
)
_MAX_HEADING = 120  # characters


@dataclass(frozen=True)
class Chunk:
    """A passage.

    Attributes:
        text: as it stands in the file's text.
        heading: what it stands under, the outermost first; "" for none.
        places: the number of each of its lines (of its page, its cell) in the file; empty where
            the file has none.
    """

    text: str
    heading: str
    places: range | list[int]


def chunks(file: FileText) -> Iterator[Chunk]:
    """Yield a text's passages, which follow each other without a gap.

    Example:
        >>> text = FileText("# Bread\\n\\n## Storage\\n\\nA loaf stays fresh in a box.", True)
        >>> [(c.heading, list(c.places), c.text[-6:]) for c in chunks(text)]
        [('Bread \u203a Storage', [1, 2, 3, 4, 5], 'a box.')]
    """
    if file.unit == "message":
        for part in _messages(file):
            yield from _chunks(part)
    else:
        yield from _chunks(file)


def _messages(file: FileText) -> Iterator[FileText]:
    """Yield a mailbox's messages apart: a passage is of one."""
    assert file.places is not None
    pairs = zip(file.places, file.text.split("\n"), strict=True)
    for number, lines in groupby(pairs, key=itemgetter(0)):
        held = [line for _, line in lines]
        yield replace(file, text="\n".join(held), unit=None, places=[number] * len(held))


def _chunks(file: FileText) -> Iterator[Chunk]:
    text = file.text
    if not text.strip():
        return
    most = max(1, round(MAX_TOKENS * _characters_of_a_token(text)))
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    headings = _headings(text) if file.markdown else []
    definitions = [] if file.markdown else [m.start() for m in _DEFINITION.finditer(text)]
    for offset, passage in _splitter(file.markdown, most).chunk_indices(text):
        if not passage.strip():
            continue
        first = bisect_right(starts, offset) - 1
        end = first + passage.count("\n") + 1
        if file.places is None:
            places: range | list[int] = range(first + 1, end + 1)
        else:
            places = file.places[first:end]
        heading = _trail(headings, offset, passage)
        if definitions:
            heading = _definition(text, definitions, offset)
        yield Chunk(passage, heading, places)


def _splitter(markdown: bool, most: int) -> Any:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    kind = MarkdownSplitter if markdown else TextSplitter
    return kind((max(1, int(_LEAST * most)), most))


def _characters_of_a_token(text: str) -> float:
    """Return how many characters of this text a token has: to count them all would take long."""
    at = max(0, (len(text) - _SAMPLE) // 2)
    sample = text[at : at + _SAMPLE]
    return min(len(sample) / max(1, len(_tokenizer().encode(sample))), 2 * _USUAL)


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_checkpoint(BUNDLED_FOLDER)


def _headings(text: str) -> list[tuple[int, int, str]]:
    """Return (offset, level, title) of a Markdown text's headings; none within code."""
    fences = [m.start() for m in _FENCE.finditer(text)]
    return [
        (m.start(), len(m[1]), m[2].strip()[:_MAX_HEADING])
        for m in _HEADING.finditer(text)
        if (m.start() == 0 or text[m.start() - 1] == "\n")
        and bisect_right(fences, m.start()) % 2 == 0
    ]


def _trail(headings: list[tuple[int, int, str]], offset: int, passage: str) -> str:
    """Return the headings that a passage stands under, those that it begins with too."""
    begun = offset
    for line in passage.split("\n"):  # a heading, or headings, and only then the text
        if line.strip() and not line.startswith("#"):
            break
        begun += len(line) + 1
    trail: list[tuple[int, str]] = []
    for at, level, title in headings:
        if at >= max(begun, offset + 1):
            break
        trail = [(other, name) for other, name in trail if other < level]
        trail.append((level, title))
    return " \u203a ".join(name for _, name in trail if name)


def _definition(text: str, definitions: list[int], offset: int) -> str:
    """Return the line that defines what a passage of code is in."""
    found = bisect_right(definitions, offset) - 1
    if found < 0:
        return ""
    line = text[definitions[found] :].split("\n", 1)[0]
    return line.strip().rstrip("{:").strip()[:_MAX_HEADING]
