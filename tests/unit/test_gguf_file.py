"""The reader of GGUF headers: sound files, and files that were cut, changed or made up."""

from __future__ import annotations

import json
import random
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from support.gguf_files import QWEN, gguf_bytes, gguf_string, write_gguf
from support.tokenizers import ADDED

from erank_lite.cli.inspect import describe
from erank_lite.errors import ModelError
from erank_lite.models.gguf import GGUFFile


def read(path: Path, data: bytes) -> GGUFFile:
    file = path / "model.gguf"
    file.write_bytes(data)
    return GGUFFile.read(file)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound file of some 60 kB with every part that a real one has."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    texts = ["a", "b", "ab", *ADDED]
    return write_gguf(path, texts, [1] * len(texts), layers=1, width=32).read_bytes()


def test_it_reads_what_the_official_package_reads(tiny_gguf: Path):
    ours, theirs = GGUFFile.read(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    assert ours.version == 3 and ours.architecture == "qwen3"
    assert ours.size == tiny_gguf.stat().st_size
    assert [(t.name, t.shape, t.type, t.size) for t in ours.tensors] == [
        (t.name, tuple(map(int, t.shape)), t.tensor_type.name, t.n_bytes) for t in theirs.tensors
    ]
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata.keys() == fields.keys()
    for key, value in fields.items():
        assert ours.metadata[key] == value, key


SPLITS = [{"split_max_tensors": 5}, {"split_max_tensors": 5, "small_first_shard": True}]


def parts(folder: Path, **split: Any) -> list[Path]:
    folder.mkdir(exist_ok=True)
    texts = ["a", "b", "ab", *ADDED]
    write_gguf(folder / "m.gguf", texts, [1] * len(texts), layers=1, width=32, **split)
    return sorted(folder.glob("m*.gguf"))


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_model_is_read_whole_by_the_name_of_any_part(tmp_path: Path, split: dict[str, Any]):
    (whole,) = parts(tmp_path / "whole")
    expected = GGUFFile.read(whole)
    some = parts(tmp_path, **split)
    assert len(some) > 2
    for part in some:
        found = GGUFFile.read(part)
        assert (found.path, found.parts) == (some[0], tuple(some))
        assert found.size == sum(p.stat().st_size for p in some)
        assert sorted(t.name for t in found.tensors) == sorted(t.name for t in expected.tensors)
        assert found.shape() == expected.shape()
        assert describe(found)["parameters"] == describe(expected)["parameters"]


def test_parts_that_do_not_make_a_model_are_named(tmp_path: Path):
    first, second, *_, last = parts(tmp_path, **SPLITS[0])
    end = last.read_bytes()
    last.write_bytes(second.read_bytes())
    with pytest.raises(ModelError, match=f"{last.name}` is not part"):
        GGUFFile.read(second)
    last.unlink()
    with pytest.raises(ModelError, match=f"{last.name}` is missing"):
        GGUFFile.read(second)
    last.write_bytes(end)
    first.rename(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=f"{first.name}` is missing"):
        GGUFFile.read(second)
    with pytest.raises(ModelError, match="not by its name"):
        GGUFFile.read(tmp_path / "other.gguf")


@pytest.mark.parametrize(
    ("code", "number"),
    [(code, 1) for code in "BbHhIifQqd"]
    + [("?", True), ("i", -5), ("q", -(2**62)), ("Q", 2**64 - 1), ("d", 0.1), ("f", [1.5, -2.0])]
    + [("B", []), ("I", [1, 2, 3])],
)
def test_every_type_of_value(tmp_path: Path, code: str, number: Any):
    found = read(tmp_path, gguf_bytes({"key": (code, number), "after": "kept"}))
    assert found.metadata == {"key": number, "after": "kept"}


def test_strings_and_lists_of_strings(tmp_path: Path):
    metadata = {"a": "é\0\n", "b": ["", "ü"], "c": [], "": "empty key"}
    assert read(tmp_path, gguf_bytes(metadata)).metadata == metadata


def test_text_that_is_no_utf8_is_read_with_marks(tmp_path: Path):
    assert read(tmp_path, gguf_bytes({"a": b"x\xff"})).metadata == {"a": "x\ufffd"}


def test_lists_of_lists(tmp_path: Path):
    inner = struct.pack("<IQII", 4, 2, 7, 8)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_string("k")
    data += struct.pack("<IIQ", 9, 9, 2) + inner + inner
    assert read(tmp_path, data).metadata == {"k": [[7, 8], [7, 8]]}


@pytest.mark.parametrize("version", [2, 3])
def test_versions_that_can_be_read(tmp_path: Path, version: int):
    found = read(tmp_path, gguf_bytes(QWEN, version=version))
    assert (found.version, found.architecture) == (version, "qwen3")


@pytest.mark.parametrize("version", [1, 4, 255, 2**32 - 1])
def test_other_versions_are_named(tmp_path: Path, version: int):
    with pytest.raises(ModelError, match=f"is GGUF version {version}; versions 2 and 3"):
        read(tmp_path, gguf_bytes(QWEN, version=version))


def test_a_big_endian_file_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="big-endian"):
        read(tmp_path, b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64))


