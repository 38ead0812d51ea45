"""LoRA adapters: merged at conversion, and added by llama.cpp as it runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import encoded, write_checkpoint, write_safetensors
from support.command import is_a_clear_line, run_in_process
from support.gguf_files import keys_of, tensors_of

from erank_lite import InputError, ModelError, Reranker
from erank_lite.convert.gguf.adapter import convert_adapter
from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.lora import LoraAdapter
from erank_lite.models.safetensors import stored_tensors

RANK = 4
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """Return a checkpoint's weights in BF16 as 32-bit floats."""
    found = {}
    for name, tensor in stored_tensors(folder).items():
        data = tensor.file.read_bytes()[tensor.offset : tensor.offset + tensor.size]
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        found[name] = bits.view(np.float32).reshape(tensor.shape)
    return found


def write_adapter(
    folder: Path, base: Path, dtype: str = "F32", size: float = 0.3, **config: Any
) -> dict[str, np.ndarray]:
    """Write an adapter of a checkpoint's layers as PEFT does; return B·A by the weight's name."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(1)
    tensors, products = {}, {}
    for name, weight in weights_of(base).items():
        module = name.removesuffix(".weight")
        if not module.endswith(MODULES):
            continue
        rows, columns = weight.shape
        a = (size * draw.standard_normal((RANK, columns))).astype(np.float32)
        b = (size * draw.standard_normal((rows, RANK))).astype(np.float32)
        for part, values in (("A", a), ("B", b)):
            key = f"base_model.model.{module}.lora_{part}.weight"
            tensors[key] = encoded(values, dtype)
        products[name] = b @ a
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    settings = {
        "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", "fan_in_fan_out": False,
        "base_model_name_or_path": "OWNER/BASE",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return products


def rounded(values: np.ndarray) -> bytes:
    """Return values rounded to BF16, to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small checkpoint."""
    return write_checkpoint(tmp_path / "base")


@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 8 / RANK), ({"use_rslora": True}, 8 / math.sqrt(RANK)), ({"lora_alpha": 1.5}, 1.5 / 4)],
)
def test_a_merged_weight_is_rounded_once(
    base: Path, tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    """W + scale·(B·A) in 32 bits, then BF16: each number of every changed weight."""
    products = write_adapter(tmp_path / "Rank-R1-7B-v0.1", base, **config)
    out = tmp_path / "merged.gguf"
    convert_gguf(base, out, "BF16", adapter=tmp_path / "Rank-R1-7B-v0.1")
    merged, plain = tensors_of(out), weights_of(base)
    assert len(products) == 6
    for name, product in products.items():
        layer = name.split(".")[2]
        ours = {"q_proj": "attn_q", "v_proj": "attn_v", "down_proj": "ffn_down"}
        found = merged[f"blk.{layer}.{ours[name.split('.')[-2]]}.weight"]
        assert found == ("BF16", rounded(plain[name] + product * np.float32(scale)))
    assert merged["blk.0.attn_k.weight"] == (
        "BF16", rounded(plain["model.layers.0.self_attn.k_proj.weight"])
    )  # fmt: skip
    keys = keys_of(out)
    assert keys["general.name"] == keys["erank_lite.adapter"] == "Rank-R1-7B-v0.1"
    assert Reranker(out).family.name == "rank-r1-v0.1"


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_an_adapter_in_16_bits_is_read(base: Path, tmp_path: Path, dtype: str) -> None:
    write_adapter(tmp_path / "adapter", base, dtype)
    adapter = LoraAdapter.open(tmp_path / "adapter")
    assert all(part.a.dtype == np.float32 and part.scale == 2 for part in adapter.parts.values())


def test_an_adapter_at_run_time_is_as_merged(base: Path, tmp_path: Path) -> None:
    """Within the noise of kernels, where without it scores are others."""
    write_adapter(tmp_path / "adapter", base, size=0.8)
    plain, merged, adapter = (tmp_path / f"{name}.gguf" for name in ("plain", "merged", "lora"))
    convert_gguf(base, plain, "F32")
    convert_gguf(base, merged, "F32", adapter=tmp_path / "adapter")
    convert_adapter(tmp_path / "adapter", base, adapter)
    docs = ["The lion lives in groups.", "Air scatters blue light.", "Bread keeps for days."]
    scores = []
    for file, options in ((merged, {}), (plain, {"adapter": adapter}), (plain, {})):
        with Reranker(file, thinking="none", **options) as reranker:
            results = sorted(reranker.rerank("lions", docs), key=lambda r: r["index"])
            scores.append([r["probability"] for r in results])
    as_merged, without = (np.abs(np.subtract(s, scores[0])).max() for s in scores[1:])
    assert as_merged < 0.01 * np.mean(scores[0]) < 0.1 * without


def test_an_adapter_of_another_model_is_told(base: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", width=32, ffn=96)
    write_adapter(tmp_path / "adapter", other)
    for convert in (
        lambda: convert_gguf(base, tmp_path / "out.gguf", "F32", adapter=tmp_path / "adapter"),
        lambda: convert_adapter(tmp_path / "adapter", base, tmp_path / "out.gguf"),
    ):
        with pytest.raises(ModelError, match="is no adapter of this model") as error:
            convert()
        assert "OWNER/BASE" in str(error.value.hint)
        assert not (tmp_path / "out.gguf").exists()
    convert_adapter(tmp_path / "adapter", other, tmp_path / "lora.gguf")
    convert_gguf(base, tmp_path / "base.gguf", "F32")
    with pytest.raises(ModelError, match="cannot add the adapter"):
        Reranker(tmp_path / "base.gguf", adapter=tmp_path / "lora.gguf")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_alpha": "many"}, "lora_alpha"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    base: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    write_adapter(tmp_path / "adapter", base, **config)
    with pytest.raises(ModelError, match=message):
        LoraAdapter.open(tmp_path / "adapter")


def test_what_is_no_adapter_is_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        LoraAdapter.open(base)
    write_adapter(tmp_path / "adapter", base)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        LoraAdapter.open(tmp_path / "adapter")
    write_adapter(tmp_path / "half", base)
    tensors = {"base_model.model.model.norm.lora_A.weight": encoded(np.ones((2, 2)), "F32")}
    write_safetensors(tmp_path / "half" / "adapter_model.safetensors", tensors)
    with pytest.raises(ModelError, match=r"A and B of model\.norm do not fit"):
        LoraAdapter.open(tmp_path / "half")


def test_an_adapter_without_weights_or_without_a_file_is_told(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", base)
    write_safetensors(tmp_path / "adapter" / "adapter_model.safetensors", {})
    with pytest.raises(ModelError, match="holds no weights"):
        LoraAdapter.open(tmp_path / "adapter")
    with pytest.raises(ModelError, match="there is no folder"):
        LoraAdapter.open(tmp_path / "nowhere")
    convert_gguf(base, tmp_path / "base.gguf", "F32")
    for adapter in (tmp_path, tmp_path / "nowhere.gguf"):
        with pytest.raises(InputError, match="is no file"):
            Reranker(tmp_path / "base.gguf", adapter=adapter)


def test_a_matrix_is_not_collected_beside_an_adapter(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", base)
    with pytest.raises(InputError, match="without the adapter"):
        convert_gguf(
            base, tmp_path / "o.gguf", "Q4_K_M", imatrix="auto", adapter=tmp_path / "adapter"
        )


def test_on_the_command_line(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", base)
    folder, lora = tmp_path / "adapter", tmp_path / "lora.gguf"
    assert run_in_process("convert", "adapter", folder, lora, "--base", base).returncode == 0
    merged = tmp_path / "merged.gguf"
    done = run_in_process("convert", "gguf", base, merged, "--type", "F32", "--adapter", folder)
    assert done.returncode == 0 and merged.is_file()
    again = run_in_process("convert", "adapter", folder, lora, "--base", base)
    assert "lora.gguf" in is_a_clear_line(again)
    wrong = run_in_process("convert", "adapter", base, tmp_path / "x.gguf", "--base", base)
    assert "adapter_config.json" in is_a_clear_line(wrong)


def test_the_checkpoint_is_left_alone(base: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    write_adapter(tmp_path / "adapter", base)
    convert_gguf(base, tmp_path / "merged.gguf", "Q8_0", adapter=tmp_path / "adapter")
    assert {file.name: file.read_bytes() for file in base.iterdir()} == before
    assert Checkpoint.open(base).tensors
