"""Evaluations by the command: what it is called with, what it leaves, and how it is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.command import COMMAND, run
from support.judged import QUERIES, beir

WORDS = ("river", "loaf", "game", "volcano", "violin", "tide", "beehive", "glacier", "lantern")


def everything_found(folder: Path) -> Path:
    """Write a collection whose every document is found for every query."""
    draw = random.Random(5)
    documents = {f"d{i}": " ".join(draw.choices(WORDS, k=40)) + " cat postman" for i in range(30)}
    judged = {q: {d: draw.randint(0, 2) for d in documents} for q in ("q1", "q2", "q3")}
    queries = {q: f"cat postman {text}" for q, text in QUERIES.items()}
    return beir(folder, documents, queries, judged)


def command(model: Path, collection: Path, out: Path, *more: str) -> list[str]:
    """Return the words of an evaluation without reasoning, after the name of the program."""
    spec = f"{model},threads=1"
    options = ["--model", spec, "--out", str(out), "--thinking", "none", *more]
    return ["eval", str(collection), *options]


def kept(out: Path) -> list[dict[str, object]]:
    """Return what was kept of each document, in the order in which it came."""
    (file,) = out.glob("kept/*/documents.jsonl")
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def the_run(out: Path, suffix: str = ".trec") -> bytes:
    """Return the one run, or the hybrid one."""
    (file,) = (f for f in out.glob("runs/*/*.trec") if ("hybrid" in f.name) == ("hybrid" in suffix))
    return file.read_bytes()


def the_record(out: Path) -> dict[str, object]:
    """Return the one record of quality."""
    (file,) = out.glob("records/quality-*.json")
    return json.loads(file.read_text())


def killed_until_done(arguments: list[str], out: Path, kills: int, seed: int) -> int:
    """Kill the command at random moments, then let it end; return how many kills met it at work."""
    draw, met = random.Random(seed), 0
    for _ in range(kills):
        before = len(kept(out)) if list(out.glob("kept/*/documents.jsonl")) else 0
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wanted = before + draw.randint(0, 4)
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            files = list(out.glob("kept/*/documents.jsonl"))
            if files and files[0].read_bytes().count(b"\n") >= wanted:
                break
            time.sleep(0.002)
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        met += process.wait() == -signal.SIGKILL
    assert run(*arguments).returncode == 0
    return met


def a_strict_run_survives_kills(model: Path, folder: Path, kills: int) -> None:
    """Assert that a strict run that was killed at random moments ends as an undisturbed one."""
    collection = everything_found(folder / "many")
    undisturbed, out = folder / "undisturbed", folder / "killed"
    more = ("--depth", "30", "--strict")
    assert run(*command(model, collection, undisturbed, *more)).returncode == 0
    assert killed_until_done(command(model, collection, out, *more), out, kills, 1) > kills // 2
    for suffix in (".trec", ".hybrid.trec"):
        assert the_run(out, suffix) == the_run(undisturbed, suffix)
    assert the_record(out)["measures"] == the_record(undisturbed)["measures"]


def nothing_is_lost_or_done_twice(model: Path, folder: Path, kills: int) -> None:
    """Assert that a run that was killed at random moments keeps each document once."""
    collection = everything_found(folder / "many")
    undisturbed, out = folder / "undisturbed", folder / "killed"
    more = ("--depth", "30")
    assert run(*command(model, collection, undisturbed, *more)).returncode == 0
    assert killed_until_done(command(model, collection, out, *more), out, kills, 2) > kills // 2
    expected = {(row["query"], row["id"]): row for row in kept(undisturbed)}
    rows = kept(out)
    assert len(rows) == 90 == len(expected)
    assert {(row["query"], row["id"]) for row in rows} == set(expected)
    for row in rows:
        other = expected[row["query"], row["id"]]
        assert row["score"] == other["score"]
        # The noise of another batch, which the README states.
        assert row["probability"] == pytest.approx(other["probability"], rel=0.02)
