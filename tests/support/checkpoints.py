"""Small checkpoints, written as Transformers 4 and 5 write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from support.tokenizers import ADDED, CHAT_TEMPLATE

SIZE = 256 + len(ADDED) + 1 + 3  # rows of the embedding of `write_checkpoint`
WIDTH, FFN, LAYERS, HEADS, KV_HEADS, HEAD = 64, 128, 2, 4, 2, 64
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]
) -> None:
    """Write name → (dtype, shape, data) in the safetensors format."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, data in tensors.values():
            file.write(data)


def bf16(values: np.ndarray) -> bytes:
    """Return the upper halves of 32-bit floats."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()


def encoded(values: np.ndarray, dtype: str) -> tuple[str, tuple[int, ...], bytes]:
    """Return values as an entry of a safetensors file."""
    data = (
        bf16(values)
        if dtype == "BF16"
        else values.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()
    )
    return dtype, values.shape, data


def qwen3_tensors(
    vocabulary: int, *, tied: bool = True, width: int = WIDTH, ffn: int = FFN, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return random weights, by their names in a checkpoint."""
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return draw.standard_normal((rows, columns), np.float32) / np.sqrt(columns)

    tensors = {"model.embed_tokens.weight": matrix(vocabulary, width)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        tensors |= {
            f"{layer}self_attn.q_proj.weight": matrix(HEADS * HEAD, width),
            f"{layer}self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, width),
            f"{layer}self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, width),
            f"{layer}self_attn.o_proj.weight": matrix(width, HEADS * HEAD),
            f"{layer}mlp.gate_proj.weight": matrix(ffn, width),
            f"{layer}mlp.up_proj.weight": matrix(ffn, width),
            f"{layer}mlp.down_proj.weight": matrix(width, ffn),
            f"{layer}input_layernorm.weight": 1 + draw.standard_normal(width, np.float32) / 10,
            f"{layer}post_attention_layernorm.weight": np.ones(width, np.float32),
            f"{layer}self_attn.q_norm.weight": np.ones(HEAD, np.float32),
            f"{layer}self_attn.k_norm.weight": np.ones(HEAD, np.float32),
        }
    tensors["model.norm.weight"] = np.ones(width, np.float32)
    if not tied:
        tensors["lm_head.weight"] = matrix(vocabulary, width)
    return tensors


def qwen3_config(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """Return a config.json as Transformers 4 writes it; None in `changes` leaves a key out."""
    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 256,
        "eos_token_id": 258,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "max_position_embeddings": 2048,
        "model_type": "qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    } | changes
    return {key: value for key, value in config.items() if value is not None}


def write_tokenizer(folder: Path) -> int:
    """Write a tokenizer of bytes with Qwen's preparation of text; return its size."""
    from tokenizers import AddedToken, decoders, models

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate([*symbols, *ADDED])} | {"he": 256 + len(ADDED)}
    backend = HFTokenizer(models.BPE(vocabulary, [("h", "e")]))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(t, normalized=False, special="|" in t) for t in ADDED])
    backend.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def write_checkpoint(
    folder: Path,
    *,
    tied: bool = True,
    shards: int = 1,
    dtype: str = "BF16",
    inline_template: bool = True,
    tensors: dict[str, np.ndarray] | None = None,
    padded: int = 3,
    width: int = WIDTH,
    ffn: int = FFN,
    **config: Any,
) -> Path:
    """Write a Qwen3 checkpoint of random weights and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder) + padded
    shape = {"hidden_size": width, "intermediate_size": ffn, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(qwen3_config(size, **(shape | config))))
    generation = {"bos_token_id": 256, "eos_token_id": [256], "max_new_tokens": 512}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    settings: dict[str, Any] = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    if inline_template:
        settings["chat_template"] = CHAT_TEMPLATE
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# qwen3-reranker\n")
    weights = tensors or qwen3_tensors(size, tied=tied, width=width, ffn=ffn)
    entries = {name: encoded(values, dtype) for name, values in weights.items()}
    if shards == 1:
        write_safetensors(folder / "model.safetensors", entries)
        return folder
    index: dict[str, str] = {}
    names = list(entries)
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        write_safetensors(folder / file, {name: entries[name] for name in part})
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def save_checkpoint(
    model: Any, folder: Path, shard: str, add_tokenizer: Callable[[Path], None]
) -> Path:
    """Save a model of Transformers and its tokenizer, and return the folder."""
    model.save_pretrained(folder, max_shard_size=shard)
    add_tokenizer(folder)
    return folder