@pytest.mark.parametrize(
    "data",
    [b"", b"GGUF", b"GGU", bytes(23), bytes(100), b"PK\x03\x04" + bytes(100), b"text\n" * 20],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes):
    with pytest.raises(ModelError, match="is not a GGUF file"):
        read(tmp_path, data)


def test_no_file(tmp_path: Path):
    with pytest.raises(ModelError, match="there is no file"):
        GGUFFile.read(tmp_path / "missing.gguf")


def test_a_folder(tmp_path: Path):
    with pytest.raises(ModelError, match="is a folder"):
        GGUFFile.read(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a.gguf/b.gguf"])
def test_a_path_that_cannot_be(tmp_path: Path, name: str):
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be read"):
        GGUFFile.read(tmp_path / name)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, small: bytes):
    for i in range(60):
        end = i * len(small) // 60
        with pytest.raises(ModelError):
            read(tmp_path, small[:end])
            pytest.fail(f"{end} of {len(small)} bytes were read as a whole file")


def test_a_header_cut_at_any_byte_is_refused(tmp_path: Path):
    tensors = (("first", (4, 2), 0, 0), ("second", (8,), 1, 32))
    data = gguf_bytes({"k": ("I", [1, 2]), "s": ["a", "b"], **QWEN}, tensors, data=64)
    read(tmp_path, data[:-16])  # the last tensor ends here
    for end in range(len(data) - 16):
        with pytest.raises(ModelError):
            read(tmp_path, data[:end])


def test_a_byte_short_is_cut_short(tmp_path: Path, small: bytes):
    read(tmp_path, small)
    with pytest.raises(ModelError, match="is cut short"):
        read(tmp_path, small[:-1].rstrip(b"\0")[:-8])


def mutants(sound: bytes, count: int) -> list[bytes]:
    draw = random.Random(20240607)
    header = sound.index(b"token_embd.weight") + 2000
    found = []
    for _ in range(count):
        data = bytearray(sound)
        data[draw.randrange(min(header, len(data)))] = draw.randrange(256)
        found.append(bytes(data))
    return found


def test_a_changed_byte_never_raises_anything_else(tmp_path: Path, small: bytes):
    refused = 0
    for data in mutants(small, 1500):
        try:
            read(tmp_path, data)
        except ModelError as error:
            refused += 1
            assert "\n" not in error.message
    assert 100 < refused < 1500


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


DESCRIBE = """
import json, sys
from pathlib import Path
from erank_lite.cli.inspect import describe
from erank_lite.errors import ModelError
from erank_lite.models.gguf import GGUFFile
other = []
for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
    try:
        json.dumps(describe(GGUFFile.read(path)))
    except ModelError:
        pass
    except BaseException as error:
        other.append(f"{path.name}: {error!r}"[:200])
print(json.dumps(other))
"""


