"""Importance matrices: what is summed, how it is kept, what is refused, what a quantizer makes of
it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from support.checkpoints import SIZE, write_checkpoint
from support.command import is_a_clear_line, run
from support.gguf_files import keys_of, tensors_of
from support.llama_cpp_tools import tool
from support.reporter import RecordingReporter

from erank_lite import ggml
from erank_lite.convert.calibration import DEFAULT, digest, read_examples
from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.convert.imatrix import source as weighing
from erank_lite.convert.imatrix.collect import collect
from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.convert.imatrix.graph import Tensors
from erank_lite.errors import InputError, ModelError
from erank_lite.load import engine_for_calibration
from erank_lite.models.checkpoint import BUNDLED_FOLDER
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.util.reporter import Reporter

WIDTH, FFN = 256, 512
KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def draw(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, SIZE, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose rows are whole blocks of llama.cpp's types."""
    folder = tmp_path_factory.mktemp("imatrix") / "m"
    return write_checkpoint(folder, dtype="F32", width=WIDTH, ffn=FFN)


@pytest.fixture(scope="module")
def model(source: Path) -> Path:
    """The same as a GGUF file in 32 bits."""
    path = source.with_name("model.gguf")
    convert_gguf(source, path, "F32")
    return path


def matrix_of(model: Path, seed: int = 0, **changes: Any) -> ImportanceMatrix:
    """Return a matrix of random numbers that fits."""
    rng = np.random.default_rng(seed)
    sums = {
        t.name: rng.uniform(0.01, 9, t.shape[0]).astype(np.float32) ** 3
        for t in GGUFFile.read(model).tensors
        if t.name.startswith("blk.") and len(t.shape) == 2
    }
    fields = {"sums": sums, "counts": dict.fromkeys(sums, 100), "datasets": ("a text",),
              "chunks": 4, "chunk_size": 25} | changes  # fmt: skip
    return ImportanceMatrix(**fields)


@pytest.fixture
def matrix(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "matrix.gguf"
    matrix_of(model).write(path)
    return path


# What is summed


def test_sums_are_the_squares_of_what_a_weight_is_multiplied_by(model: Path) -> None:
    samples = draw([1, 20, 600])  # the last takes two passes, of which one is short
    found = collect(model, iter(samples), threads=1)
    assert set(found.sums) == {f"blk.{i}.{kind}.weight" for i in range(2) for kind in KINDS}
    assert set(found.counts.values()) == {621}
    stored = {t.name: np.array(t.data) for t in gguf.GGUFReader(model).tensors}
    rows = stored["token_embd.weight"][[i for sample in samples for i in sample]].astype(np.float64)
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6)
    expected = ((rows * stored["blk.0.attn_norm.weight"]) ** 2).sum(axis=0)
    np.testing.assert_allclose(found.sums["blk.0.attn_q.weight"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.weights("blk.0.attn_q.weight"), expected / 621, rtol=1e-5)
    for i in range(2):
        q, k, v, _, gate, up, down = (found.sums[f"blk.{i}.{kind}.weight"] for kind in KINDS)
        assert (q == k).all() and (q == v).all() and (gate == up).all()
        assert down.shape == (FFN,) and (down > 0).all()
    assert (found.chunks, found.chunk_size) == (3, 207)
    assert found.notes == {"source": "m", "ids_sha256": digest(samples)}
    assert found.datasets == (f"token ids, sha256 {digest(samples)}",)


def test_samples_never_see_each_other(model: Path) -> None:
    one, other = draw([40, 30])
    both, first, second, joined = (
        collect(model, samples, threads=1).sums["blk.1.ffn_down.weight"]
        for samples in ([one, other], [one], [other], [one + other])
    )
    np.testing.assert_allclose(both, first + second, rtol=1e-5)
    assert np.abs(joined / both - 1).max() > 1e-3


def test_progress_is_told_in_tokens(model: Path) -> None:
    reporter = RecordingReporter()
    collect(model, draw([600, 20]), threads=1, reporter=reporter)
    assert reporter.reports == [("activations", n, 620, "tokens") for n in (0, 512, 600, 620)]


@pytest.mark.parametrize("samples", [[], [[]], [[1, 2], []]])
def test_samples_must_have_tokens(model: Path, source: Path, samples: list[list[int]]) -> None:
    with pytest.raises(InputError, match="the samples are empty"):
        collect(model, samples)
    with pytest.raises(InputError, match="the samples are empty"):
        convert_gguf(source, source.with_name("none.gguf"), "Q4_K_M", imatrix=samples)


def test_ids_that_the_model_does_not_have_are_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="its token ids are not all of the model's"):
        collect(model, [[1, 2, SIZE + 5]])


