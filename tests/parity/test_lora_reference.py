"""LoRA adapters against PEFT: what it merges, and llama.cpp's own converter of adapters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.gguf_files import tensors_of
from support.llama_cpp_tools import tool
from support.tokenizers import QWEN_SMALL

from erank_lite.convert.gguf.adapter import convert_adapter
from erank_lite.convert.gguf.convert import convert_gguf

pytestmark = pytest.mark.reference
MODULES = {"self_attn.q_proj": "attn_q", "mlp.down_proj": "ffn_down"}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Qwen2 checkpoint, an adapter of it as PEFT saves it, and the weights that PEFT merges."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=8192, eos_token_id=151645, bos_token_id=151643,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(getattr(torch, request.param))
    model.save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(QWEN_SMALL / name, folder / "base" / name)
    settings = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    tuned = peft.get_peft_model(model, settings)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    tuned.save_pretrained(folder / "adapter")
    merged = tuned.merge_and_unload().state_dict()
    return request.param, folder, {name: t.float().numpy() for name, t in merged.items()}


def test_merged_weights_are_pefts(saved: Any, tmp_path: Path) -> None:
    """To the last bit: both compute in 32 bits, and round once."""
    _, folder, theirs = saved
    convert_gguf(folder / "base", tmp_path / "merged.gguf", "F32", adapter=folder / "adapter")
    ours = tensors_of(tmp_path / "merged.gguf")
    for layer in range(2):
        for module, name in MODULES.items():
            expected = theirs[f"model.layers.{layer}.{module}.weight"]
            _, data = ours[f"blk.{layer}.{name}.weight"]
            np.testing.assert_array_equal(
                np.frombuffer(data, np.float32).reshape(expected.shape), expected
            )


def test_adapters_are_as_llama_cpp_converts_them(saved: Any, tmp_path: Path) -> None:
    """Its own converter leaves the scale to alpha, this one puts it into B."""
    _, folder, _ = saved
    source = tool("LLAMA_CPP_SOURCE", "source of llama.cpp")
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    convert_adapter(folder / "adapter", folder / "base", ours)
    command = [
        sys.executable, source / "convert_lora_to_gguf.py", folder / "adapter", "--base",
        folder / "base", "--outfile", theirs, "--outtype", "f32",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    a, b = tensors_of(ours), tensors_of(theirs)
    assert a.keys() == b.keys()
    for name, (kind, data) in a.items():
        assert kind == b[name][0] == "F32"
        expected = np.frombuffer(b[name][1], np.float32)
        factor = 2 if name.endswith("lora_b") else 1  # alpha / r
        np.testing.assert_array_equal(np.frombuffer(data, np.float32), factor * expected)
