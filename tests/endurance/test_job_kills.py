"""Long jobs that are killed at random moments: a batch of queries, and the index of a folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.command import COMMAND

from erank_lite.search import Index

pytestmark = pytest.mark.slow
QUERIES, DOCUMENTS, KILLS = 200, 20, 20
WORDS = ("river", "loaf", "game", "volcano", "violin", "tide", "beehive", "glacier", "lantern",
         "postman", "cat", "sourdough")  # fmt: skip


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of JSON: queries with documents of their own."""
    draw = random.Random(3)
    file = tmp_path_factory.mktemp("batch") / "in.jsonl"
    with file.open("w") as out:
        for number in range(QUERIES):
            documents = [
                {"id": f"d{i}", "content": " ".join(draw.choices(WORDS, k=4))}
                for i in range(DOCUMENTS)
            ]
            query = " ".join(draw.choices(WORDS, k=2))
            out.write(json.dumps({"id": f"q{number}", "query": query, "documents": documents}))
            out.write("\n")
    return file


def command(queries: Path, model: Path, out: Path, *more: str) -> list[str]:
    """Return the words of a batch without reasoning, in which no result depends on others."""
    return [
        *COMMAND, "batch", str(queries), "--out", str(out), "--model", str(model), "--thinking",
        "none", "--strict", "--no-cache", "-o", "threads=1", *more,
    ]  # fmt: skip


def duration(words: list[str], **options: Any) -> float:
    """Return the seconds that a command takes undisturbed."""
    begun = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, timeout=1500, **options)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def whole(queries: Path, tiny_gguf: Path) -> tuple[bytes, float, float]:
    """What an undisturbed run writes, the seconds that it takes, and those until it judges."""
    out, one = queries.with_name("whole.jsonl"), queries.with_name("one.jsonl")
    one.write_text(queries.read_text().splitlines(keepends=True)[0])
    start = duration(command(one, tiny_gguf, queries.with_name("one-out.jsonl")))
    seconds = duration(command(queries, tiny_gguf, out))
    return out.read_bytes(), seconds, start


def test_a_batch_killed_at_random_moments_is_the_same(
    queries: Path, tiny_gguf: Path, whole: tuple[bytes, float, float], tmp_path: Path
) -> None:
    """The moments follow the machine's own pace, so that most fall before the job is done."""
    expected, seconds, start = whole
    draw, out, killed = random.Random(0), tmp_path / "out.jsonl", 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(queries, tiny_gguf, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(start * (0.5 + 0.5 * draw.random()) + draw.random() * seconds / KILLS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        if out.exists():  # On an uneven machine the job may be done before its last kill.
            break
    assert killed >= KILLS // 2, (killed, seconds, start)
    if not out.exists():
        done = subprocess.run(
            command(queries, tiny_gguf, out), capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected
    ids = [json.loads(line)["id"] for line in out.read_bytes().splitlines()]
    assert ids == [f"q{number}" for number in range(QUERIES)]


def test_shards_are_the_whole(
    queries: Path, tiny_gguf: Path, whole: tuple[bytes, float, float], tmp_path: Path
) -> None:
    lines: dict[str, bytes] = {}
    for part in range(3):
        out = tmp_path / f"part-{part}.jsonl"
        subprocess.run(
            command(queries, tiny_gguf, out, "--shard", f"{part}/3"),
            check=True, capture_output=True, timeout=1500,
        )  # fmt: skip
        for line in out.read_bytes().splitlines():
            assert lines.setdefault(json.loads(line)["id"], line) == line
    assert b"".join(lines[f"q{n}"] + b"\n" for n in range(QUERIES)) == whole[0]


def test_an_index_killed_at_random_moments_finds_all(tmp_path: Path) -> None:
    """The next search is of all files, and of what changed between."""
    draw, folder = random.Random(1), tmp_path / "notes"
    folder.mkdir()
    for number in range(1600):
        lines = (" ".join(draw.choices(WORDS, k=12)) for _ in range(60))
        (folder / f"n{number}.md").write_text(f"# Note {number}\n\n" + "\n\n".join(lines))
    cache = os.environ | {"ERANK_LITE_CACHE": str(tmp_path / "cache")}
    search = [*COMMAND, "search", "volcano glacier", str(folder), "--no-rerank", "--json"]
    # How long this machine takes, for the whole index and where nothing has changed.
    apart = os.environ | {"ERANK_LITE_CACHE": str(tmp_path / "apart")}
    whole, start = duration(search, env=apart), duration(search, env=apart)
    killed = 0
    for moment in range(12):
        process = subprocess.Popen(
            search, env=cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(0.5 * start + 0.2 * (whole - start) * draw.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        (folder / f"n{moment}.md").write_text("# Changed\n\nvolcano glacier zeppelin")
        (folder / f"n{100 + moment}.md").unlink()
    assert killed >= 6, (killed, whole, start)
    done = subprocess.run(search, env=cache, capture_output=True, text=True, timeout=300)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    with Index(tmp_path / "fresh.sqlite") as index:
        assert index.update([folder]).files == 1588
        expected = index.search("volcano glacier", [folder], 20)
    best = list(dict.fromkeys(str(passage.path) for passage in expected))[:10]
    assert [row["path"] for row in found] == best
    search[search.index("volcano glacier")] = "zeppelin"
    done = subprocess.run(
        [*search, "--top-k", "20"], env=cache, capture_output=True, text=True, timeout=300
    )
    names = sorted(Path(json.loads(line)["path"]).name for line in done.stdout.splitlines())
    assert names == sorted(f"n{moment}.md" for moment in range(12))
