"""Checkpoints become GGUF files: what is written, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from filelock import FileLock
from support.checkpoints import (
    HEAD,
    HEADS,
    KV_HEADS,
    SIZE,
    bf16,
    encoded,
    qwen3_tensors,
    write_checkpoint,
    write_safetensors,
)
from support.command import is_a_clear_line, rows, run, said
from support.gguf_files import keys_of, tensors_of
from support.reporter import RecordingReporter
from support.tokenizers import CHAT_TEMPLATE

from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.errors import ErankLiteError, InputError, ModelError
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.ref import TYPES
from erank_lite.util.reporter import Reporter
from erank_lite.util.units import file_size


def converted(source: Path, kind: str, **options: Any) -> Path:
    out = source.with_name(f"{source.name}-{kind}.gguf")
    convert_gguf(source, out, kind, **options)
    assert sorted(p.name for p in out.parent.glob(f"{out.name}*")) == [out.name]
    return out


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return what a checkpoint in `dtype` holds of values."""
    if dtype == "BF16":
        return (np.frombuffer(bf16(values), np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float32).ravel()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_numbers_are_those_of_the_gguf_package(tmp_path: Path, dtype: str, kind: str) -> None:
    untied = dtype == "BF16"
    source = write_checkpoint(tmp_path / "m", dtype=dtype, tied=not untied, shards=1 + 2 * untied)
    ours = tensors_of(converted(source, kind))
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 2)
    expected = qwen3_tensors(SIZE, tied=not untied)
    assert len(ours) == len(expected)
    for name, values in expected.items():
        wanted = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else kind]
        data = gguf.quantize(as_stored(values, dtype).reshape(values.shape), wanted)
        our_name = theirs.get_name(name, try_suffixes=(".weight",))
        assert ours[our_name] == (wanted.name, data.tobytes()), name


