"""GGUF files: whole models of random weights, headers that say anything, and what a file holds."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from erank_lite.models.gguf import GGUFFile
from support.tokenizers import CHAT_TEMPLATE

CODES = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
QWEN = {
    "general.architecture": "qwen3",
    "qwen3.block_count": ("I", 36),
    "qwen3.embedding_length": ("I", 2560),
    "qwen3.attention.head_count": ("I", 32),
    "qwen3.attention.head_count_kv": ("I", 8),
    "qwen3.attention.key_length": ("I", 128),
    "qwen3.attention.value_length": ("I", 128),
    "qwen3.context_length": ("I", 40960),
    "tokenizer.chat_template": "{{ messages }}",
}
"""Metadata: a str, a list of str, or (struct code, number or list of numbers)."""


def gguf_string(text: str | bytes) -> bytes:
    """Return a string as GGUF files hold it, its length before it."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, str | bytes):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    code, number = value
    if isinstance(number, list):
        head = struct.pack("<IIQ", 9, CODES[code], len(number))
        return head + struct.pack(f"<{len(number)}{code}", *number)
    return struct.pack("<I" + code, CODES[code], number)


def gguf_bytes(
    metadata: dict[str, Any],
    tensors: tuple[tuple[str, tuple[int, ...], int, int], ...] = (("w", (4,), 0, 0),),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 4096,
) -> bytes:
    """Return a GGUF file; `tensors` are (name, shape, type, offset), `data` zero bytes follow."""
    head = b"GGUF" + struct.pack("<I", version)
    head += struct.pack("<QQ", *(counts or (len(tensors), len(metadata))))
    for key, value in metadata.items():
        head += gguf_string(key) + _value(value)
    for name, shape, quant_type, offset in tensors:
        head += gguf_string(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, quant_type, offset
        )
    return head + bytes(-len(head) % 32 + data)


def write_gguf(
    path: Path,
    texts: Sequence[str],
    token_types: Sequence[int],
    merges: Sequence[str] = (),
    *,
    pre: str = "gpt-2",
    layers: int = 2,
    width: int = 64,
    context: object = 2048,
    template: str | None = CHAT_TEMPLATE,
    architecture: str = "qwen3",
    seed: int = 0,
    **split: Any,
) -> Path:
    """Write a Qwen3 model of random weights, in F32, with this vocabulary.

    `split` is how gguf.GGUFWriter is to split it; then `path` gives the names of the parts.
    """
    draw = np.random.default_rng(seed)
    heads, kv_heads, head, ffn = 4, 2, 32, 2 * width
    writer = gguf.GGUFWriter(path, architecture, **split)
    writer.add_block_count(layers)
    # llama.cpp wants the type that its own converter writes; any other is that of a damaged file.
    types = gguf.GGUFValueType
    context_type = types.UINT32 if isinstance(context, int) else types.get_type(context)
    writer.add_key_value(f"{architecture}.context_length", context, context_type)
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
    writer.add_token_types(list(token_types))
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


def tensors_of(path: Path) -> dict[str, tuple[str, bytes]]:
    """Return name → (type, data) of a file's tensors."""
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def keys_of(path: Path) -> dict[str, Any]:
    """Return a file's metadata."""
    return GGUFFile.read(path).metadata
