"""Names that become files, against a server that speaks the Hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import write_checkpoint
from support.command import is_a_clear_line, rows, run
from support.hub_server import COMMIT, Hub, serving

from erank_lite.models.gguf import GGUFFile

PRINT = (
    "import sys; from erank_lite.models.prepare import gguf_file; "
    "from erank_lite.models.ref import ModelRef; print(gguf_file(ModelRef.parse(sys.argv[1])))"
)
NOISE = np.random.default_rng(0).bytes(24_000_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({"a-Q8_0.gguf": NOISE, "README.md": b"# a\n"})) as server:
        yield server


def environment(hub: Hub | None, cache: Path, **more: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    url = hub.url if hub else "http://127.0.0.1:9"
    own |= {"HF_ENDPOINT": url, "ERANK_LITE_CACHE": str(cache), "HF_HOME": str(cache / "hf")}
    return own | more


def ask(name: str, hub: Hub | None, cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask for a model's file, without reading it."""
    command = [sys.executable, "-c", PRINT, name]
    surroundings = environment(hub, cache, **more)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=surroundings, cwd=cache
    )


def path_of(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def refusal(hub: Hub | None, cache: Path, name: str, **more: str) -> str:
    done = run("rerank", "--model", name, "--query", "q", "-", stdin=b"d\n",
               env=environment(hub, cache, **more))  # fmt: skip
    return is_a_clear_line(done)


def test_a_named_file_is_brought_once(hub: Hub, tmp_path: Path) -> None:
    path = path_of(ask("owner/tiny/a-Q8_0.gguf", hub, tmp_path))
    assert path.read_bytes() == NOISE
    asked = len(hub.requests)
    assert path_of(ask("owner/tiny/a-Q8_0.gguf", hub, tmp_path)) == path
    assert path_of(ask("owner/tiny:q8_0", None, tmp_path)) == path
    assert len(hub.requests) == asked
    listed = rows(run("cache", "list", "--json", env=environment(None, tmp_path)).stdout)
    assert [(e["name"], e["size"]) for e in listed] == [("owner/tiny", len(NOISE))]
    assert run("cache", "clear", "owner/tiny", env=environment(None, tmp_path)).returncode == 0
    assert not list(tmp_path.rglob("*.gguf"))


def test_the_gguf_of_the_type_is_taken(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {"b/a-q4_k_m.gguf": b"4", "a-IQ4_XS.gguf": b"i"}
    assert path_of(ask("owner/tiny", hub, tmp_path)).read_bytes() == b"4"
    assert path_of(ask("owner/tiny:IQ4_XS", hub, tmp_path)).read_bytes() == b"i"
    assert path_of(ask(f"owner/tiny@{COMMIT}:Q8_0", hub, tmp_path)).read_bytes() == NOISE
    line = refusal(hub, tmp_path, "owner/tiny:Q6_K")
    assert "no GGUF of type Q6_K" in line and "a-IQ4_XS.gguf" in line


def test_all_parts_of_a_split_file_are_brought(hub: Hub, tmp_path: Path) -> None:
    first, second = (f"big/a-Q6_K-0000{i}-of-00002.gguf" for i in (1, 2))
    hub.files |= {first: b"1", second: b"2"}
    for name in ("owner/tiny:Q6_K", f"owner/tiny/{second}"):
        path = path_of(ask(name, hub, tmp_path))
        assert path.name == Path(first).name and path.read_bytes() == b"1"
        assert path.with_name(Path(second).name).read_bytes() == b"2"
    path.with_name(Path(second).name).unlink()
    path_of(ask("owner/tiny:Q6_K", hub, tmp_path))
    assert path.with_name(Path(second).name).read_bytes() == b"2"


def test_a_cut_connection_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut["a-Q8_0.gguf"] = 12_000_000
    assert path_of(ask("owner/tiny:Q8_0", hub, tmp_path)).read_bytes() == NOISE
    first, second = hub.transfers("a-Q8_0.gguf")
    assert first is None and second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 12_000_000


def test_a_killed_download_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.hold.set()
    command = [sys.executable, "-c", PRINT, "owner/tiny:Q8_0"]
    surroundings = environment(hub, tmp_path)
    surroundings["HF_HUB_DOWNLOAD_TIMEOUT"] = "60"
    first = subprocess.Popen(command, env=surroundings, stderr=subprocess.DEVNULL, cwd=tmp_path)
    partial = tmp_path / f"hub/models--owner--tiny/snapshots/{COMMIT}/a-Q8_0.gguf.partial"
    for _ in range(300):
        if partial.is_file() and partial.stat().st_size > 0:
            break
        time.sleep(0.1)
    first.kill()
    first.wait()
    brought = partial.stat().st_size
    assert 0 < brought < len(NOISE) and not partial.with_suffix("").exists()
    hub.hold.clear()
    assert path_of(ask("owner/tiny:Q8_0", hub, tmp_path)).read_bytes() == NOISE
    assert hub.transfers("a-Q8_0.gguf")[-1] == f"bytes={brought}-"


@pytest.mark.parametrize("name", ["a-Q8_0.gguf", "README.md"])
def test_a_wrong_digest_is_refused_and_not_kept(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files = {**write_files(tmp_path / "source"), "a-Q8_0.gguf": NOISE, "README.md": b"# a\n"}
    hub.wrong = {name}
    wanted = "owner/tiny:Q8_0" if name.endswith(".gguf") else "owner/tiny:BF16"
    assert f"{name} of owner/tiny arrived damaged" in refusal(hub, tmp_path, wanted)
    assert not list(tmp_path.rglob(f"snapshots/**/{name}*"))
    hub.wrong = set()
    assert path_of(ask("owner/tiny:Q8_0", hub, tmp_path)).read_bytes() == NOISE


def write_files(folder: Path, **options: Any) -> dict[str, bytes]:
    write_checkpoint(folder, **options)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_refusals_say_what_to_do(hub: Hub, tmp_path: Path) -> None:
    assert "no such model on the Hub" in refusal(hub, tmp_path, "owner/other")
    assert "no revision 'v9'" in refusal(hub, tmp_path, "owner/tiny@v9:Q8_0")
    assert "has no file `x.gguf`; it has a-Q8_0.gguf" in refusal(hub, tmp_path, "owner/tiny/x.gguf")
    assert "there is no GGUF type 'Q9'" in refusal(hub, tmp_path, "owner/tiny:Q9")
    assert "named OWNER/NAME" in refusal(hub, tmp_path, "tiny")
    assert "no file or folder `models/tiny.gguf`" in refusal(hub, tmp_path, "models/tiny.gguf")
    hub.gated = True
    assert "accept its terms" in refusal(hub, tmp_path, "owner/tiny:Q8_0")
    hub.gated = False
    hub.token = "secret"
    assert "HF_TOKEN" in refusal(hub, tmp_path, "owner/tiny:Q8_0")
    assert path_of(ask("owner/tiny:Q8_0", hub, tmp_path, HF_TOKEN="secret")).is_file()
    hub.token = None
    hub.files = {"README.md": b"# only words\n"}
    assert "no checkpoint in safetensors" in refusal(hub, tmp_path, "owner/tiny@main:BF16")
    hub.files = {"a-Q8_0-00001-of-00002.gguf": b"1"}
    assert "lacks a-Q8_0-00002-of-" in refusal(hub, tmp_path / "b", "owner/tiny:Q8_0")
    hub.status = 503
    line = refusal(hub, tmp_path / "c", "owner/tiny:Q8_0")
    assert "HTTP 503" in line and "hf download owner/tiny" in line


def test_offline_says_how_to_bring_it(tmp_path: Path) -> None:
    for line in (
        refusal(None, tmp_path, "owner/tiny@v1"),
        refusal(None, tmp_path, "owner/tiny@v1", HF_HUB_OFFLINE="1"),
    ):
        assert "hf download owner/tiny --revision v1 --local-dir FOLDER" in line


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name in ("", " ", ":Q4_K_M", "a" * 5000):
        line = refusal(None, tmp_path, name)
        assert "name" in line or "no file or folder" in line
    write_checkpoint(tmp_path / "m")
    done = run("convert", "gguf", f"{tmp_path / 'm'}:Q6_K", tmp_path / "o.gguf")
    assert "give the folder alone" in is_a_clear_line(done)
    (tmp_path / "file").touch()
    done = run("cache", "list", env=environment(None, tmp_path / "file"))
    assert "is a file, not a folder" in is_a_clear_line(done)
    assert not list(tmp_path.glob("hub/*"))


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}", '{"id": "o/m", "sha": "../x"}'])
def test_an_endpoint_that_is_no_hub(tmp_path: Path, answer: str) -> None:
    with serving(Hub({}, answer=answer.encode())) as server:
        assert "answers what no Hub answers" in refusal(server, tmp_path, "owner/tiny:Q8_0")


def test_names_in_a_repository_cannot_leave_it(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"../../../a-Q8_0.gguf": NOISE, "config.json": b"{}"}
    assert "no checkpoint" in refusal(hub, tmp_path / "cache", "owner/tiny:Q8_0")
    assert not list(tmp_path.rglob("*.gguf"))


def test_a_checkpoint_is_converted_once_by_two_processes(hub: Hub, tmp_path: Path) -> None:
    hub.files = write_files(tmp_path / "source", shards=2)
    command = [sys.executable, "-c", PRINT, "owner/tiny:Q8_0"]
    both = [
        subprocess.Popen(
            command, env=environment(hub, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=tmp_path,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=100) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    for name in hub.files:
        assert len(hub.transfers(name)) == 1, name
    meta = GGUFFile.read(Path(outputs[0][0].strip())).metadata
    assert meta["erank_lite.source"] == "owner/tiny" and meta["erank_lite.revision"] == COMMIT
    assert meta["general.source.url"] == "https://huggingface.co/owner/tiny"
    assert (meta["general.name"], meta["general.license"]) == ("Tiny", "apache-2.0")

    # Another type is made of the same download, offline; so is one that reranks.
    before = len(hub.requests)
    done = run("rerank", "--model", "owner/tiny:F16", "--query", "q", "--thinking", "none",
               "--json", "-", stdin=b"one\ntwo\n", env=environment(hub, tmp_path))  # fmt: skip
    assert done.returncode == 0 and len(rows(done.stdout)) == 2, done.stderr
    assert len(hub.requests) == before


def test_a_checkpoint_in_the_hubs_own_cache_is_used(hub: Hub, tmp_path: Path) -> None:
    hub.files = write_files(tmp_path / "source")
    script = (
        "import sys; from huggingface_hub import hf_hub_download as d\n"
        "for name in sys.argv[1:]: d('owner/tiny', name)"
    )
    surroundings = environment(hub, tmp_path)
    subprocess.run(
        [sys.executable, "-c", script, *hub.files], env=surroundings, check=True, timeout=90
    )
    before = len(hub.requests)
    assert path_of(ask("owner/tiny:BF16", None, tmp_path)).is_file()
    assert len(hub.requests) == before


def test_convert_takes_a_name(hub: Hub, tmp_path: Path) -> None:
    hub.files = write_files(tmp_path / "source")
    out = tmp_path / "out.gguf"
    done = run("convert", "gguf", "owner/tiny", out, "--type", "BF16",
               env=environment(hub, tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert GGUFFile.read(out).metadata["erank_lite.source"] == "owner/tiny"