def test_llamas_rotated_rows_are_put_side_by_side(tmp_path: Path) -> None:
    source = write_checkpoint(
        tmp_path / "m",
        architectures=["LlamaForCausalLM"],
        tensors={
            n: v for n, v in qwen3_tensors(SIZE).items() if n[-13:-7] not in ("q_norm", "k_norm")
        },
    )
    out = converted(source, "F32")
    assert keys_of(out)["general.architecture"] == "llama"
    ours = tensors_of(out)
    for name, letter, heads in (("attn_q", "q", HEADS), ("attn_k", "k", KV_HEADS)):
        stored = qwen3_tensors(SIZE)[f"model.layers.1.self_attn.{letter}_proj.weight"]
        rows_of = as_stored(stored, "BF16").reshape(heads, HEAD, -1)
        expected = np.empty_like(rows_of)
        expected[:, 0::2], expected[:, 1::2] = rows_of[:, : HEAD // 2], rows_of[:, HEAD // 2 :]
        assert ours[f"blk.1.{name}.weight"][1] == expected.tobytes()


def test_both_generations_of_configurations_give_the_same_file(tmp_path: Path) -> None:
    yarn = {"factor": 4.0, "original_max_position_embeddings": 512, "beta_fast": 32.0}
    old = write_checkpoint(tmp_path / "4" / "m", rope_scaling={"type": "yarn", **yarn})
    new = write_checkpoint(
        tmp_path / "5" / "m",
        inline_template=False,
        rope_theta=None,
        torch_dtype=None,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1000000, **yarn},
        layer_types=["full_attention"] * 2,
    )
    first, second = converted(old, "Q8_0"), converted(new, "Q8_0")
    assert first.read_bytes() == second.read_bytes()
    keys = keys_of(first)
    assert keys["qwen3.rope.scaling.type"] == "yarn"
    assert keys["qwen3.rope.scaling.factor"] == 4.0
    assert keys["qwen3.rope.scaling.original_context_length"] == 512
    assert keys["qwen3.rope.scaling.yarn_beta_fast"] == 32.0
    assert keys["qwen3.rope.freq_base"] == 1000000


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    # Neither this folder's name nor the heading of its README makes it a classifier.
    source = write_checkpoint(tmp_path / "Qwen3-Reranker-4B")
    out = converted(source, "Q8_0")
    keys = keys_of(out)
    assert not any("cls" in t.name for t in GGUFFile.read(out).tensors)
    assert not any("pooling" in key or "classifier" in key for key in keys)
    assert keys["erank_lite.end_token_ids"] == [256, 258]
    assert keys["erank_lite.max_new_tokens"] == 512
    assert keys["erank_lite.source"] == "Qwen3-Reranker-4B"
    assert keys["erank_lite.type"] == "Q8_0"
    assert keys["general.license"] == "apache-2.0"
    assert keys["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    assert keys["tokenizer.chat_template"] == CHAT_TEMPLATE
    kinds = keys["tokenizer.ggml.token_type"]
    assert kinds[256:262] == [3, 3, 3, 4, 4, 1] and kinds[262:] == [5] * 3
    assert str(tmp_path) not in str(keys)


def test_the_file_that_a_link_names_is_made(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "real.gguf")
    convert_gguf(source, tmp_path / "link.gguf", "BF16")
    assert (tmp_path / "link.gguf").is_symlink() and (tmp_path / "real.gguf").stat().st_size
    with pytest.raises(InputError, match="--force replaces it"):
        convert_gguf(source, tmp_path / "link.gguf", "BF16")


def test_numbers_of_the_generation_that_gguf_cannot_hold(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m")
    change_json(
        "generation_config.json", lambda g: g.update(top_k=10**20, max_new_tokens=10**20, top_p=0.5)
    )(source)
    keys = keys_of(converted(source, "BF16"))
    assert "erank_lite.max_new_tokens" not in keys
    assert "general.sampling.top_k" not in keys and keys["general.sampling.top_p"] == 0.5


def test_a_broken_model_card_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_checkpoint(tmp_path / "m")
    (source / "README.md").write_text("---\nlicense: [a, b]\ntags: {x: 1}\n---\n")
    assert "general.license" not in keys_of(converted(source, "BF16"))
    (source / "README.md").write_text("---\na: [b\n---\n")
    assert keys_of(converted(source, "BF16", force=True))["general.architecture"] == "qwen3"
    assert "model card cannot be read" in caplog.text


@pytest.mark.parametrize("kind", ["Q6_K", "Q4_K_M", "IQ4_XS", "Q2_K"])
def test_quantized_files_are_those_of_llama_model_quantize(tmp_path: Path, kind: str) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)
    whole, theirs = converted(source, "BF16"), tmp_path / "theirs.gguf"
    reporter = RecordingReporter()
    ours = converted(source, kind, reporter=reporter)
    script = (
        "import sys, llama_cpp as l; p = l.llama_model_quantize_default_params()\n"
        "p.ftype = int(sys.argv[3])\n"
        "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))"
    )
    kind_id = str(int(gguf.LlamaFileType[f"MOSTLY_{kind}"]))
    subprocess.run([sys.executable, "-c", script, whole, theirs, kind_id], check=True, timeout=60)
    assert tensors_of(ours) == tensors_of(theirs)
    block = {"Q6_K": "Q6_K", "Q4_K_M": "Q4_K", "IQ4_XS": "IQ4_XS", "Q2_K": "Q2_K"}[kind]
    assert tensors_of(ours)["blk.1.attn_q.weight"][0] == block
    a, b = keys_of(ours), keys_of(theirs)
    assert {k for k in a | b if a.get(k) != b.get(k)} == {"erank_lite.type"}
    for stage in ("writing", "quantizing", "checking"):
        done = [(d, t) for s, d, t, _ in reporter.reports if s == stage]
        assert done == sorted(done) and done[-1][0] == done[-1][1]


def test_needs_are_announced_and_kept(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)
    for kind in ("BF16", "Q4_K_M"):
        out, reporter = tmp_path / "out.gguf", RecordingReporter()
        need = convert_gguf(source, out, kind, force=True, reporter=reporter)
        assert out.stat().st_size <= need.size < out.stat().st_size * 1.1
        assert need.disk >= need.size and need.seconds > 0
        (message,) = reporter.messages
        assert message.startswith(f"the file will have {file_size(need.size)}; on the way it takes")


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ3_XXS", "Q2_K_S"])
def test_types_that_need_an_importance_matrix_say_so(tmp_path: Path, kind: str) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)
    with pytest.raises(ModelError, match=f"{kind} needs an importance matrix"):
        convert_gguf(source, tmp_path / "out.gguf", kind)
    assert not list(tmp_path.glob("out*"))


def test_every_type_has_a_number() -> None:
    names = {t.name.partition("_")[2] for t in gguf.LlamaFileType}
    assert set(TYPES) <= names


