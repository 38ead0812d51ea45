"""The architectures that are converted: which tensors they have, and their numbers in GGUF.

Names and numbers are llama.cpp's (its `conversion/` and `src/models/`); the meaning of the
configuration is that of Transformers 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from erank_lite.errors import ModelError

# What each architecture is called in GGUF files.
_NAMES = {"Qwen3ForCausalLM": "qwen3", "LlamaForCausalLM": "llama"}


_MOST, _MAX_LAYERS = 2**31 - 1, 1000
_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor: its name in the checkpoint and in the GGUF, and its shape (rows first).

    `heads` is 0, or the number of heads whose rows must be reordered: Llama's GGUF keeps the two
    halves of a rotated pair next to each other, its checkpoints keep them half a head apart.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, whichever version of Transformers wrote it down."""

    theta: float
    kind: str
    factor: float
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One model's shape.

    Attributes:
        name: in GGUF, such as "qwen3".
        tensors: all that the model has, in the order of the file.
        rope_factors: Llama 3's divisors of the rotation frequencies [head_dim / 2], or None.
    """

    name: str
    tensors: tuple[TensorPlan, ...]
    rope_factors: npt.NDArray[np.float32] | None
    _config: Mapping[str, Any]
    _rope: Rope
    _head_dim: int

    @classmethod
    def of(cls, config: Mapping[str, Any], has_head: bool) -> Architecture:
        """Return the architecture that `config` (config.json) describes.

        Args:
            config: the configuration.
            has_head: whether the checkpoint holds `lm_head.weight`, which decides where the
                configuration does not say whether the output is tied to the embedding.

        Raises:
            ModelError: it is not one that is converted, uses what llama.cpp does not compute, or
                lacks a number.
        """
        found = config.get("architectures")
        kind = str(found[0]) if isinstance(found, list) and found else None
        if kind not in _NAMES:
            classifier = "Classification" in str(kind)
            raise ModelError(
                f"the checkpoint's architecture is {kind}; {' and '.join(_NAMES)} can be converted"
                + (": ERank generates text, it is not a classifier" if classifier else "")
            )
        _refuse_unsupported(config)
        width, ffn, layers, heads, kv_heads, vocabulary = (
            _count(config, key)
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "vocab_size",
            )
        )
        if heads % kv_heads:
            raise ModelError(
                f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads"
            )
        # Transformers' own defaults, for configurations that leave the head's width out.
        head_dim = config.get("head_dim") or (128 if kind.startswith("Qwen3") else width // heads)
        if type(head_dim) is not int or head_dim < 2 or head_dim % 2:
            raise ModelError(f"config.json: head_dim must be an even number, not {head_dim!r}")
        name = _NAMES[kind]
        tied = config.get("tie_word_embeddings")
        if not isinstance(tied, bool | None):
            raise ModelError(
                f"config.json: tie_word_embeddings must be true or false, not {tied!r}"
            )
        tensors = [
            TensorPlan("model.embed_tokens.weight", "token_embd.weight", (vocabulary, width))
        ]
        for i in range(layers):
            tensors += _layer(i, name, width, ffn, heads, kv_heads, head_dim)
        tensors.append(TensorPlan("model.norm.weight", "output_norm.weight", (width,)))
        if not (not has_head if tied is None else tied):
            tensors.append(TensorPlan("lm_head.weight", "output.weight", (vocabulary, width)))
        rope = _rope(config, name)
        factors = _llama3_factors(rope, head_dim) if rope.kind == "llama3" else None
        return cls(name, tuple(tensors), factors, config, rope, head_dim)

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add the numbers under `<architecture>.…` to a GGUF file."""
        config, rope = self._config, self._rope
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(_count(config, "max_position_embeddings"))
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_rope_freq_base(rope.theta)
        writer.add_layer_norm_rms_eps(_number(config, "rms_norm_eps"))
        writer.add_key_length(self._head_dim)
        writer.add_value_length(self._head_dim)
        if self.name == "llama":
            writer.add_vocab_size(config["vocab_size"])
            writer.add_rope_dimension_count(self._head_dim)
        if rope.kind == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope.factor)
        elif rope.kind == "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope.factor)
            writer.add_rope_scaling_orig_ctx_len(
                _count(rope.parameters, "original_max_position_embeddings")
            )
            for key, add in (
                ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
            ):
                if rope.parameters.get(key) is not None:
                    add(_number(rope.parameters, key))