def undescribed(folder: Path) -> list[str]:
    """Describe every model of `folder` in a process of limited memory; return what went wrong."""
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, str(folder)],
        capture_output=True,
        timeout=100,
        preexec_fn=limit_memory,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout)
    return found


def test_a_changed_byte_never_breaks_inspect(tmp_path: Path, small: bytes):
    for number, data in enumerate(mutants(small, 600)):
        (tmp_path / f"{number:04}.gguf").write_bytes(data)
    assert undescribed(tmp_path) == []


STRANGE: list[dict[str, Any]] = [
    {"qwen3.block_count": "many"},
    {"qwen3.block_count": ("I", 2**32 - 1)},
    {"qwen3.block_count": ("I", [1, 2])},
    {"qwen3.block_count": ("f", float("nan"))},
    {"qwen3.embedding_length": ["x"]},
    {"qwen3.embedding_length": ("f", float("inf"))},
    {"qwen3.attention.head_count": "x", "qwen3.attention.key_length": "y"},
    {"qwen3.attention.head_count": ("I", [])},
    {"qwen3.attention.head_count": ("I", 0)},
    {"qwen3.attention.head_count": ("f", 0.0)},
    {"qwen3.attention.head_count": ("i", -4)},
    {"qwen3.attention.head_count_kv": ["x"]},
    {"qwen3.attention.head_count_kv": "x"},
    {"tokenizer.ggml.tokens": ("I", 5)},
    {"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.eos_token_id": ("i", -9)},
    {"erank_lite.end_token_ids": ("I", 7)},
    {"tokenizer.ggml.tokens": ("f", [1.0]), "tokenizer.ggml.eos_token_id": ("I", 0)},
    {"general.architecture": ("I", 3)},
    {"general.name": ("f", [1.0])},
]


def test_metadata_of_the_wrong_type_never_breaks_inspect(tmp_path: Path):
    for number, strange in enumerate(STRANGE):
        (tmp_path / f"{number:02}.gguf").write_bytes(gguf_bytes(QWEN | strange))
    assert undescribed(tmp_path) == []


@pytest.mark.parametrize(
    "alignment", ["x", ("I", [32]), ("f", float("nan")), ("d", float("inf")), ("i", -32), ("I", 0)]
)
def test_an_alignment_that_is_none_is_refused(tmp_path: Path, alignment: Any):
    with pytest.raises(ModelError):
        read(tmp_path, gguf_bytes(QWEN | {"general.alignment": alignment}))


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_other_alignments(tmp_path: Path, alignment: int):
    metadata = {"general.alignment": ("I", alignment)}
    data = gguf_bytes(metadata, data=0)
    start = -(-len(data.rstrip(b"\0")) // alignment) * alignment
    assert len(read(tmp_path, data[:start].ljust(start + 16 + 32, b"\0")).tensors) == 1


@pytest.mark.parametrize("counts", [(2**64 - 1, 0), (1, 2**64 - 1), (2**63, 2**63), (2, 9)])
def test_counts_that_lie_are_refused_at_once(tmp_path: Path, counts: tuple[int, int]):
    with pytest.raises(ModelError, match="damaged or cut short"):
        read(tmp_path, gguf_bytes(QWEN, counts=counts, data=0))


@pytest.mark.parametrize("count", [10**6, 2**40, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("item", [0, 4, 7, 8, 9, 12])
def test_a_list_longer_than_the_file_is_refused_at_once(tmp_path: Path, item: int, count: int):
    data = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + gguf_string("k")
        + struct.pack("<IIQ", 9, item, count)
    )
    with pytest.raises(ModelError, match="damaged or cut short"):
        read(tmp_path, data + b"\1" * 1000)


@pytest.mark.parametrize("value_type", [13, 99, 2**32 - 1])
def test_an_unknown_type_of_value_is_refused(tmp_path: Path, value_type: int):
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_string("k") + struct.pack("<I", value_type)
    with pytest.raises(ModelError, match="damaged"):
        read(tmp_path, data + bytes(100))


def test_lists_nested_without_end_are_refused(tmp_path: Path):
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_string("k") + struct.pack("<I", 9)
    with pytest.raises(ModelError, match="damaged"):
        read(tmp_path, data + struct.pack("<IQ", 9, 1) * 100_000)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (("w", (2**40,), 0, 0), "tensor w should end at byte"),
        (("w", (2**63, 2**63), 0, 0), "tensor w should end at byte"),
        (("w", (4,), 0, 2**63), "tensor w should end at byte"),
        (("w", (4,), 4, 0), "type 4"),
        (("w", (4,), 12345, 0), "type 12345"),
        (("w", (1,) * 9, 0, 0), "damaged"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tmp_path: Path, tensor: Any, says: str):
    with pytest.raises(ModelError, match=says):
        read(tmp_path, gguf_bytes(QWEN, (tensor,)))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (QWEN, 2 * 36 * 8 * 256),
        ({k: v for k, v in QWEN.items() if "_length" not in k or "emb" in k}, 2 * 36 * 8 * 160),
        ({k: v for k, v in QWEN.items() if "_kv" not in k}, 2 * 36 * 32 * 256),
        (QWEN | {"qwen3.attention.head_count_kv": ("I", [8, 0, 4])}, 2 * 12 * 256),
        ({}, 0),
    ],
    ids=["all", "no head size", "no grouped heads", "per layer", "nothing"],
)
def test_the_cache_of_a_token(tmp_path: Path, metadata: dict[str, Any], expected: int):
    assert read(tmp_path, gguf_bytes(metadata)).cache_bytes_per_token == expected


