"""The converter against llama.cpp's own: tensors byte by byte, metadata key by key.

LLAMA_CPP_SOURCE names a folder with llama.cpp's source (`vendor/llama.cpp` of llama-cpp-python's
source archive), LLAMA_QUANTIZE its llama-quantize, built with shared libraries: it is run with the
libraries that are installed, so that both have the same kernels. QWEN2_GGUF names a trained model
of Qwen2's architecture as GGUF, such as Qwen2.5-0.5B-Instruct, of which a checkpoint is made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from support.checkpoints import save_checkpoint, write_checkpoint
from support.gguf_files import keys_of, tensors_of
from support.llama_cpp_tools import tool
from support.tokenizers import QWEN_SMALL

from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.errors import ModelError
from erank_lite.load import load
from erank_lite.models.ref import NEED_IMATRIX, QUANTIZED
from erank_lite.reranker import Reranker
from erank_lite.testing.guides import counting_request
from erank_lite.types import Prompt

pytestmark = pytest.mark.reference

# Where the two may differ: our own keys, and a default which a newer `gguf` package than the
# released one writes.
OURS = {"erank_lite.version", "erank_lite.type", "erank_lite.source", "erank_lite.end_token_ids",
        "erank_lite.max_new_tokens"}  # fmt: skip
THEIRS = {"tokenizer.ggml.add_eos_token"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048,
        "beta_fast": 32.0, "beta_slow": 1.0}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 1024}  # fmt: skip


def add_qwen_tokenizer(folder: Path) -> None:
    """Put Qwen's tokenizer, cut down, into a checkpoint."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(QWEN_SMALL / name, folder / name)


@pytest.fixture(scope="module")
def qwen_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a checkpoint of Qwen3 with its tokenizer, cut down, and random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def make(tied: bool, shard: str) -> Path:
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=151936, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=64, tie_word_embeddings=tied,
            max_position_embeddings=8192, eos_token_id=151645, bos_token_id=151643,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        )  # fmt: skip
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)
        model.generation_config.eos_token_id = 151643
        model.generation_config.max_new_tokens = 2048
        return save_checkpoint(
            model, tmp_path_factory.mktemp("qwen") / "ERank-4B", shard, add_qwen_tokenizer
        )

    return make


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def as_transformers_4(folder: Path) -> None:
    """Write the configuration, and where there is one the template, as Transformers 4 did."""

    def change(config: dict[str, Any]) -> None:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        config["torch_dtype"] = config.pop("dtype")

    edit(folder, change)
    template, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if template.is_file():
        text = json.loads(settings.read_text()) | {"chat_template": template.read_text()}
        settings.write_text(json.dumps(text))
        template.unlink()


def rope(folder: Path, parameters: dict[str, Any]) -> None:
    edit(folder, lambda config: config["rope_parameters"].update(parameters))