def _layer(
    i: int, name: str, width: int, ffn: int, heads: int, kv_heads: int, head_dim: int
) -> list[TensorPlan]:
    queries, keys = heads * head_dim, kv_heads * head_dim
    pairs = name == "llama"
    parts: list[tuple[str, str, tuple[int, ...], int]] = [
        ("input_layernorm", "attn_norm", (width,), 0),
        ("self_attn.q_proj", "attn_q", (queries, width), heads if pairs else 0),
        ("self_attn.k_proj", "attn_k", (keys, width), kv_heads if pairs else 0),
        ("self_attn.v_proj", "attn_v", (keys, width), 0),
        ("self_attn.o_proj", "attn_output", (width, queries), 0),
        ("post_attention_layernorm", "ffn_norm", (width,), 0),
        ("mlp.gate_proj", "ffn_gate", (ffn, width), 0),
        ("mlp.up_proj", "ffn_up", (ffn, width), 0),
        ("mlp.down_proj", "ffn_down", (width, ffn), 0),
    ]
    if name == "qwen3":
        parts.append(("self_attn.q_norm", "attn_q_norm", (head_dim,), 0))
        parts.append(("self_attn.k_norm", "attn_k_norm", (head_dim,), 0))
    return [
        TensorPlan(f"model.layers.{i}.{theirs}.weight", f"blk.{i}.{ours}.weight", shape, n)
        for theirs, ours, shape, n in parts
    ]


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Refuse what llama.cpp's graph of these architectures would silently leave out."""
    layer_types = config.get("layer_types") or []
    if not isinstance(layer_types, list):
        raise ModelError(f"config.json: layer_types must be a list, not {layer_types!r}")
    for found, what in (
        (config.get("attention_bias"), "attention_bias"),
        (config.get("mlp_bias"), "mlp_bias"),
        (config.get("use_sliding_window"), "use_sliding_window"),
        (any(t != "full_attention" for t in layer_types), f"layer_types {layer_types[:3]}"),
        (config.get("partial_rotary_factor", 1.0) != 1.0, "partial_rotary_factor"),
        (config.get("hidden_act", "silu") != "silu", f"hidden_act {config.get('hidden_act')!r}"),
    ):
        if found:
            raise ModelError(
                f"config.json asks for {what}, which ERank models do not have and the converter "
                "does not carry"
            )


def _rope(config: Mapping[str, Any], name: str) -> Rope:
    # Transformers 5 keeps all in rope_parameters; 4 has rope_theta beside rope_scaling, whose kind
    # is `type` in older files.
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, dict) or any(isinstance(v, dict) for v in parameters.values()):
        raise ModelError("config.json: the RoPE parameters are not those of one kind of attention")
    theta = _number({"rope_theta": config.get("rope_theta")} | parameters, "rope_theta")
    kind = parameters.get("rope_type", parameters.get("type")) or "default"
    supported = ("default", "linear", "yarn") + (("llama3",) if name == "llama" else ())
    if kind not in supported:
        raise ModelError(
            f"config.json asks for RoPE scaling of type {kind!r}; supported are "
            f"{', '.join(supported)}"
        )
    factor = 1.0
    if kind != "default":
        longest = _count(config, "max_position_embeddings")
        if not {"factor", "original_max_position_embeddings"} & parameters.keys():
            raise ModelError(f"config.json: RoPE scaling of type {kind} needs a factor")
        original = parameters.get("original_max_position_embeddings") or longest
        parameters = {**parameters, "original_max_position_embeddings": original}
        if parameters.get("factor") is None:
            parameters["factor"] = longest / _count(parameters, "original_max_position_embeddings")
        factor = _number(parameters, "factor")
    if kind == "yarn":
        # llama.cpp always multiplies by this, whatever the file says.
        given = parameters.get("attention_factor")
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        other = given is not None and not math.isclose(
            _number(parameters, "attention_factor"), usual, rel_tol=1e-4
        )
        if other or parameters.get("truncate") is False or parameters.get("mscale_all_dim"):
            raise ModelError(
                "config.json asks for a YaRN (attention_factor, truncate, mscale_all_dim) that "
                "llama.cpp does not compute"
            )
    return Rope(theta, kind, factor, parameters)


def _llama3_factors(rope: Rope, head_dim: int) -> npt.NDArray[np.float32]:
    """Return Llama 3.1's divisors of the frequencies (Transformers, `rope_type: llama3`)."""
    low, high, original = (
        _number(rope.parameters, key)
        for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    if high == low:
        raise ModelError("config.json: low_freq_factor and high_freq_factor must differ")
    powers = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(np.float32(rope.theta), powers)
    wavelengths = 2 * math.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / rope.factor + smooth)
    factors = np.where(wavelengths > original / low, rope.factor, between)
    return np.where(wavelengths < original / high, 1.0, factors).astype(np.float32)


def _count(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    most = _MAX_LAYERS if key == "num_hidden_layers" else _MOST
    if type(value) is not int or not 1 <= value <= most:
        raise ModelError(f"config.json: {key} must be an integer from 1 to {most}, not {value!r}")
    return value


def _number(values: Mapping[str, Any], key: str) -> float:
    value: Any = values.get(key)
    # GGUF keeps 32 bits of it; none of these numbers may be zero or negative.
    if type(value) not in (int, float) or not _SMALLEST <= value <= _LARGEST:
        raise ModelError(f"config.json: {key} must be a positive number, not {value!r}")
    return float(value)