def test_numbers_that_are_none_are_refused(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    shutil.copyfile(model, broken)
    for tensor in gguf.GGUFReader(broken, "r+").tensors:
        if tensor.name == "blk.1.ffn_norm.weight":
            tensor.data[:] = 1e30
    with pytest.raises(ModelError, match=r"multiplies blk\.1\.ffn_gate\.weight by infinities"):
        collect(broken, draw([20]))


def test_another_layout_of_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Tensors()
    function = ggml.function

    def sourceless(name: str, *types: Any) -> Any:
        return (lambda context, a, b: a) if name == "ggml_mul_mat" else function(name, *types)

    monkeypatch.setattr(ggml, "function", sourceless)
    with pytest.raises(ModelError, match="keeps its tensors in another way"):
        Tensors()


# The files


def same(a: ImportanceMatrix, b: ImportanceMatrix) -> bool:
    return a.counts == b.counts and all((a.sums[n] == b.sums[n]).all() for n in a.sums | b.sums)


def test_a_matrix_is_read_as_it_was_written(model: Path, tmp_path: Path) -> None:
    written = matrix_of(model, notes={"source": "m", "ids_sha256": "abc"})
    path = tmp_path / "x.gguf"
    written.write(path)
    found = ImportanceMatrix.read(path)
    assert same(written, found) and [p.name for p in tmp_path.iterdir()] == ["x.gguf"]
    for name in ("datasets", "chunks", "chunk_size", "notes"):
        assert getattr(found, name) == getattr(written, name)
    metadata = keys_of(path)
    assert metadata["general.type"] == "imatrix" and "general.architecture" not in metadata
    # A weight that nothing came to has columns that matter alike.
    empty = matrix_of(model, counts=dict.fromkeys(written.sums, 0))
    assert (empty.weights("blk.0.attn_q.weight") == 1).all()


# What is refused


def without(matrix: ImportanceMatrix, name: str) -> dict[str, Any]:
    return {"sums": {n: s for n, s in matrix.sums.items() if n != name}}


def test_a_matrix_of_another_model_is_refused(model: Path) -> None:
    good = matrix_of(model)
    columns = {name: sums.size for name, sums in good.sums.items()}
    good.check(columns)
    odd = np.ones(8, np.float32)
    counts = {**good.counts, "blk.2.attn_q.weight": 1, "output.weight": 1}
    matrix_of(model, sums={**good.sums, "output.weight": odd}, counts=counts).check(columns)
    q = "blk.0.attn_q.weight"
    for changes, said in (
        (without(good, q), f"another model: it lacks {q}$"),
        ({"sums": {q: good.sums[q]}}, r"it lacks blk\.0\.attn_k\.weight \(13 such in all\)"),
        ({"sums": {**good.sums, "blk.2.attn_q.weight": odd}}, r"it has blk\.2\.attn_q\.weight"),
        ({"sums": {**good.sums, q: odd}}, f"{q} has 8 columns in it, and {WIDTH} in the model"),
        ({"sums": {**good.sums, q: good.sums[q] * np.nan}}, f"damaged: its numbers for {q}"),
        ({"sums": {**good.sums, q: -good.sums[q]}}, f"damaged: its numbers for {q}"),
    ):
        with pytest.raises(ModelError, match=said):
            matrix_of(model, counts=counts, **changes).check(columns)


def test_the_command_refuses_what_cannot_be_used_in_a_line(
    source: Path, model: Path, matrix: Path, tmp_path: Path
) -> None:
    files = {"text": b"hello, world\n" * 9, "old.dat": b"\x01\0\0\0\x03\0\0\0a.b", "nil": b"",
             "cut.gguf": matrix.read_bytes()[:-600]}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    matrix_of(model, sums=without(matrix_of(model), "blk.1.ffn_up.weight")["sums"]).write(
        tmp_path / "short.gguf"
    )
    out = tmp_path / "out.gguf"
    for name, kind, said in (
        ("text", "Q4_K_M", "text` is not an importance matrix"),
        ("nil", "Q4_K_M", "nil` is not an importance matrix"),
        ("old.dat", "Q4_K_M", "write an old .dat file again by a current llama-imatrix, as GGUF"),
        ("cut.gguf", "Q4_K_M", "cut.gguf"),
        ("short.gguf", "Q4_K_M", "of another model: it lacks blk.1.ffn_up.weight"),
        (str(model), "Q4_K_M", "is not an importance matrix, but a model (qwen3)"),
        ("nowhere", "Q4_K_M", "nowhere` cannot be read: No such file or directory"),
        (str(tmp_path), "Q4_K_M", "cannot be read: Is a directory"),
        (matrix.name, "BF16", "an importance matrix has no effect on BF16"),
        (matrix.name, "q8_0", "an importance matrix has no effect on Q8_0"),
        ("auto", "F16", "an importance matrix has no effect on F16"),
    ):
        done = run("convert", "gguf", source, out, "--type", kind, "--imatrix", name, cwd=tmp_path)
        assert said in is_a_clear_line(done), name
    done = run("convert", "gguf", source, out, "--type", "IQ2_M")
    assert "IQ2_M needs an importance matrix" in is_a_clear_line(done)
    assert "--imatrix auto" in is_a_clear_line(done)
    assert not list(tmp_path.glob("out*"))


# What a quantizer makes of it


def converted(source: Path, out: Path, kind: str, **options: Any) -> dict[str, tuple[str, bytes]]:
    convert_gguf(source, out, kind, force=True, threads=1, **options)
    return tensors_of(out)


def test_a_matrix_changes_the_layers_and_is_named(
    source: Path, model: Path, matrix: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    plain = converted(source, out, "Q4_K_M")
    assert plain == converted(source, out, "Q4_K_M")
    assert not [key for key in keys_of(out) if "imatrix" in key]
    weighed = converted(source, out, "Q4_K_M", imatrix=matrix)
    assert {n for n in plain if plain[n] != weighed[n]} == set(matrix_of(model).sums)
    assert {k: v for k, v in keys_of(out).items() if k.startswith("quantize.")} == {
        "quantize.imatrix.file": matrix.name,
        "quantize.imatrix.dataset": "a text",
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 4,
    }
    matrix_of(model, seed=1, datasets=("ü" * 100,)).write(matrix)
    assert weighed != converted(source, out, "Q4_K_M", imatrix=str(matrix))
    assert keys_of(out)["quantize.imatrix.dataset"] == "ü" * 63  # all that llama.cpp takes


@pytest.mark.parametrize("kind", ["IQ2_XS", "IQ3_XXS", "Q2_K_S"])
def test_types_that_need_a_matrix_are_made_with_one(
    source: Path, matrix: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out.gguf"
    estimate = convert_gguf(source, out, kind, imatrix=matrix, threads=1)
    assert kind.removesuffix("_S") in {t for t, _ in tensors_of(out).values()}
    assert out.stat().st_size <= estimate.size < out.stat().st_size * 1.2


def test_samples_are_read_and_not_kept(source: Path, model: Path, tmp_path: Path) -> None:
    samples = draw([30, 50])
    out, file = tmp_path / "out.gguf", tmp_path / "collected.gguf"
    found = converted(source, out, "Q4_K_M", imatrix=samples)
    assert keys_of(out)["quantize.imatrix.dataset"] == f"token ids, sha256 {digest(samples)}"
    collect(model, samples, threads=1).write(file)
    assert found == converted(source, out, "Q4_K_M", imatrix=file)


def test_the_models_own_text_is_read_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))
    triples = tmp_path / "triples.jsonl"
    triples.write_text(DEFAULT.read_text().splitlines()[0])
    monkeypatch.setattr(weighing, "DEFAULT", triples)
    out = tmp_path / "out.gguf"

    def stages(kind: str) -> tuple[dict[str, tuple[str, bytes]], list[str]]:
        reporter = RecordingReporter()
        found = converted(
            source, out, kind, imatrix="auto", open_engine=engine_for_calibration, reporter=reporter
        )
        return found, reporter.stages

    first, seen = stages("Q4_K_M")
    assert seen[0] == "writing" and {"reasoning", "activations"} < set(seen)  # Q8_0, which writes
    again, seen = stages("Q4_K_M")
    assert again == first and seen == ["writing", "quantizing", "checking"]
    _, seen = stages("IQ2_XS")
    assert seen == ["writing", "quantizing", "checking"]
    (kept,) = (tmp_path / "cache").rglob("imatrix.gguf")
    dataset = ImportanceMatrix.read(kept).datasets[0]
    assert dataset.startswith("erank-lite calibration, own text, sha256 ")
    assert keys_of(out)["quantize.imatrix.dataset"] == dataset
    assert keys_of(out)["quantize.imatrix.file"] == "imatrix.gguf"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-64])  # damaged
    assert "activations" in stages("Q4_K_M")[1] and kept.read_bytes() == whole
    completions = kept.with_name("completions.jsonl")
    completions.write_text('{"prompt": 0, "ids": [1, 2, 3]}\n')  # another text
    assert "activations" in stages("Q4_K_M")[1] and kept.read_bytes() != whole
    assert [p.name for p in kept.parent.iterdir() if "partial" in p.name] == []


