"""The numbers of an architecture in a GGUF file, under llama.cpp's names (its `conversion/`)."""

from __future__ import annotations

import math

import gguf
import numpy as np
import numpy.typing as npt

from erank_lite.models.architecture import Architecture, positive_int, positive_number


def write_architecture(writer: gguf.GGUFWriter, architecture: Architecture) -> None:
    """Add the keys under `<architecture>.…` to a GGUF file.

    Raises:
        ModelError: config.json lacks a number.
    """
    config, rope = architecture.config, architecture.rope
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(positive_int(config, "max_position_embeddings"))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope.theta)
    writer.add_layer_norm_rms_eps(positive_number(config, "rms_norm_eps"))
    # As llama.cpp has it: the heads of Qwen2 divide its width, unless config.json says otherwise.
    if architecture.name != "qwen2" or config.get("head_dim") is not None:
        writer.add_key_length(architecture.head_dim)
        writer.add_value_length(architecture.head_dim)
    if architecture.name == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(architecture.head_dim)
    if rope.type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope.factor)
    elif rope.type == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope.factor)
        writer.add_rope_scaling_orig_ctx_len(
            positive_int(rope.parameters, "original_max_position_embeddings")
        )
        for key, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.parameters.get(key) is not None:
                add(positive_number(rope.parameters, key))


def rope_factors(architecture: Architecture) -> npt.NDArray[np.float32] | None:
    """Return Llama 3's divisors of the rotation frequencies [head_dim / 2], or None.

    As Transformers computes them (`rope_type: llama3`).
    """
    rope, head_dim = architecture.rope, architecture.head_dim
    if rope.type != "llama3":
        return None
    low, high, original = (
        float(rope.parameters[key])
        for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    powers = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(np.float32(rope.theta), powers)
    wavelengths = 2 * math.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / rope.factor + smooth)
    factors = np.where(wavelengths > original / low, rope.factor, between)
    return np.where(wavelengths < original / high, 1.0, factors).astype(np.float32)
