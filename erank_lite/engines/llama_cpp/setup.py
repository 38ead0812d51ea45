"""What the llama.cpp engine needs to know before it loads a model: may it, and with how much."""

from __future__ import annotations

from erank_lite.errors import InputError, ModelError
from erank_lite.machine.planning import KV_BYTES
from erank_lite.models.gguf import GGUFFile

REBUILD = (
    'reinstall it with CMAKE_ARGS="-DGGML_CUDA=on" (NVIDIA), "-DGGML_METAL=on" (Apple) or '
    '"-DGGML_VULKAN=on": pip install --force-reinstall --no-cache-dir llama-cpp-python'
)
_MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ


def check_options(
    sequences: int | None,
    context_length: int | None,
    micro_batch: int | None,
    threads: int | None,
    gpu_layers: int | None,
    kv_type: str,
) -> None:
    for name, value, least, most in (
        ("sequences", sequences, 1, _MOST_SEQUENCES),
        ("context_length", context_length, 256, 1 << 24),
        ("micro_batch", micro_batch, 1, 1 << 16),
        ("threads", threads, 1, 1024),
        ("gpu_layers", gpu_layers, -1, 1 << 16),
    ):
        if value is not None and not least <= value <= most:
            raise InputError(f"{name} must lie between {least} and {most}, not {value}")
    if kv_type not in KV_BYTES:
        raise InputError(f"kv_type must be one of {', '.join(KV_BYTES)}, not {kv_type!r}")


def check_model(gguf: GGUFFile) -> None:
    """Refuse files that do not generate text.

    Raises:
        ModelError: the file is damaged, an encoder, an embedding model or a classifier.
    """
    limits = (gguf.hparam("context_length", 0), gguf.metadata.get("erank_lite.max_new_tokens", 1))
    ends = gguf.metadata.get("erank_lite.end_token_ids", [])
    if not all(type(v) is int for v in limits) or not isinstance(ends, list):
        raise ModelError(f"{gguf.path} is damaged: its limits or end tokens are not numbers")
    names = {t.name for t in gguf.tensors}
    if not names:
        raise ModelError(f"{gguf.path} holds no weights, only a vocabulary")
    if gguf.hparam("attention.causal") is False or "encoder" in gguf.architecture:
        raise ModelError(
            f"{gguf.path} is an encoder ({gguf.architecture}), which cannot generate a reasoning: "
            "give a GGUF of an ERank checkpoint"
        )
    if any(n.startswith("cls") for n in names) or gguf.hparam("pooling_type", 0) not in (0, None):
        raise ModelError(
            f"{gguf.path} was converted as a classifier or embedding model, so it cannot generate: "
            "convert the checkpoint again as a causal language model"
        )


def chat_template(gguf: GGUFFile) -> str:
    template = gguf.metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        raise ModelError(
            f"{gguf.path} has no chat template, so the prompt cannot be made as the model knows "
            "it: convert it again from a checkpoint that has one"
        )
    return template


def end_ids(gguf: GGUFFile) -> frozenset[int]:
    """Return the end tokens that the checkpoint named, where the converter wrote them down."""
    return frozenset(gguf.metadata.get("erank_lite.end_token_ids", ()))
