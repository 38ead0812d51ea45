"""`erank-lite inspect`: what a GGUF file holds."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erank_lite.cli.options import AsJson
from erank_lite.cli.output import printable
from erank_lite.util.json_lines import json_line

if TYPE_CHECKING:
    from erank_lite.models.gguf import GGUFFile

app = typer.Typer(add_completion=False)
_PROVENANCE = ("name", "organization", "license", "source.url", "base_model.0.name", "quantized_by")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Print the facts about `file`.

    Raises:
        ModelError: it is not a GGUF file, or a damaged one.
    """
    from erank_lite.models.gguf import GGUFFile

    facts = describe(GGUFFile.read(file))
    if as_json:
        typer.echo(json_line(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none stated"
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        typer.echo(f"{name.replace('_', ' '):{width}}  {printable(str(value))}")


def describe(gguf: GGUFFile) -> dict[str, Any]:
    """Return the facts about a GGUF file that matter for reranking."""
    meta = gguf.metadata
    tokens = meta.get("tokenizer.ggml.tokens")
    tokens = tokens if isinstance(tokens, list) else []
    ends = meta.get("erank_lite.end_token_ids")
    if not isinstance(ends, list):
        ends = [meta.get(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot", "eom")]
    end_ids = sorted({i for i in ends if isinstance(i, int) and 0 <= i < len(tokens)})
    return {
        "file": str(gguf.path),
        "size_bytes": gguf.size,
        "gguf_version": gguf.version,
        "architecture": gguf.architecture,
        "parameters": sum(math.prod(tensor.shape) for tensor in gguf.tensors),
        "tensors_by_type": dict(Counter(tensor.type for tensor in gguf.tensors).most_common()),
        "layers": gguf.hparam("block_count"),
        "hidden_size": gguf.hparam("embedding_length"),
        "context_length": gguf.hparam("context_length"),
        "cache_bytes_per_token": gguf.cache_bytes_per_token,
        "vocabulary": len(tokens),
        "tokenizer": f"{meta.get('tokenizer.ggml.model')} ({meta.get('tokenizer.ggml.pre')})",
        "chat_template": isinstance(meta.get("tokenizer.chat_template"), str),
        "end_tokens": [tokens[i] for i in end_ids],
        "provenance": {k: meta[f"general.{k}"] for k in _PROVENANCE if f"general.{k}" in meta},
        "looks_like_erank": looks_like_erank(gguf),
    }


def looks_like_erank(gguf: GGUFFile) -> str:
    """Return "yes", "perhaps" or "no", with the reason."""
    from erank_lite.machine.shapes import PUBLISHED

    if any(t.name.startswith("cls") for t in gguf.tensors) or gguf.hparam("pooling_type", 0):
        return "no: it was converted as a classifier or embedding model"
    if gguf.architecture != "qwen3":
        return f"no: ERank models are qwen3, this is {gguf.architecture}"
    if not isinstance(gguf.metadata.get("tokenizer.chat_template"), str):
        return "no: it has no chat template"
    names = " ".join(str(v) for k, v in gguf.metadata.items() if k.startswith("general."))
    named = "erank" in names.lower()
    shapes = {(model.layers, model.width): name for name, model in PUBLISHED.items()}
    shape = shapes.get((gguf.hparam("block_count"), gguf.hparam("embedding_length")))
    if shape is None:
        return (
            "perhaps: it is named ERank, but has none of the published shapes"
            if named
            else "no: neither its name nor its shape is that of an ERank checkpoint"
        )
    if named:
        return f"yes: it is named ERank and has the shape of {shape}"
    return f"perhaps: it has the shape of {shape}, as other Qwen3 models have too"
