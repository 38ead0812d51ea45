"""`erank-lite inspect`: what a GGUF file holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from erank_lite.cli.terminal import printable
from erank_lite.machine.planning import PUBLISHED
from erank_lite.models.gguf import GGUFFile

# (layers, hidden size) of the published checkpoints.
_ERANK_SHAPES = {(c.layers, c.width): name for name, c in PUBLISHED.items()}
_PROVENANCE = ("name", "organization", "license", "source.url", "base_model.0.name", "quantized_by")


def run(path: Path, as_json: bool) -> None:
    """Print what the file at `path` is.

    Raises:
        ModelError: it is no GGUF file, or a damaged one.
    """
    facts = describe(GGUFFile.read(path))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) or "none stated"
        elif isinstance(value, list):
            shown = ", ".join(map(str, value)) or "none"
        label = name.replace("_", " ")
        typer.echo(f"{label:{width}}  {printable(str(shown))}")


def describe(gguf: GGUFFile) -> dict[str, Any]:
    """Return the facts about a GGUF file that matter for reranking."""
    meta = gguf.metadata
    types: Counter[str] = Counter()
    parameters = 0
    for tensor in gguf.tensors:
        types[tensor.type] += 1
        count = 1
        for n in tensor.shape:
            count *= n
        parameters += count
    template = meta.get("tokenizer.chat_template")
    tokens = meta.get("tokenizer.ggml.tokens")
    tokens = tokens if isinstance(tokens, list) else []
    return {
        "file": str(gguf.path),
        "size_bytes": gguf.size,
        "gguf_version": gguf.version,
        "architecture": gguf.architecture,
        "parameters": parameters,
        "tensors_by_type": dict(types.most_common()),
        "layers": gguf.hparam("block_count"),
        "hidden_size": gguf.hparam("embedding_length"),
        "context_length": gguf.hparam("context_length"),
        "cache_bytes_per_token": gguf.cache_bytes_per_token,
        "vocabulary": len(tokens),
        "tokenizer": f"{meta.get('tokenizer.ggml.model')} ({meta.get('tokenizer.ggml.pre')})",
        "chat_template": isinstance(template, str),
        "end_tokens": [tokens[i] for i in _end_ids(meta) if 0 <= i < len(tokens)],
        "provenance": {k: meta[f"general.{k}"] for k in _PROVENANCE if f"general.{k}" in meta},
        "looks_like_erank": _verdict(gguf, isinstance(template, str)),
    }


def _end_ids(meta: dict[str, Any]) -> list[int]:
    named = meta.get("erank_lite.end_token_ids")
    if not isinstance(named, list):
        named = [meta.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    return sorted({i for i in named if isinstance(i, int)})


def _verdict(gguf: GGUFFile, template: bool) -> str:
    """Return "yes", "perhaps" or "no", with the reason."""
    if any(t.name.startswith("cls") for t in gguf.tensors) or gguf.hparam("pooling_type", 0):
        return "no: it was converted as a classifier or embedding model"
    if gguf.architecture != "qwen3":
        return f"no: ERank models are qwen3, this is {gguf.architecture}"
    if not template:
        return "no: it has no chat template"
    shape = _ERANK_SHAPES.get((gguf.hparam("block_count"), gguf.hparam("embedding_length")))
    named = (
        "erank"
        in " ".join(str(v) for k, v in gguf.metadata.items() if k.startswith("general.")).lower()
    )
    if named and shape:
        return f"yes: it is named so and has the shape of {shape}"
    if shape:
        return f"perhaps: it has the shape of {shape}, but so have other Qwen3 models"
    return (
        "perhaps: it is named so, but has none of the published shapes"
        if named
        else ("no: neither its name nor its shape is that of an ERank checkpoint")
    )
