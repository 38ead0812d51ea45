"""Searching files: what is read of them, what is passed over, and that the index follows them."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.answering import answering
from support.folders import write_docx, write_pdf

pytest.importorskip("pathspec")
pytest.importorskip("semantic_text_splitter")
pytest.importorskip("pypdfium2")
pytest.importorskip("mammoth")

from erank_lite import InputError, ModelError, Reranker
from erank_lite.search import Index, search
from erank_lite.search.chunks import MAX_TOKENS, chunks
from erank_lite.search.files import FileText, decode
from erank_lite.search.html import html_text
from erank_lite.search.search import best_of_each_file, judged

LOAF = "A loaf stays fresh in a bread box."


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "cache" / "search.sqlite") as opened:
        yield opened


def names(index: Index, query: str, folder: Path) -> list[str]:
    return [found.path.name for found in index.search(query, [folder], 50)]


# What is read


def test_each_format_is_read(notes: Path, index: Index) -> None:
    (notes / "plain.txt").write_text(f"Rivers.\n\n{LOAF}\n")
    (notes / "note.md").write_text(f"# Bread\n\n## Storage\n\n{LOAF}\n")
    (notes / "page.html").write_text(
        f"<html><head><title>x</title><style>a loaf</style></head>\n<body>\n<nav>loaf</nav>\n"
        f"<h1>Bread</h1>\n\n<p>{LOAF}</p></body></html>"
    )
    (notes / "code.py").write_text(f'class Bread:\n    def keep(self):\n        """{LOAF}"""\n')
    (notes / "mail.eml").write_text(
        f"Subject: Bread\nFrom: a@b.example\nContent-Type: text/plain\n\n{LOAF}\n"
    )
    mail = "From x@y Thu Jan  1 00:00:00 2026\nSubject: {}\n\n{}\n\n"
    (notes / "mails.mbox").write_text(mail.format("Rivers", "They run.") + mail.format("B", LOAF))
    cells = [
        {"cell_type": "markdown", "source": ["# Rivers\n"]},
        {"cell_type": "code", "source": f"# {LOAF}", "outputs": [{"text": "secretoutput"}]},
    ]
    (notes / "book.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    write_pdf(notes / "paper.pdf", ["Rivers run.", LOAF])
    write_docx(notes / "letter.docx", "Bread", ["Rivers run.", LOAF])
    update = index.update([notes])
    assert not update.failures and update.files == 9
    found = {hit.path.name: hit for hit in index.search("loaf stays fresh", [notes], 50)}
    assert found.keys() == {p.name for p in notes.iterdir()}
    assert {name: hit.heading for name, hit in found.items() if hit.heading} == {
        "note.md": "Bread \u203a Storage",
        "page.html": "Bread",
        "code.py": "class Bread",
        "mail.eml": "Bread",
        "mails.mbox": "B",
        "book.ipynb": "Rivers",
        "letter.docx": "Bread",
    }
    assert names(index, "secretoutput", notes) == []
    assert LOAF in found["letter.docx"].text


@pytest.mark.parametrize(
    ("name", "unit", "number"),
    [
        ("plain.txt", "line", 3),
        ("page.html", "line", 4),
        ("paper.pdf", "page", 2),
        ("mails.mbox", "message", 2),
        ("book.ipynb", "cell", 2),
        ("letter.docx", None, None),
    ],
)
def test_a_passage_says_where_it_is(
    notes: Path, index: Index, name: str, unit: str | None, number: int | None
) -> None:
    path = notes / name
    if name == "plain.txt":
        path.write_text(f"Rivers run.\n\n{LOAF}\n")
    elif name == "page.html":
        path.write_text(f"<p>Rivers\nrun.</p>\n\n<p>{LOAF}</p>")
    elif name == "paper.pdf":
        write_pdf(path, ["Rivers run.", LOAF])
    elif name == "mails.mbox":
        mail = "From x@y Thu Jan  1 00:00:00 2026\nSubject: it\n\n{}\n\n"
        path.write_text(mail.format("Rivers run.") + mail.format(LOAF))
    elif name == "book.ipynb":
        cells = [{"cell_type": "markdown", "source": t} for t in ("Rivers run.", LOAF)]
        path.write_text(json.dumps({"cells": cells}))
    else:
        write_docx(path, "Bread", [LOAF])
    index.update([notes])
    *_, passages = judged("loaf", index.search("loaf", [notes]), None, index.stemmer)
    assert passages[0].found.unit == unit and passages[0].number == number
    (mark,) = passages[0].marks
    assert passages[0].found.text[slice(*mark)].strip("# ") == LOAF


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        (f"# Keep bread\n\n## Keeping a loaf\n\n{LOAF}\n", LOAF),  # not its headings
        ("# Keep a loaf\n\nFour or five.\n", "# Keep a loaf"),
        ("# keep a loaf for days\nloaf = 4\n", "# keep a loaf for days"),  # a comment, in code
    ],
)
def test_a_heading_is_marked_only_where_nothing_below_it_says_more(
    notes: Path, index: Index, text: str, marked: str
) -> None:
    (notes / "it.md").write_text(text)
    index.update([notes])
    found = index.search("keep loaf days", [notes])
    *_, passages = judged("keep loaf days", found, None, index.stemmer)
    (best,) = [p for p in passages if p.found.path.name == "it.md"]
    assert [best.found.text[slice(*mark)] for mark in best.marks] == [marked]


def test_long_files_are_cut_into_passages_that_follow_each_other() -> None:
    paragraphs = [f"Paragraph {n} says {'something of rivers ' * 30}\n" for n in range(60)]
    text = "# Rivers\n\n" + "\n".join(paragraphs)
    found = list(chunks(FileText(text, True)))
    assert len(found) > 10 and all(c.heading == "Rivers" for c in found)
    assert all(len(c.text) < 10 * MAX_TOKENS for c in found)
    lines = text.split("\n")
    for chunk in found:
        for line, place in zip(chunk.text.split("\n"), chunk.places, strict=True):
            assert line.strip() in lines[place - 1]
    assert "".join("".join(c.text.split()) for c in found) == "".join(text.split())


def test_a_comment_in_code_is_no_heading() -> None:
    text = "# Bread\n\n```sh\n# not this\nls\n```\n\n## Storage\n\nIn a box.\n"
    (chunk,) = chunks(FileText(text, True))
    assert chunk.heading == "Bread"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = "Brot h\u00e4lt sich f\u00fcnf Tage, wenn es k\u00fchl steht.\n" * 3
    assert decode(text.encode(encoding)) == text


def test_html_that_is_malformed_is_read_as_far_as_it_goes() -> None:
    lines, places = html_text("<p>One<p>Two <b>three</p><script>x<p>four</script><ul><li>five")
    assert [line for line in lines if line] == ["One", "Two three", "five"]
    assert len(lines) == len(places)


def test_html_of_manuals() -> None:
    page = (
        "<div role='navigation'><div>next</div>Navigation</div>\n<h2>Sorting<a>\u00b6</a></h2>\n"
        "<pre><span>a</span> = <b>[]</b>\n<i># a comment</i>\n\na.sort()\n</pre><p>Done.</p>"
    )
    lines, places = html_text(page)
    assert lines == [
        "## Sorting", "", "```", "a = []", "# a comment", "", "a.sort()", "```", "Done.", ""
    ]  # fmt: skip
    assert places == [2, 2, 3, 3, 4, 5, 6, 7, 7, 7]
    (chunk,) = chunks(FileText("\n".join(lines), True, "line", places))
    assert chunk.heading == "Sorting"


@pytest.mark.parametrize("query", ["\u9762\u5305", "\u4fdd\u9c9c", "\u9762"])
def test_chinese_is_found(notes: Path, index: Index, query: str) -> None:
    (notes / "bread.txt").write_text("\u9762\u5305\u4fdd\u9c9c\u7684\u65b9\u6cd5", "utf-8")
    (notes / "river.txt").write_text("\u6cb3\u6d41\u5f88\u957f", "utf-8")
    index.update([notes])
    assert names(index, query, notes) == ["bread.txt"]


# What is passed over


def test_hidden_and_ignored_files_are_not_the_owners_to_search(notes: Path, index: Index) -> None:
    for name in (
        "a.txt", ".hidden.txt", ".git/config.txt", "build/b.txt", "keep/c.log", "keep/d.log",
        "deep/e.txt", "deep/build/f.txt", "deep/er/g.tmp",
    ):  # fmt: skip
        path = notes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LOAF)
    (notes / ".gitignore").write_text("/build/\n*.log\n!keep/d.log\n\\\n")
    (notes / "deep" / ".gitignore").write_text("*.tmp\n")
    index.update([notes])
    assert sorted(names(index, "loaf", notes)) == ["a.txt", "d.log", "e.txt", "f.txt"]
    # Rules of the folders above, within the repository, count too.
    index.update([notes / "deep" / "er"])
    assert sorted(names(index, "loaf", notes)) == ["a.txt", "d.log", "e.txt", "f.txt"]


def test_no_link_leads_out(notes: Path, index: Index, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(LOAF)
    (notes / "inside.txt").write_text(LOAF)
    (notes / "alias.txt").symlink_to(notes / "inside.txt")
    (notes / "leak.txt").symlink_to(outside / "secret.txt")
    (notes / "leaks").symlink_to(outside)
    (notes / "loop").symlink_to(notes)
    (notes / "broken.txt").symlink_to(notes / "nothing")
    update = index.update([notes])
    assert sorted(names(index, "loaf", notes)) == ["alias.txt", "inside.txt"]
    assert not update.failures


def test_what_cannot_be_read_is_counted_and_costs_nothing_else(
    notes: Path, index: Index, tmp_path: Path
) -> None:
    (notes / "good.txt").write_text(LOAF)
    write_pdf(notes / "good.pdf", [LOAF])
    (notes / "damaged.pdf").write_bytes(b"%PDF-1.4\nnothing of the kind")
    write_pdf(notes / "scanned.pdf", [""])
    (notes / "damaged.docx").write_bytes(b"PK\x03\x04 no archive")
    with zipfile.ZipFile(notes / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * (300 << 20))
    with (notes / "large.log").open("wb") as large:
        large.truncate(4 << 30)
    (notes / "damaged.ipynb").write_text("{")
    (notes / "picture.png").write_bytes(b"\x89PNG\0\0\0\1")
    (notes / "empty.txt").write_bytes(b"")
    update = index.update([notes])
    assert {path.name: why for path, why in update.failures.items()} == {
        "damaged.pdf": "it is damaged (Failed to load document (PDFium: Data format error).)",
        "scanned.pdf": "it has no text, only images of it",
        "damaged.docx": "it is damaged (BadZipFile)",
        "bomb.docx": "it unpacks to more than 210 MB",
        "large.log": "larger than 21 MB",
        "damaged.ipynb": "not a notebook of format 4",
    }
    assert update.other == 1 and sorted(names(index, "loaf", notes)) == ["good.pdf", "good.txt"]
    again = index.update([notes])
    assert again.read == 0 and len(again.failures) == 6


def test_a_name_that_is_not_utf8(notes: Path, index: Index) -> None:
    name = os.path.join(os.fsencode(notes), b"br\xf6t.txt")
    with open(name, "wb") as file:
        file.write(LOAF.encode())
    index.update([notes])
    (found,) = index.search("loaf", [notes])
    assert os.fsencode(found.path) == name


# The index follows the files


def test_it_follows_what_changes(notes: Path, index: Index) -> None:
    for name in ("a", "b", "c"):
        (notes / f"{name}.txt").write_text(f"{name} {LOAF}")
    assert index.update([notes]).read == 3
    (notes / "a.txt").write_text("Rivers run.")
    (notes / "b.txt").unlink()
    (notes / "c.txt").rename(notes / "d.txt")
    update = index.update([notes])
    assert (update.files, update.removed) == (2, 2)
    assert names(index, "loaf", notes) == ["d.txt"] and names(index, "rivers", notes) == ["a.txt"]


def test_a_change_that_keeps_time_and_size_is_seen_where_it_was_just_made(
    notes: Path, index: Index
) -> None:
    path = notes / "a.txt"
    path.write_text("rivers")
    status = path.stat()
    index.update([notes])
    path.write_text("bakery")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    index.update([notes])
    assert names(index, "bakery", notes) == ["a.txt"] and not names(index, "rivers", notes)


def test_texts_of_deleted_files_are_erased(notes: Path, index: Index) -> None:
    (notes / "a.txt").write_text("xylophone " * 50)
    (notes / "b.txt").write_text("rivers")
    index.update([notes])
    (notes / "a.txt").unlink()
    index.update([notes])
    index.close()
    kept = b"".join(p.read_bytes() for p in index.path.parent.iterdir())
    assert b"xylophon" not in kept and b"river" in kept


def test_it_is_for_the_user_alone(notes: Path, index: Index) -> None:
    (notes / "a.txt").write_text(LOAF)
    index.update([notes])
    for file in index.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in notes.iterdir()) == ["a.txt"]


def test_folders_are_searched_apart(notes: Path, index: Index) -> None:
    for name in ("one", "one-more", "two"):
        (notes / name).mkdir()
        (notes / name / f"{name}.txt").write_text(LOAF)
    index.update([notes])
    assert names(index, "loaf", notes / "one") == ["one.txt"]
    assert len(names(index, "loaf", notes)) == 3
    # Those of a folder that is updated stay apart from its neighbours'.
    (notes / "one" / "one.txt").unlink()
    index.update([notes / "one"])
    assert sorted(names(index, "loaf", notes)) == ["one-more.txt", "two.txt"]


def test_a_file_alone_is_searched(notes: Path, index: Index) -> None:
    (notes / "a.txt").write_text(LOAF)
    (notes / "b.txt").write_text(LOAF)
    assert index.update([notes / "a.txt"]).files == 1
    assert names(index, "loaf", notes / "a.txt") == ["a.txt"]


def test_a_file_that_goes_away_meanwhile(
    notes: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erank_lite.search import index as module

    (notes / "a.txt").write_text(LOAF)
    (notes / "b.txt").write_text(LOAF)
    read = module.read_file

    def vanishing(path: Path) -> FileText:
        (notes / "b.txt").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(module, "read_file", vanishing)
    assert index.update([notes]).files == 1


def test_an_interruption_keeps_what_was_read(
    notes: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erank_lite.search import index as module

    for number in range(200):
        (notes / f"{number:03}.txt").write_text(LOAF)
    read, count = module.read_file, iter(range(1000))

    def interrupted(path: Path) -> FileText:
        if next(count) == 150:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(module, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.update([notes])
    assert 64 <= len(index) <= 150
    assert index.update([notes]).files == 200


def test_mistakes_are_one_line(notes: Path, index: Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder or file"):
        index.update([notes / "nothing"])
    with pytest.raises(InputError, match="no folder is given"):
        index.update([])
    with pytest.raises(InputError, match="query is empty"):
        index.search("  ", [notes])
    (tmp_path / "broken.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(ModelError, match="cache clear search"):
        Index(tmp_path / "broken.sqlite")


# Finding


@pytest.mark.parametrize(
    "query", ['"loaf', "loaf*", "loaf AND NOT box", "NEAR(loaf box)", "loaf:box", "it's a loaf's",
              "loaf -box", "the and of", "^loaf", "(loaf"]
)  # fmt: skip
def test_what_is_typed_is_words(notes: Path, index: Index, query: str) -> None:
    (notes / "a.txt").write_text(LOAF)
    index.update([notes])
    index.search(query, [notes])


def test_the_name_of_a_file_counts(notes: Path, index: Index) -> None:
    (notes / "bread-storage.txt").write_text("In a box.")
    index.update([notes])
    assert names(index, "how to store bread", notes) == ["bread-storage.txt"]


def test_the_model_orders_what_is_found(notes: Path, index: Index) -> None:
    texts = {"one": "Bread is baked.", "two": LOAF, "three": "Bread, bread, bread!"}
    for name, text in texts.items():
        (notes / f"{name}.txt").write_text(text)
    answers = {texts["one"]: 3, texts["two"]: 9, texts["three"]: 0}
    with Reranker(answering(answers)) as reranker:
        found = search("fresh bread", [notes], reranker, index=index)
    assert [p.found.path.stem for p in found] == ["two", "one", "three"]
    assert [p.score for p in found] == [4.5, 1.5, 0.0]


def test_the_order_settles_while_it_reads(notes: Path, index: Index) -> None:
    for number in range(6):
        (notes / f"{number}.txt").write_text(f"Bread {number}.")
    index.update([notes])
    found = index.search("bread", [notes])
    with Reranker(answering({"Bread 3.": 9})) as reranker:
        orders = list(judged("bread", found, reranker, index.stemmer))
    assert len(orders) == 7 and all(len(order) == 6 for order in orders)
    assert [sum(p.score is not None for p in order) for order in orders] == list(range(7))
    assert orders[-1][0].found.path.name == "3.txt"


def test_the_best_of_each_file(notes: Path, index: Index) -> None:
    long = "\n\n".join(f"Bread {n}. " + "It is baked of flour and water. " * 60 for n in range(4))
    (notes / "long.txt").write_text(long)
    (notes / "short.txt").write_text("Bread.")
    index.update([notes])
    *_, passages = judged("bread", index.search("bread", [notes]), None, index.stemmer)
    assert len(passages) > 2
    assert sorted(p.found.path.name for p in best_of_each_file(passages)) == [
        "long.txt", "short.txt"
    ]  # fmt: skip


def test_lines_are_read_from_the_index(notes: Path, index: Index) -> None:
    (notes / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 10)))
    index.update([notes])
    assert index.read(notes / "a.txt", 3, 2) == ["line 3", "line 4"]
    with pytest.raises(InputError, match="not in the index"):
        index.read(notes / "b.txt", 1, 2)