def test_an_interruption_leaves_nothing(source: Path, tmp_path: Path) -> None:
    class Interrupting(Reporter):
        def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
            if stage == "activations" and done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_gguf(
            source, tmp_path / "out.gguf", "Q4_K_M", imatrix=draw([600] * 9),
            reporter=Interrupting(),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


# Against llama.cpp's own programs: see test_convert_reference.py; LLAMA_IMATRIX names its
# llama-imatrix.


def reference(program: Path, *arguments: str | Path, folder: Path) -> None:
    libraries = os.environ.get("LLAMA_CPP_LIB_PATH", str(Path(llama_cpp.__file__).parent / "lib"))
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=600, cwd=folder,
        env=os.environ | {"LD_LIBRARY_PATH": libraries},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def compare(model: Path, folder: Path) -> None:
    """Compare the sums over a text; leave ours and theirs, computed alike, in `folder`."""
    program = tool("LLAMA_IMATRIX", "llama-imatrix")
    text = " ".join(t.document for t in read_examples(DEFAULT)[:5])
    (folder / "text.txt").write_text(text)
    ids = Tokenizer.from_gguf(GGUFFile.read(model).metadata, model).encode(text).ids
    size = 128
    chunks = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
    assert len(chunks) >= 5
    ours = collect(model, chunks, threads=1)
    # Kernels for repacked weights are not used here, and some crash: see the engine's amx.py.
    usual = ("-m", model, "-f", "text.txt", "-c", str(size), "-t", "1", "--no-ppl", "--no-repack")
    # Four chunks decoded together; then one, as is done here.
    for options in (("-b", str(4 * size)), ("-b", str(size))):
        reference(program, *usual, "-o", "theirs.gguf", *options, folder=folder)
        theirs = ImportanceMatrix.read(folder / "theirs.gguf")
        assert ours.sums.keys() == theirs.sums.keys() and theirs.datasets == ("text.txt",)
        assert theirs.chunks == ours.chunks == len(chunks)
        for name in ours.sums:
            np.testing.assert_allclose(ours.weights(name), theirs.weights(name), rtol=1e-3)
    assert theirs.counts == ours.counts and theirs.chunk_size == ours.chunk_size == size
    ours.write(folder / "ours.gguf")


@pytest.mark.reference
def test_sums_are_llama_imatrixs(smollm2: Path, tmp_path: Path) -> None:
    compare(smollm2, tmp_path)


@pytest.mark.reference
def test_files_are_llama_quantizes(source: Path, tmp_path: Path) -> None:
    program = tool("LLAMA_QUANTIZE", "llama-quantize")
    convert_gguf(BUNDLED_FOLDER, tmp_path / "whole.gguf", "BF16")
    compare(tmp_path / "whole.gguf", tmp_path)
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    reference(program, "--imatrix", theirs, "whole.gguf", "l.gguf", "Q4_K_M", "2", folder=tmp_path)
    found = converted(BUNDLED_FOLDER, tmp_path / "e.gguf", "Q4_K_M", imatrix=ours)
    assert found == tensors_of(tmp_path / "l.gguf")
    a, b = keys_of(tmp_path / "e.gguf"), keys_of(tmp_path / "l.gguf")
    named = {"erank_lite.type", "quantize.imatrix.file", "quantize.imatrix.dataset"}
    assert {key for key in a | b if a.get(key) != b.get(key)} == named
    convert_gguf(source, tmp_path / "whole.gguf", "F32", force=True)
    matrix_of(tmp_path / "whole.gguf").write(tmp_path / "m.gguf")
    for kind in ("IQ1_M", "IQ2_XS", "IQ3_XXS", "IQ4_XS", "Q2_K_S", "Q4_0"):
        reference(program, "--imatrix", "m.gguf", "whole.gguf", "l.gguf", kind, folder=tmp_path)
        found = converted(source, tmp_path / "e.gguf", kind, imatrix=tmp_path / "m.gguf")
        assert found == tensors_of(tmp_path / "l.gguf"), kind