def change_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def mend(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return mend


def config(**changes: Any) -> Callable[[Path], None]:
    return change_json("config.json", lambda c: c.update(changes))


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def mend(folder: Path) -> None:
        entries = {n: encoded(v, "BF16") for n, v in qwen3_tensors(SIZE).items()}
        change(entries)
        write_safetensors(folder / "model.safetensors", entries)

    return mend


def truncated(name: str, keep: float) -> Callable[[Path], None]:
    def mend(folder: Path) -> None:
        os.truncate(folder / name, int((folder / name).stat().st_size * keep))

    return mend


def written(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def token(**flags: Any) -> Callable[[Path], None]:
    return change_json("tokenizer.json", lambda t: t["added_tokens"][1].update(flags))


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda value: value.pop(key)


def prefixed(prefix: str) -> Callable[[Path], None]:
    return renamed(lambda name: prefix + name)


def renamed(name: Callable[[str], str]) -> Callable[[Path], None]:
    def rename(tensors: dict[str, Any]) -> None:
        entries = {name(key): value for key, value in tensors.items()}
        tensors.clear()
        tensors.update(entries)

    return rewritten(rename)


NORM = "model.norm.weight"
EXTRA = encoded(np.ones(4), "BF16")
MISTAKES: list[tuple[str, Callable[[Path], Any]]] = [
    ("it has no config.json", lambda f: (f / "config.json").unlink()),
    ("config.json` is not valid JSON", written("config.json", b"{")),
    ("must hold a JSON object, not a list", written("config.json", b"[]")),
    ("architecture is Qwen3ForSequenceClassification.*not a classifier",
     config(architectures=["Qwen3ForSequenceClassification"])),
    ("architecture is GPT2LMHeadModel", config(architectures=["GPT2LMHeadModel"])),
    ("architecture is None", config(architectures=None, model_type="gpt")),
    ("quantized already \\(fp8\\)", config(quantization_config={"quant_method": "fp8"})),
    ("quantized already", written("quantize_config.json", b"{}")),
    ("hidden_size must be an integer from 1", config(hidden_size="64")),
    ("num_hidden_layers must be an integer from 1 to 1000", config(num_hidden_layers=10**9)),
    ("max_position_embeddings must be an integer", config(max_position_embeddings=10**20)),
    ("rms_norm_eps must be a positive number", config(rms_norm_eps=None)),
    ("rms_norm_eps must be a positive number", config(rms_norm_eps=-1)),
    ("rms_norm_eps must be a positive number", config(rms_norm_eps=1e-320)),
    ("rope_theta must be a positive number", config(rope_theta=None)),
    ("rope_theta must be a positive number", config(rope_theta=1e300)),
    ("not those of one kind", config(rope_parameters={"full": {"rope_theta": 1}})),
    ("RoPE scaling of type yarn needs a factor", config(rope_scaling={"type": "yarn"})),
    ("tie_word_embeddings must be true or false", config(tie_word_embeddings="no")),
    ("layer_types must be a list", config(layer_types=5)),
    ("quantized already", config(quantization_config=5)),
    ("added_tokens_decoder must be an object", change_json(
        "tokenizer_config.json", lambda t: t.update(added_tokens_decoder=5))),
    ("the checkpoint's tokenizer is damaged", change_json(
        "tokenizer.json", lambda t: t["model"].update(merges=[]))),
    ("RoPE scaling of type 'longrope'", config(rope_scaling={"rope_type": "longrope"})),
    ("a YaRN .* that llama.cpp does not compute", config(rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "attention_factor": 2.0})),
    ("asks for use_sliding_window", config(use_sliding_window=True)),
    ("asks for layer_types", config(layer_types=["sliding_attention"])),
    ("asks for attention_bias", config(attention_bias=True)),
    ("hidden_act 'gelu'", config(hidden_act="gelu")),
    ("4 attention heads cannot share 3", config(num_key_value_heads=3)),
    ("holds no weights", lambda f: (f / "model.safetensors").unlink()),
    ("pickle files .*can run code", pickled),
    ("is a LoRA adapter", lambda f: (f / "config.json").rename(f / "adapter_config.json")),
    ("has a LoRA adapter in it", written("adapter_config.json", b"{}")),
    ("as torch.compile does around a model: _orig_mod.model.embed", prefixed("_orig_mod.")),
    ("as DistributedDataParallel or DeepSpeed does", prefixed("module.")),
    ("several chat templates \\(rag, tool_use\\), and none is the default", change_json(
        "tokenizer_config.json", lambda t: t.update(chat_template=[
            {"name": name, "template": "x"} for name in ("tool_use", "rag")]))),
    ("has [0-9]+ bytes instead of", truncated("model.safetensors", 0.9)),
    ("header is cut short", truncated("model.safetensors", 0.001)),
    ("damaged header", written("model.safetensors", (9).to_bytes(8, "little") + b"{}}}}}}}}")),
    ("damaged header", written("model.safetensors", (9).to_bytes(8, "little") + b'{"a": [] ')),
    ("is F8_E4M3|is FP8", rewritten(lambda t: t.update({NORM: ("F8_E4M3", (64,), bytes(64))}))),
    ("is I32", rewritten(lambda t: t.update({NORM: ("I32", (64,), bytes(256))}))),
    ("is damaged: tensor", rewritten(lambda t: t.update({NORM: ("BF16", (65,), bytes(128))}))),
    ("lacks the tensor model.norm.weight", rewritten(drop(NORM))),
    ("holds a tensor x.weight .*does not have", rewritten(lambda t: t.update({"x.weight": EXTRA}))),
    ("has shape \\[4\\], config.json calls for \\[64\\]",
     rewritten(lambda t: t.update({NORM: EXTRA}))),
    ("infinities or values that are not numbers",
     rewritten(lambda t: t.update({NORM: encoded(np.full(64, np.nan), "BF16")}))),
    ("lm_head.weight of its own", rewritten(lambda t: t.update({
        "lm_head.weight": encoded(np.zeros((SIZE, 64)), "BF16")}))),
    ("lacks the tensor lm_head.weight", config(tie_word_embeddings=False)),
    ("has no tokenizer.json", lambda f: (f / "tokenizer.json").unlink()),
    ("cannot be read as a tokenizer", written("tokenizer.json", b"{}")),
    ("architecture is \\['x'\\]", config(architectures=[["x"]])),
    ("has no chat template", change_json("tokenizer_config.json", lambda t: t.update(
        chat_template=[1]))),
    ("has no chat template", written("tokenizer_config.json", b"{}")),
    ("is lstrip, which GGUF cannot say", token(lstrip=True)),
    ("prepares text in a way that is not known", change_json(
        "tokenizer.json", lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(invert=True))),
    ("prepares text in a way that is not known", change_json(
        "tokenizer.json", lambda t: t.update(normalizer={"type": "NFKC"}))),
    ("disagree about token 300", change_json("tokenizer_config.json", lambda t: t.update(
        added_tokens_decoder={"300": {"content": "<x>"}}))),
    ("eos_token_id 9999 is not a token", config(eos_token_id=9999)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "damage"), MISTAKES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, message: str, damage: Callable[[Path], None]
) -> None:
    source = write_checkpoint(tmp_path / "m")
    damage(source)
    with pytest.raises(ErankLiteError, match=message) as caught:
        convert_gguf(source, tmp_path / "out.gguf", "Q8_0")
    assert "\n" not in caught.value.message + (caught.value.hint or "")
    assert not list(tmp_path.glob("out*"))


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_MISTAKES: list[tuple[str, Callable[[Path], Any]]] = [
    ("is incomplete: the index names model-00002", lambda f: (f / SHARD).unlink()),
    ("has shards .* but no model.safetensors.index", lambda f: (f / INDEX).unlink()),
    ("which the index does not know", change_json(INDEX, lambda i: i["weight_map"].pop(NORM))),
    ("which the index places in", change_json(INDEX, lambda i: i["weight_map"].update(
        {NORM: SHARD if i["weight_map"][NORM] != SHARD else SHARD.replace("2-", "1-")}))),
    ("not a file of this folder", change_json(
        INDEX, lambda i: i["weight_map"].update({NORM: "../x.safetensors"}))),
    ("has no weight_map", written(INDEX, b"{}")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "damage"), SHARD_MISTAKES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_damaged_shards_are_refused(
    tmp_path: Path, message: str, damage: Callable[[Path], None]
) -> None:
    source = write_checkpoint(tmp_path / "m", shards=3)
    damage(source)
    with pytest.raises(ModelError, match=message):
        convert_gguf(source, tmp_path / "out.gguf", "BF16")
    assert not list(tmp_path.glob("out*"))


def stale_index(folder: Path) -> None:
    (folder / INDEX).write_text('{"weight_map": {"x": "model-00001-of-00009.safetensors"}}')


ODD: list[tuple[str, int, Callable[[Path], Any]]] = [
    ("an index of other weights beside the whole", 1, stale_index),
    ("an index that names what is nowhere", 3, change_json(
        INDEX, lambda i: i["weight_map"].update({"mtp.weight": SHARD}))),
    ("an index with ./ before its names", 3, change_json(
        INDEX, lambda i: i.update(weight_map={k: f"./{v}" for k, v in i["weight_map"].items()}))),
    ("an architecture as FSDP names it", 1, config(architectures=["FSDPQwen3ForCausalLM"])),
    ("no architecture but a model type", 1, config(architectures=None)),
    ("the model below its output alone", 1, renamed(lambda n: n.removeprefix("model."))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "shards", "change"), ODD, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_transformers_loads_is_loaded(
    tmp_path: Path, what: str, shards: int, change: Callable[[Path], None]
) -> None:
    source = write_checkpoint(tmp_path / "m", shards=shards)
    expected = tensors_of(converted(source, "BF16"))
    change(source)
    convert_gguf(source, tmp_path / "again.gguf", "BF16")
    assert tensors_of(tmp_path / "again.gguf") == expected


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    source = write_checkpoint(tmp_path / "m")
    (source / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3920052224\n"
    )
    with pytest.raises(ModelError, match=f"{name}` is a Git LFS pointer") as raised:
        convert_gguf(source, tmp_path / "out.gguf", "BF16")
    assert "git lfs pull" in (raised.value.hint or "")


def test_one_of_several_templates_is_the_default(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m")
    tokenizer = source / "tokenizer_config.json"
    settings = json.loads(tokenizer.read_text())
    named = {"rag": "of rag", "default": f"{{# of the list #}}{CHAT_TEMPLATE}"}
    settings["chat_template"] = [{"name": n, "template": t} for n, t in named.items()]
    tokenizer.write_text(json.dumps(settings))
    assert Checkpoint.open(source).chat_templates() == named
    keys = keys_of(converted(source, "BF16"))
    assert keys["tokenizer.chat_template"] == named["default"]
    assert keys["tokenizer.chat_template.rag"] == "of rag"
    # Transformers takes all from files where there is one.
    (source / "chat_template.jinja").write_text("of the file")
    assert Checkpoint.open(source).chat_templates() == {"default": "of the file"}
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("of tools")
    expected = {"default": "of the file", "tool_use": "of tools"}
    assert Checkpoint.open(source).chat_templates() == expected


def test_an_end_of_minus_one_is_none(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", eos_token_id=-1, pad_token_id=-1)
    change_json("generation_config.json", lambda g: g.update(eos_token_id=[-1]))(source)
    ends = keys_of(converted(source, "BF16"))["erank_lite.end_token_ids"]
    assert ends == [258]  # the eos_token of tokenizer_config.json


@pytest.mark.parametrize(("number", "kind"), [(1e5, "F16"), (1e7, "Q8_0")])
def test_numbers_too_large_for_a_type_are_refused(tmp_path: Path, number: float, kind: str) -> None:
    tensors = qwen3_tensors(SIZE)
    tensors["model.embed_tokens.weight"][5, 5] = number
    source = write_checkpoint(tmp_path / "m", tensors=tensors)
    with pytest.raises(ModelError, match=f"too large for {kind}\nhint: choose BF16"):
        convert_gguf(source, tmp_path / "out.gguf", kind)
    assert not list(tmp_path.glob("out*"))


def test_a_matrix_in_f16_is_called_that(tmp_path: Path) -> None:
    name = "blk.0.ffn_up.weight"
    matrix = ImportanceMatrix({name: np.ones(64, np.float16)}, {name: 1}, ("text",), 1, 1)
    matrix.write(tmp_path / "matrix.gguf")
    source = write_checkpoint(tmp_path / "m")
    with pytest.raises(ModelError, match=f"is not in F32: {name} is in float16"):
        convert_gguf(source, tmp_path / "o.gguf", "Q4_K_M", imatrix=tmp_path / "matrix.gguf")


def test_a_tied_copy_of_the_embedding_is_left_out(tmp_path: Path) -> None:
    tensors = qwen3_tensors(SIZE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    source = write_checkpoint(tmp_path / "m", tensors=tensors)
    assert "output.weight" not in tensors_of(converted(source, "BF16"))


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_checkpoint(tmp_path / "m")
    out = tmp_path / "out.gguf"
    for place, message in (
        (tmp_path / "out.bin", "must be a .gguf file"),
        (tmp_path / "no" / "out.gguf", "there is no folder"),
        (write_checkpoint(tmp_path / "d.gguf"), "is not a file"),
    ):
        with pytest.raises(InputError, match=message):
            convert_gguf(source, place, "BF16")
    out.write_text("mine")
    with pytest.raises(InputError, match="--force replaces it"):
        convert_gguf(source, out, "BF16")
    assert out.read_text() == "mine"
    convert_gguf(source, out, "BF16", force=True)
    assert out.stat().st_size > 1000
    with FileLock(tmp_path / "b.gguf.lock"), pytest.raises(InputError, match="another process"):
        convert_gguf(source, tmp_path / "b.gguf", "BF16")
    little = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    with pytest.raises(ModelError, match="free, but the conversion takes"):
        convert_gguf(source, tmp_path / "c.gguf", "BF16")
    assert not list(tmp_path.glob("c.gguf*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="may not be written to"):
        convert_gguf(source, tmp_path / "locked" / "out.gguf", "BF16")


def test_a_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", padded=-62)
    with pytest.raises(ModelError, match="tokens up to id 261, but the model's embedding only 200"):
        convert_gguf(source, tmp_path / "out.gguf", "BF16")


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)
    out = tmp_path / "out.gguf"
    done = run(
        "convert", "gguf", source, out, "--type", "BF16",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )  # fmt: skip
    assert "is full, or a limit on file sizes" in said(done.stderr)[-2], done.stderr
    assert done.returncode == 1 and not list(tmp_path.glob("out*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only the superuser of a whole Linux may mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("moment", ["writing", "quantizing"])
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, small_disk: Path, moment: str) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)

    class Filling(Reporter):
        def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
            # The first report of a stage comes before its first byte, however fast the machine.
            if stage == moment and not (small_disk / "other").exists():
                with contextlib.suppress(OSError), (small_disk / "other").open("wb") as file:
                    while True:
                        file.write(bytes(1000))
                        file.flush()

    with pytest.raises(ModelError, match="is full"):
        convert_gguf(source, small_disk / "out.gguf", "Q4_K_M", reporter=Filling())
    assert [p.name for p in small_disk.iterdir()] == ["other"]


def test_the_command(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=512)
    out = tmp_path / "out.gguf"
    done = run("convert", "gguf", source, out)
    lines = said(done.stderr)
    assert done.returncode == 0 and done.stdout == b""
    assert "on the way it takes" in lines[0] and lines[-1].startswith(str(out))
    assert keys_of(out)["erank_lite.type"] == "Q4_K_M"
    assert "already there" in is_a_clear_line(run("convert", "gguf", source, out))
    assert "did you mean Q4_K_M" in is_a_clear_line(
        run("convert", "gguf", source, tmp_path / "o.gguf", "--type", "q4-km")
    )
    ranked = run("rerank", "--model", out, "--query", "q", "--thinking", "none", "--json", "-",
                 stdin=b"one\ntwo\n")  # fmt: skip
    assert ranked.returncode == 0 and len(rows(ranked.stdout)) == 2, ranked.stderr


def test_a_folder_is_converted_once_for_reranking(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m")
    surroundings = os.environ | {"ERANK_LITE_CACHE": str(tmp_path / "cache")}

    def made() -> list[tuple[Path, int]]:
        done = run("rerank", "--model", f"{source}:Q8_0", "--query", "q", "--thinking", "none", "-",
                   stdin=b"one\n", env=surroundings)  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = (tmp_path / "cache").rglob("*.gguf")
        return sorted((p, p.stat().st_mtime_ns) for p in files)

    def dated(seconds: int) -> None:
        for file in source.iterdir():
            os.utime(file, (seconds, seconds))

    dated(1)
    first = made()
    assert len(first) == 1 and made() == first
    dated(2)
    assert made() == first  # the same checkpoint, copied
    write_checkpoint(source, tensors=qwen3_tensors(SIZE, seed=1))
    dated(2)
    assert len(made()) == 2  # another checkpoint now, another file, whatever its times
