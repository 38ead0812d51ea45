"""Models of random weights, for tests and benchmarks: GGUF files and checkpoints of any shape.

What a model computes with random weights means nothing, but what it costs is that of its shape,
and the same seed gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 22  # numbers that are drawn at once
_DTYPES = {"BF16": 2, "F16": 2, "F32": 4}

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The usual chat template of Qwen's models."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a model of Qwen3's architecture, or of Llama's."""

    layers: int = 2
    width: int = 64
    ffn: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    context_length: int = 2048


ERANK = {
    "4B": Shape(36, 2560, 9728, 32, 8, 128, 40960),
    "14B": Shape(40, 5120, 17408, 40, 8, 128, 40960),
    "32B": Shape(64, 5120, 25600, 64, 8, 128, 40960),
}
"""The shapes of the published models."""


def write_gguf(
    path: Path,
    tokens: Sequence[str] | int,
    types: Sequence[int] = (),
    merges: Sequence[str] = (),
    *,
    shape: Shape = Shape(),
    pre: str = "gpt-2",
    context_length: object = None,
    template: str | None = TEMPLATE,
    architecture: str = "qwen3",
    quant_type: str = "F32",
    seed: int = 0,
    matrix: Callable[[str, int, int], tuple[npt.NDArray[Any], int]] | None = None,
) -> Path:
    """Write a GGUF file of random weights.

    Args:
        path: the file to make; one that is there is replaced.
        tokens: the vocabulary, in which `<|im_end|>` ends a turn; or its size, for a model that
            has no vocabulary.
        types: of the tokens, as `gguf.TokenType` numbers them.
        merges: of the tokenizer.
        shape: the model's.
        pre: the name of the pre-tokenizer.
        context_length: a value for the metadata in place of the shape's, of any type.
        template: the chat template, or None.
        architecture: "qwen3" or "llama".
        quant_type: of the matrices, a type that the gguf package quantizes to.
        seed: of the weights.
        matrix: from a tensor's name, rows and columns to its data and GGML type, in place of
            `quant_type` and `seed`.

    Returns:
        `path`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_gguf(Path(folder) / "tiny.gguf", ["a", "<|im_end|>"], [1, 3]).stat().st_size
        397952
    """
    size = tokens if isinstance(tokens, int) else len(tokens)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(shape.layers)
    # llama.cpp wants the type that its own converter writes; another is a damaged file's.
    context = shape.context_length if context_length is None else context_length
    value_type = gguf.GGUFValueType
    context_type = value_type.UINT32 if isinstance(context, int) else value_type.get_type(context)
    writer.add_key_value(f"{architecture}.context_length", context, context_type)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if isinstance(tokens, int):
        writer.add_tokenizer_model("no_vocab")
        writer.add_vocab_size(size)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(list(tokens))
        writer.add_token_types(list(types))
        writer.add_token_merges(list(merges) or ["a b"])
        writer.add_eos_token_id(tokens.index("<|im_end|>"))
        writer.add_add_bos_token(False)
        if template is not None:
            writer.add_chat_template(template)
    draw = np.random.default_rng(seed)
    to = gguf.GGMLQuantizationType[quant_type]

    def add(name: str, rows: int, columns: int) -> None:
        if matrix is not None:
            data, kind = matrix(name, rows, columns)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType(kind))
            return
        step = max(1, _BLOCK // columns)
        pieces = [
            (draw.standard_normal((min(step, rows - i), columns)) / np.sqrt(columns)).astype("f4")
            for i in range(0, rows, step)
        ]
        if quant_type != "F32":
            pieces = [gguf.quantize(piece, to) for piece in pieces]
        writer.add_tensor(name, np.concatenate(pieces), raw_dtype=to)

    add("token_embd.weight", size, shape.width)
    writer.add_tensor("output_norm.weight", np.ones(shape.width, np.float32))
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for i in range(shape.layers):
        for name, rows, columns in (
            ("attn_q", queries, shape.width),
            ("attn_k", keys, shape.width),
            ("attn_v", keys, shape.width),
            ("attn_output", shape.width, queries),
            ("ffn_gate", shape.ffn, shape.width),
            ("ffn_up", shape.ffn, shape.width),
            ("ffn_down", shape.width, shape.ffn),
        ):
            add(f"blk.{i}.{name}.weight", rows, columns)
        norms = {"attn_norm": shape.width, "ffn_norm": shape.width}
        if architecture == "qwen3":
            norms |= {"attn_q_norm": shape.head_dim, "attn_k_norm": shape.head_dim}
        for name, length in norms.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(length, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def checkpoint_config(
    shape: Shape, vocabulary: int, *, tied: bool = True, **changes: Any
) -> dict[str, Any]:
    """Return a config.json as Transformers 4 writes it; None in `changes` leaves a key out."""
    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 256,
        "eos_token_id": 258,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context_length,
        "model_type": "qwen3",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    } | changes
    return {key: value for key, value in config.items() if value is not None}


def checkpoint_shapes(
    shape: Shape, vocabulary: int, *, tied: bool = True
) -> dict[str, tuple[int, ...]]:
    """Return name → shape (rows first) of the tensors of a Qwen3 checkpoint."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, shape.width)}
    for i in range(shape.layers):
        for name, size in {
            "self_attn.q_proj": (queries, shape.width),
            "self_attn.k_proj": (keys, shape.width),
            "self_attn.v_proj": (keys, shape.width),
            "self_attn.o_proj": (shape.width, queries),
            "mlp.gate_proj": (shape.ffn, shape.width),
            "mlp.up_proj": (shape.ffn, shape.width),
            "mlp.down_proj": (shape.width, shape.ffn),
            "input_layernorm": (shape.width,),
            "post_attention_layernorm": (shape.width,),
            "self_attn.q_norm": (shape.head_dim,),
            "self_attn.k_norm": (shape.head_dim,),
        }.items():
            shapes[f"model.layers.{i}.{name}.weight"] = size
    shapes["model.norm.weight"] = (shape.width,)
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, shape.width)
    return shapes


def random_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, npt.NDArray[np.float32]]:
    """Return random weights of these shapes, with norms of one, or near it before attention."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            tensors[name] = draw.standard_normal(shape, np.float32) / np.sqrt(shape[-1])
        elif name.endswith("input_layernorm.weight"):
            tensors[name] = 1 + draw.standard_normal(shape, np.float32) / 10
        else:
            tensors[name] = np.ones(shape, np.float32)
    return tensors


def encode(values: npt.NDArray[Any], dtype: str) -> bytes:
    """Return values as a safetensors file holds them; of BF16, cut off and not rounded."""
    if dtype == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    data: Iterable[Any] | None,
) -> None:
    """Write a safetensors file.

    Args:
        path: the file to make.
        tensors: name → (dtype, shape), in the order of the file.
        data: bytes of all tensors, in pieces of any size; None leaves a hole of zeros, which takes
            no room on the disk.
    """
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        end = at + int(np.prod(shape)) * _DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in data or ():
            file.write(piece)
        if data is None:
            file.truncate(8 + len(text) + at)


def write_shards(
    folder: Path,
    shards: Sequence[Mapping[str, tuple[int, ...]]],
    dtype: str,
    data: Callable[[str, tuple[int, ...]], Iterable[Any]] | None,
) -> None:
    """Write the weights of a checkpoint in several files, with their index.

    Args:
        folder: the checkpoint's.
        shards: of each file, name → shape.
        dtype: of all tensors.
        data: from name and shape to the bytes of a tensor, in pieces; or None, as for
            `write_safetensors`.
    """
    index: dict[str, str] = {}
    for i, shapes in enumerate(shards, 1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        pieces = data and (piece for item in shapes.items() for piece in data(*item))
        write_safetensors(folder / file, {n: (dtype, s) for n, s in shapes.items()}, pieces)
        index |= dict.fromkeys(shapes, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