def compare(source: Path, folder: Path, kind: str) -> None:
    script = tool("LLAMA_CPP_SOURCE", "source of llama.cpp") / "convert_hf_to_gguf.py"
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    convert_gguf(source, ours, kind)
    command = [sys.executable, script, source, "--outfile", theirs, "--outtype", kind.lower()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert tensors_of(ours) == tensors_of(theirs)
    a, b = keys_of(ours), keys_of(theirs)
    assert {key for key in a | b if a.get(key) != b.get(key)} <= OURS | THEIRS


@pytest.mark.parametrize(
    ("tied", "shard", "old", "kind"),
    [
        (True, "5GB", False, "Q8_0"),
        (False, "60MB", False, "BF16"),
        (False, "60MB", True, "F32"),
    ],
    ids=["tied", "shards-yarn", "shards-yarn-transformers4"],
)
def test_qwen3(
    qwen_checkpoint: Callable[..., Path],
    tmp_path: Path,
    tied: bool,
    shard: str,
    old: bool,
    kind: str,
) -> None:
    source = qwen_checkpoint(tied, shard)
    assert (len(list(source.glob("*.safetensors"))) > 1) == (shard == "60MB")
    if not tied:
        rope(source, YARN)
    if old:
        as_transformers_4(source)
    compare(source, tmp_path, kind)


@pytest.mark.parametrize(
    ("shard", "parameters", "kind"),
    [("5GB", {}, "Q8_0"), ("100MB", YARN, "BF16"), ("5GB", LLAMA3, "F16")],
    ids=["plain", "shards-yarn", "llama3"],
)
def test_llama(
    smol: Callable[..., Path], tmp_path: Path, shard: str, parameters: Any, kind: str
) -> None:
    source = smol(shard)
    rope(source, parameters)
    if shard != "5GB":
        as_transformers_4(source)
    compare(source, tmp_path, kind)


@pytest.mark.parametrize(
    ("tied", "shard", "kind"), [(True, "5GB", "Q8_0"), (False, "60MB", "BF16")]
)
def test_qwen2(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, tied: bool, shard: str, kind: str
) -> None:
    """With the biases of queries, keys and values."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
        max_position_embeddings=8192, eos_token_id=151645, bos_token_id=151643,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("qwen2") / "rank1-0.5b"
    source = save_checkpoint(model.to(torch.bfloat16), folder, shard, add_qwen_tokenizer)
    compare(source, tmp_path, kind)


def test_a_trained_qwen2(tmp_path: Path) -> None:
    """Made into a checkpoint by Transformers: the same bytes, and the same greedy tokens."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

    file = tool("QWEN2_GGUF", "GGUF file of a model of Qwen2's architecture")
    read = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16
    )
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = Qwen2ForCausalLM(read.config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    source = save_checkpoint(model, tmp_path / "checkpoint", "5GB", add_qwen_tokenizer)
    compare(source, tmp_path, "Q8_0")
    del read
    model = model.float().eval()
    convert_gguf(source, tmp_path / "whole.gguf", "F32")
    with load(tmp_path / "whole.gguf", "llama.cpp") as engine:
        for text in ("def fibonacci(n):", "The capital of France is"):
            ids = engine.tokenizer.encode(text).ids
            (done,) = engine.run([counting_request(0, Prompt(tuple(ids), 0), 24)])
            theirs = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)
            assert done.guide.tokens == theirs[0, len(ids) :].tolist()


def test_quantized_files_are_llama_quantizes(
    qwen_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    program = tool("LLAMA_QUANTIZE", "llama-quantize")
    package = Path(llama_cpp.__file__).parent / "lib"
    libraries = os.environ.get("LLAMA_CPP_LIB_PATH", str(package))
    small = write_checkpoint(tmp_path / "small", width=256, ffn=512)
    jobs = [(qwen_checkpoint(True, "5GB"), ("Q4_K_M",)), (small, (*QUANTIZED, *NEED_IMATRIX[:3]))]
    compared = 0
    whole, ours, theirs = (tmp_path / f"{name}.gguf" for name in ("whole", "ours", "theirs"))
    for source, kinds in jobs:
        convert_gguf(source, whole, "BF16", force=True)
        for kind in kinds:
            done = subprocess.run(
                [program, whole, theirs, kind], capture_output=True, text=True, timeout=300,
                env=os.environ | {"LD_LIBRARY_PATH": libraries},
            )  # fmt: skip
            try:
                convert_gguf(source, ours, kind, force=True)
            except ModelError as error:
                assert "importance matrix" in str(error) and done.returncode != 0
                continue
            assert done.returncode == 0, done.stderr[-2000:]
            assert tensors_of(ours) == tensors_of(theirs), kind
            a, b = keys_of(ours), keys_of(theirs)
            assert {key for key in a | b if a.get(key) != b.get(key)} == {"erank_lite.type"}
            compared += 1
    assert compared >= 15


def test_a_trained_checkpoint_still_knows_english(
    smol: Callable[..., Path], tmp_path: Path
) -> None:
    """The real SmolLM2, saved as a checkpoint, converted and run."""
    source = smol("100MB")
    out = tmp_path / "smol.gguf"
    for kind in ("BF16", "Q4_K_M"):
        convert_gguf(source, out, kind, force=True)
        with load(out, "llama.cpp") as engine:
            prompt = Prompt(tuple(engine.tokenizer.encode("The capital of France is").ids), 0)
            (done,) = engine.run([counting_request(0, prompt, 4)])
            assert "Paris" in engine.tokenizer.decode(done.guide.tokens)
            results = Reranker(engine, thinking="none").rerank("capital of France", ["Paris."])
        assert results[0]["failure"] is None and 0 < results[0]["probability"] <= 1
