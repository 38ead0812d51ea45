"""Reading of documents from files, folders and standard input."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from erank_lite.cli.documents import content_of, read_documents
from erank_lite.errors import InputError


def read(path: Path, name: str, data: str | bytes) -> list[dict[str, Any]]:
    file = path / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_documents([str(file)])


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize("name", ["d.jsonl", "d.ndjson", "D.JSONL"])
def test_json_lines_keep_every_key(tmp_path: Path, name: str):
    rows = [
        {"content": "a", "id": 7, "first_stage_score": 3, "more": {"deep": [1, None]}},
        {"text": "b", "id": None, "first_stage_score": None},
        {"text": "é\u2028ü", "content": "wins"},
    ]
    data = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    found = read(tmp_path, name, data)
    assert found == rows
    assert [content_of(r) for r in found] == ["a", "b", "wins"]


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"content":"a"}\n{"content":"b"}\n',
        b'{"content":"a"}\r\n{"content":"b"}\r\n',
        b'\n\n{"content":"a"}\n  \n{"content":"b"}',
    ],
    ids=["bom", "crlf", "blank lines"],
)
def test_json_lines_of_other_systems(tmp_path: Path, data: bytes):
    assert read(tmp_path, "d.jsonl", data) == [{"content": "a"}, {"content": "b"}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"content":', "not valid JSON"),
        ("{'content': 'a'}", "not valid JSON"),
        ('{"content": "a"} x', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"content": "a", "n": 1' + "0" * 5000 + "}", "not valid JSON"),
        ("[]", "object"),
        ("null", "object"),
        ("3", "object"),
        ("{}", "neither content nor text"),
        ('{"Content": "a"}', "neither content nor text"),
        ('{"content": 5}', "content is not a string"),
        ('{"text": ["a"]}', "text is not a string"),
        ('{"content": "a", "first_stage_score": "5"}', "first_stage_score"),
        ('{"content": "a", "first_stage_score": true}', "first_stage_score"),
        ('{"content": "a", "first_stage_score": NaN}', "first_stage_score"),
        ('{"content": "a", "first_stage_score": 1e999}', "first_stage_score"),
        ('{"content": "a", "first_stage_score": 1' + "0" * 400 + "}", "first_stage_score"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, says: str):
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path, "d.jsonl", f'{{"content": "fine"}}\n\n{line}\n{{"content": "fine"}}\n')
    assert "d.jsonl, line 3:" in str(caught.value)
    assert "\n" not in caught.value.message
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.tsv", "d.txt", "d"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"one\ntw\xffo\n", "line 2: byte 6 is not valid UTF-8"),
        (b"\xff\xfeo\x00n\x00e\x00", "line 1: byte 0 is not valid UTF-8"),
        (b"one\n\ntwo\x00\n", "line 3: a NUL byte"),
    ],
)
def test_bytes_that_are_no_text_are_named_by_line(
    tmp_path: Path, name: str, data: bytes, says: str
):
    with pytest.raises(InputError, match=says):
        read(tmp_path, name, data)


def test_a_json_list(tmp_path: Path):
    assert read(tmp_path, "d.json", '[{"text": "a"},\n {"content": "b"}]') == [
        {"text": "a"},
        {"content": "b"},
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('[{"text": "a"},\n {"text"]', "line 2: not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"text": "a"}', "must hold a list"),
        ("[" + "9" * 5000 + "]", "a number too long to read"),
        ('[{"text": "a"}, 3]', "item 1: a document must be a text, or an object"),
    ],
)
def test_a_json_file_that_is_no_list_of_documents(tmp_path: Path, data: str, says: str):
    with pytest.raises(InputError, match=says):
        read(tmp_path, "d.json", data)


def test_a_csv_with_scores(tmp_path: Path):
    data = '\ufeffid,content,first_stage_score\r\n1,"a, ""b""\r\nc",1e1\r\n\r\n2,d,\r\n3,e, -2 \r\n'
    assert read(tmp_path, "d.csv", data) == [
        {"id": "1", "content": 'a, "b"\r\nc', "first_stage_score": 10.0},
        {"id": "2", "content": "d", "first_stage_score": None},
        {"id": "3", "content": "e", "first_stage_score": -2.0},
    ]


def test_a_tsv(tmp_path: Path):
    assert read(tmp_path, "d.TSV", "text\tid\na, b\t1\n") == [{"text": "a, b", "id": "1"}]


def test_a_csv_field_may_be_large(tmp_path: Path):
    text = "word " * 100_000
    assert read(tmp_path, "d.csv", f"content\n{text}\n") == [{"content": text}]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("content,id,id\na,1,2\n", "two columns are named id"),
        ("id,body\n1,a\n", "no column is named content or text"),
        ("content,id\na,1\nb\n", "line 3: .*fields"),
        ("content,id\na,1,extra\n", "line 2: .*fields"),
        ("content,first_stage_score\na,high\n", "line 2: first_stage_score is not a number"),
        ("content,first_stage_score\na,nan\n", "line 2: first_stage_score is not a number"),
        ("content,first_stage_score\na,inf\n", "line 2: first_stage_score is not a number"),
        ('content,id\n"a"b,1\n', "line 2: "),
        ('content,id\na,1\n"b,2\n', "line 3: "),
        ('"content"x,id\na,1\n', "line 1: "),
        ('"content,id\na,1\n', "line [12]: "),
    ],
)
def test_a_bad_csv_is_named_by_line(tmp_path: Path, data: str, says: str):
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path, "d.csv", data)
    assert "\n" not in caught.value.message


def test_plain_lines_end_at_line_feeds_only(tmp_path: Path):
    data = "\ufeffone\r\n\n  \ntwo\x0cstill\u2028two\x85\n three \nfour"
    assert [r["content"] for r in read(tmp_path, "d.txt", data)] == [
        "one",
        "two\x0cstill\u2028two\x85",
        " three ",
        "four",
    ]


@pytest.mark.parametrize("name", ["d.txt", "d.jsonl", "d"])
@pytest.mark.parametrize("data", ["", "\n\n", "  \n"])
def test_an_empty_file_holds_no_documents(tmp_path: Path, name: str, data: str):
    assert read(tmp_path, name, data) == []


def test_a_folder_of_text_files(tmp_path: Path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, text in {
        "b.txt": "bee\nbee\n",
        "a.md": "ay",
        "deep/er/c.RST": "sea",
        "empty.text": "",
        "picture.png": "no",
    }.items():
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "folder.txt").mkdir()
    assert read_documents([str(tmp_path)]) == [
        {"id": "a.md", "content": "ay"},
        {"id": "b.txt", "content": "bee\nbee\n"},
        {"id": "deep/er/c.RST", "content": "sea"},
        {"id": "empty.text", "content": ""},
    ]


def test_a_folder_without_text_files(tmp_path: Path):
    with pytest.raises(InputError, match=r"no text files.*\.txt"):
        read_documents([str(tmp_path)])


def test_a_bad_file_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "bad.txt").write_bytes(b"x\n\xff")
    with pytest.raises(InputError, match=r"bad\.txt, line 2: byte 2"):
        read_documents([str(tmp_path)])


def test_sources_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stdin(monkeypatch, b"from stdin\n")
    (tmp_path / "a.txt").write_text("line\n")
    (tmp_path / "b.jsonl").write_text('{"text": "json"}\n')
    found = read_documents([str(tmp_path / "b.jsonl"), "-", str(tmp_path / "a.txt")])
    assert [content_of(r) for r in found] == ["json", "from stdin", "line"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one\ntwo\n", [{"content": "one"}, {"content": "two"}]),
        (b'\n {"text": "a", "id": 1}\n', [{"text": "a", "id": 1}]),
        (b'\xef\xbb\xbf{"content": "a"}', [{"content": "a"}]),
        (
            b'[{"id": 1, "content": "a"},\n {"text": "b"}]\n',
            [{"id": 1, "content": "a"}, {"text": "b"}],
        ),
        (b'[\n "a",\n "b"\n]', [{"content": "a"}, {"content": "b"}]),
        (b"[1] a footnote\nprose\n", [{"content": "[1] a footnote"}, {"content": "prose"}]),
        (b'id,content\n1,"a, b"\n', [{"id": "1", "content": "a, b"}]),
        (b'id\ttext\n1\t"a\n', [{"id": "1", "text": '"a'}]),
        (b"content\na\n", [{"content": "content"}, {"content": "a"}]),
        (b"bread, cheese\nwine, oil\n", [{"content": "bread, cheese"}, {"content": "wine, oil"}]),
    ],
)
def test_standard_input_is_read_by_its_look(
    monkeypatch: pytest.MonkeyPatch, data: bytes, expected: list[dict[str, Any]]
):
    stdin(monkeypatch, data)
    assert read_documents(["-"]) == expected


@pytest.mark.parametrize("name", ["d.jsonl.bak", "fd"])
def test_a_file_of_another_name_is_read_by_its_look(tmp_path: Path, name: str):
    assert read(tmp_path, name, '{"content": "a"}\n') == [{"content": "a"}]


def test_a_json_file_may_hold_lines(tmp_path: Path):
    assert read(tmp_path, "d.json", '{"text": "a"}\n{"text": "b"}\n') == [
        {"text": "a"},
        {"text": "b"},
    ]


def test_texts_alone_are_documents(tmp_path: Path):
    assert read(tmp_path, "d.json", '["bread", "oil"]') == [
        {"content": "bread"},
        {"content": "oil"},
    ]
    assert read(tmp_path, "d.jsonl", '"bread"\n') == [{"content": "bread"}]


def test_a_content_that_is_null_gives_way_to_the_text(tmp_path: Path):
    (found,) = read(tmp_path, "d.jsonl", '{"content": null, "text": "a"}')
    assert content_of(found) == "a" and found["content"] is None


def test_tabs_separate_whatever_is_quoted(tmp_path: Path):
    data = (
        'id\ttext\r\n1\t"Bread is best kept in a box\n2\tthe bakery opens at six\n\n3\tsaid "so"\n'
    )
    assert [r["text"] for r in read(tmp_path, "d.tsv", data)] == [
        '"Bread is best kept in a box', "the bakery opens at six", 'said "so"',
    ]  # fmt: skip
    with pytest.raises(InputError, match="line 3: it has 3 fields, and the header has 2"):
        read(tmp_path, "d.tsv", "id\ttext\n1\ta\n2\tb\tc\n")


def test_lines_may_end_as_they_did_on_old_macs(tmp_path: Path):
    assert read(tmp_path, "d.txt", "a\rb\r") == [{"content": "a"}, {"content": "b"}]


@pytest.mark.parametrize("name", ["d.jsonl.gz", "D.JSONL.GZ", "d.jsonl"])
def test_packed_files_are_unpacked(tmp_path: Path, name: str):
    assert read(tmp_path, name, gzip.compress(b'{"text": "a"}\n')) == [{"text": "a"}]


def test_a_packed_file_that_is_damaged(tmp_path: Path):
    whole = gzip.compress(b'{"text": "a"}\n' * 99)
    for data in (whole[:-9], whole[:12] + b"x" + whole[13:]):
        with pytest.raises(InputError, match="cannot be unpacked"):
            read(tmp_path, "d.jsonl.gz", data)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python reads Zstandard")
def test_zstandard_is_named_where_python_lacks_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"Zstandard, which Python reads from 3\.14 on"):
        read(tmp_path, "d.jsonl.zst", b"\x28\xb5\x2f\xfd....")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d.txt").write_text("a\n")
    assert read_documents(["~/d.txt"]) == [{"content": "a"}]


def test_a_broken_line_of_standard_input(monkeypatch: pytest.MonkeyPatch):
    stdin(monkeypatch, b'{"content": "a"}\n{"content": \n')
    with pytest.raises(InputError, match="standard input, line 2: not valid JSON"):
        read_documents(["-"])


def test_a_closed_standard_input_is_an_input_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input"):
        read_documents(["-"])


@pytest.mark.parametrize(
    "name", ["missing.txt", "missing/deeper.jsonl", "x" * 300, "y/" * 3000, "a.txt/b"]
)
def test_a_source_that_is_not_there(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_text("a file, not a folder\n")
    with pytest.raises(InputError) as caught:
        read_documents([str(tmp_path / name)])
    assert name.split("/")[0][:20] in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path):
    file = tmp_path / "d.txt"
    file.write_text("secret\n")
    file.chmod(0)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_documents([str(file)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_in_a_folder_without_permission(tmp_path: Path):
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "d.txt").write_text("secret\n")
    folder.chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be read"):
            read_documents([str(folder / "d.txt")])
    finally:
        folder.chmod(0o700)


def test_a_missing_file_is_told_with_what_was_meant(tmp_path: Path):
    read(tmp_path, "documents.jsonl", '{"content": "a"}')
    with pytest.raises(InputError) as close:
        read_documents([str(tmp_path / "document.jsonl")])
    assert close.value.hint == f"did you mean `{tmp_path / 'documents.jsonl'}`?"
    for elsewhere in (tmp_path / "other.csv", tmp_path / "no-folder" / "documents.jsonl"):
        with pytest.raises(InputError, match="there is no file or folder") as far:
            read_documents([str(elsewhere)])
        assert far.value.hint == "give a file, a folder, or - for standard input"