def test_describe_says_what_matters(tiny_gguf: Path):
    facts = describe(GGUFFile.read(tiny_gguf))
    assert facts["file"] == str(tiny_gguf)
    assert facts["architecture"] == "qwen3" and facts["gguf_version"] == 3
    assert (facts["layers"], facts["hidden_size"], facts["context_length"]) == (2, 64, 2048)
    assert facts["tensors_by_type"] == {"F32": 24}
    assert facts["vocabulary"] == 262 and facts["end_tokens"] == ["<|im_end|>"]
    assert facts["chat_template"] is True
    head = gguf.GGUFReader(tiny_gguf).fields["qwen3.attention.key_length"].contents()
    assert facts["cache_bytes_per_token"] == 2 * 2 * 2 * (head + head)
    assert facts["size_bytes"] > 4 * facts["parameters"] > 0


CLASSIFIER = (("cls.weight", (4,), 0, 0),)


@pytest.mark.parametrize(
    ("metadata", "tensors", "verdict"),
    [
        (QWEN | {"general.name": "ERank 4B"}, None, "yes: .*ERank-4B"),
        (QWEN | {"general.basename": "erank"}, None, "yes: .*ERank-4B"),
        (QWEN, None, "perhaps: it has the shape of ERank-4B"),
        (QWEN | {"general.name": "ERank", "qwen3.block_count": ("I", 2)}, None, "perhaps: .*named"),
        (QWEN | {"qwen3.block_count": ("I", 2)}, None, "no: neither"),
        (QWEN | {"general.architecture": "llama"}, None, "no: .*this is llama"),
        ({k: v for k, v in QWEN.items() if "template" not in k}, None, "no: .*chat template"),
        (QWEN | {"qwen3.pooling_type": ("I", 4)}, None, "no: .*classifier"),
        (QWEN, CLASSIFIER, "no: .*classifier"),
    ],
)
def test_the_verdict(tmp_path: Path, metadata: dict[str, Any], tensors: Any, verdict: str):
    found = read(tmp_path, gguf_bytes(metadata, tensors or (("w", (4,), 0, 0),)))
    assert re.match(verdict, describe(found)["looks_like_erank"])


def test_a_real_model(smollm2: Path):
    found = GGUFFile.read(smollm2)
    facts = describe(found)
    assert facts["architecture"] == "llama" and facts["layers"] == 30
    assert facts["vocabulary"] == 49152 and facts["chat_template"] is True
    assert "Q4_1" in facts["tensors_by_type"]
    assert facts["looks_like_erank"].startswith("no:")
