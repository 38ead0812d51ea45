"""The architectures that are known: which tensors each has, and whether a checkpoint has them.

Names and numbers are llama.cpp's (its `conversion/` and `src/models/`); the meaning of the
configuration is that of Transformers 4 and 5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.errors import ModelError
from erank_lite.machine.shapes import MAX_LAYERS, MAX_SIZE
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.safetensors import StoredTensor

# What each architecture is called in GGUF files.
_NAMES = {
    "Qwen3ForCausalLM": "qwen3", "Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama",
}  # fmt: skip

# What stands in the names of tensors where a module around the model was saved.
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "base_layer": "PEFT",
    "base_model": "PEFT",
    "module": "DistributedDataParallel or DeepSpeed",
}
_MIN_NUMBER, _MAX_NUMBER = 1e-30, 1e30
_READ = 1 << 20  # bytes that are compared at once


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name in the checkpoint and in a GGUF file, and its shape (rows first).

    `heads` is 0, or the number of heads whose rows must be reordered: Llama's GGUF keeps the two
    halves of a rotated pair next to each other, its checkpoints keep them half a head apart.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0


def architecture_name(config: Mapping[str, Any]) -> str | None:
    """Return the name of a checkpoint's architecture as Transformers has it.

    FSDP writes its own before it; where none is named, `model_type` tells.

    Example:
        >>> architecture_name({"architectures": ["FSDPQwen3ForCausalLM"]})
        'Qwen3ForCausalLM'
        >>> architecture_name({"model_type": "llama"})
        'LlamaForCausalLM'
    """
    found = config.get("architectures")
    if isinstance(found, list) and found:
        return str(found[0]).removeprefix("FSDP")
    return {kind: name for name, kind in _NAMES.items()}.get(str(config.get("model_type")))


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, whichever version of Transformers wrote it down."""

    theta: float
    type: str
    factor: float
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """The architecture of one model, with its shape.

    Attributes:
        name: in GGUF, such as "qwen3".
        config: config.json.
        tensors: all that the model has, in the order of a GGUF file.
        rope: how positions are encoded.
        head_dim: numbers of a head.
    """

    name: str
    config: Mapping[str, Any]
    tensors: tuple[TensorSpec, ...]
    rope: Rope
    head_dim: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], has_head: bool) -> Architecture:
        """Return the architecture that `config` (config.json) describes.

        Args:
            config: the configuration.
            has_head: whether the checkpoint holds `lm_head.weight`, which decides where the
                configuration does not say whether the output is tied to the embedding.

        Raises:
            ModelError: it is not a known one, uses what llama.cpp does not compute, or lacks a
                number.
        """
        named = architecture_name(config)
        if named not in _NAMES:
            classifier = "Classification" in str(named)
            raise ModelError(
                f"the checkpoint's architecture is {named}"
                + (": ERank generates text, it is not a classifier" if classifier else ""),
                f"give a checkpoint of {' or '.join(_NAMES)}",
            )
        _refuse_unsupported(config)
        width, ffn, layers, heads, kv_heads, vocabulary = (
            positive_int(config, key)
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
        head_dim = config.get("head_dim") or (128 if named.startswith("Qwen3") else width // heads)
        if type(head_dim) is not int or head_dim < 2 or head_dim % 2:
            raise ModelError(f"config.json: head_dim must be an even number, not {head_dim!r}")
        name = _NAMES[named]
        tied = config.get("tie_word_embeddings")
        if not isinstance(tied, bool | None):
            raise ModelError(
                f"config.json: tie_word_embeddings must be true or false, not {tied!r}"
            )
        tensors = [
            TensorSpec("model.embed_tokens.weight", "token_embd.weight", (vocabulary, width))
        ]
        for i in range(layers):
            tensors += _layer(i, name, width, ffn, heads, kv_heads, head_dim)
        tensors.append(TensorSpec("model.norm.weight", "output_norm.weight", (width,)))
        if not (not has_head if tied is None else tied):
            tensors.append(TensorSpec("lm_head.weight", "output.weight", (vocabulary, width)))
        return cls(name, config, tuple(tensors), _rope(config, name), head_dim)


def open_unquantized(path: Path) -> tuple[Checkpoint, Architecture]:
    """Open the checkpoint in the folder `path`, and check that it is whole and not quantized.

    Raises:
        ModelError: it is not, or see `match`.

    Example:
        >>> from erank_lite.models.checkpoint import BUNDLED_FOLDER
        >>> checkpoint, architecture = open_unquantized(BUNDLED_FOLDER)
        >>> architecture.name, architecture.tensors[0].name, architecture.tensors[0].shape
        ('qwen3', 'token_embd.weight', (23552, 512))
    """
    checkpoint = Checkpoint.open(path)
    checkpoint.check_not_quantized()
    return checkpoint, match(checkpoint)


def match(checkpoint: Checkpoint) -> Architecture:
    """Return the architecture of a checkpoint whose tensors are found to be those of config.json.

    All must be there, in their shapes, and no other. Of a GPTQ checkpoint, a matrix of a layer may
    be there in its quantized parts, and more is allowed than is known, but no more layers.

    Raises:
        ModelError: they are not, or see `Architecture.from_config` and `Checkpoint.tensors`.
    """
    stored = dict(checkpoint.tensors)
    architecture = Architecture.from_config(checkpoint.config, "lm_head.weight" in stored)
    for spec in architecture.tensors:
        names = [spec.source]
        in_parts = spec.source.startswith("model.layers.") and len(spec.shape) > 1
        if checkpoint.quantization and spec.source not in stored and in_parts:
            module = spec.source.removesuffix("weight")
            names = [f"{module}{part}" for part in ("qweight", "qzeros", "scales")]
        for name in names:
            tensor = stored.pop(name, None)
            if tensor is None:
                _refuse_wrapped(checkpoint)
                raise ModelError(
                    f"`{checkpoint.path}` lacks the tensor {name}, which config.json calls for: "
                    "they are not of one checkpoint, or a shard is missing",
                    "download or quantize it again",
                )
            if name == spec.source and tensor.shape != spec.shape:
                raise ModelError(
                    f"`{tensor.file}`: tensor {name} has shape {list(tensor.shape)}, config.json "
                    f"calls for {list(spec.shape)}"
                )
    if checkpoint.quantization:
        extra = [name for name in stored if re.match(r"model\.layers\.\d+\.", name)]
        layers = checkpoint.config["num_hidden_layers"]
        extra = [name for name in extra if int(name.split(".")[2]) >= layers]
    else:
        _check_tied(checkpoint, stored.pop("lm_head.weight", None))
        # Transformers 3 saved the frequencies of the rotation, which config.json gives too.
        extra = [name for name in stored if not name.endswith("rotary_emb.inv_freq")]
    if extra:
        raise ModelError(
            f"`{stored[extra[0]].file}` holds a tensor {extra[0]} ({len(extra)} such in all) that "
            f"a {architecture.name} model of this config.json does not have: the result would not "
            "be the model that was trained"
        )
    return architecture


def _refuse_wrapped(checkpoint: Checkpoint) -> None:
    """Refuse the state of a module around the model, which no loader takes for the model's."""
    for name in checkpoint.tensors:
        for part, wrapper in _WRAPPERS.items():
            if part in name.split("."):
                raise ModelError(
                    f"`{checkpoint.path}` names its tensors as {wrapper} does around a model: "
                    f"{name}",
                    "save the model inside it, by its save_pretrained",
                )


def _check_tied(checkpoint: Checkpoint, head: StoredTensor | None) -> None:
    """Refuse an output matrix that differs from the embedding to which config.json ties it."""
    if head is not None and not _same_data(head, checkpoint.tensors["model.embed_tokens.weight"]):
        raise ModelError(
            f"`{checkpoint.path}` holds an lm_head.weight of its own, but config.json ties it to "
            "the embedding",
            "set tie_word_embeddings to what was trained",
        )


def _same_data(a: StoredTensor, b: StoredTensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with a.file.open("rb") as one, b.file.open("rb") as other:
        one.seek(a.offset)
        other.seek(b.offset)
        for at in range(0, a.size, _READ):
            length = min(_READ, a.size - at)
            if one.read(length) != other.read(length):
                return False
    return True


def _layer(
    i: int, name: str, width: int, ffn: int, heads: int, kv_heads: int, head_dim: int
) -> list[TensorSpec]:
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
    specs = [
        TensorSpec(f"model.layers.{i}.{theirs}.weight", f"blk.{i}.{ours}.weight", shape, n)
        for theirs, ours, shape, n in parts
    ]
    if name == "qwen2":
        specs += [
            TensorSpec(
                f"model.layers.{i}.self_attn.{part}_proj.bias", f"blk.{i}.attn_{part}.bias", (rows,)
            )
            for part, rows in (("q", queries), ("k", keys), ("v", keys))
        ]
    return specs


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
                f"config.json asks for {what}, which ERank models do not have and is not supported"
            )


def _rope(config: Mapping[str, Any], name: str) -> Rope:
    # Transformers 5 keeps all in rope_parameters; 4 has rope_theta beside rope_scaling, whose type
    # is under `type` in older files.
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, dict) or any(isinstance(v, dict) for v in parameters.values()):
        raise ModelError("config.json: the RoPE parameters are not those of one kind of attention")
    theta = positive_number({"rope_theta": config.get("rope_theta")} | parameters, "rope_theta")
    rope_type = parameters.get("rope_type", parameters.get("type")) or "default"
    supported = ("default", "linear", "yarn") + (("llama3",) if name == "llama" else ())
    if rope_type not in supported:
        raise ModelError(
            f"config.json asks for RoPE scaling of type {rope_type!r}; supported are "
            f"{', '.join(supported)}"
        )
    factor = 1.0
    if rope_type != "default":
        longest = positive_int(config, "max_position_embeddings")
        if not {"factor", "original_max_position_embeddings"} & parameters.keys():
            raise ModelError(f"config.json: RoPE scaling of type {rope_type} needs a factor")
        original = parameters.get("original_max_position_embeddings") or longest
        parameters = {**parameters, "original_max_position_embeddings": original}
        if parameters.get("factor") is None:
            original = positive_int(parameters, "original_max_position_embeddings")
            parameters["factor"] = longest / original
        factor = positive_number(parameters, "factor")
    if rope_type == "yarn":
        # llama.cpp always multiplies by this, whatever the file says.
        given = parameters.get("attention_factor")
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        other = given is not None and not math.isclose(
            positive_number(parameters, "attention_factor"), usual, rel_tol=1e-4
        )
        if other or parameters.get("truncate") is False or parameters.get("mscale_all_dim"):
            raise ModelError(
                "config.json asks for a YaRN (attention_factor, truncate, mscale_all_dim) that "
                "llama.cpp does not compute"
            )
    if rope_type == "llama3":
        positive_number(parameters, "original_max_position_embeddings")
        if positive_number(parameters, "low_freq_factor") == positive_number(
            parameters, "high_freq_factor"
        ):
            raise ModelError("config.json: low_freq_factor and high_freq_factor must differ")
    return Rope(theta, rope_type, factor, parameters)


def positive_int(values: Mapping[str, Any], key: str) -> int:
    """Return the whole number `key` of config.json.

    Raises:
        ModelError: it is missing, not a whole number, or out of range.
    """
    value = values.get(key)
    limit = MAX_LAYERS if key == "num_hidden_layers" else MAX_SIZE
    if type(value) is not int or not 1 <= value <= limit:
        raise ModelError(f"config.json: {key} must be an integer from 1 to {limit}, not {value!r}")
    return value


def positive_number(values: Mapping[str, Any], key: str) -> float:
    """Return the number `key` of config.json.

    Raises:
        ModelError: it is missing, not a number, or out of range.
    """
    value: Any = values.get(key)
    # GGUF keeps 32 bits of it; none of these numbers may be zero or negative.
    if type(value) not in (int, float) or not _MIN_NUMBER <= value <= _MAX_NUMBER:
        raise ModelError(f"config.json: {key} must be a positive number, not {value!r}")
    return float(value)
