"""Where a converted file comes from: what the model card says, and our keys `erank_lite.…`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import gguf

from erank_lite.models.lora import LoraAdapter
from erank_lite.version import __version__

_log = logging.getLogger(__name__)


def hub_name(path: Path) -> tuple[str, str] | None:
    """Return (name, commit) of a checkpoint in the Hub's cache, or None for any other folder.

    The layout is huggingface_hub's: `models--OWNER--NAME/snapshots/COMMIT`.
    """
    path = path.absolute()
    repository = path.parent.parent.name
    if path.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/", 1), path.name


def write(
    writer: gguf.GGUFWriter, path: Path, quant_type: str, adapter: LoraAdapter | None = None
) -> None:
    """Add the keys under `general.…` and ours; the tensors must have been added before."""
    parameters, shared, experts, count = writer.get_total_parameter_count()
    metadata = _card(path, parameters)
    named = hub_name(path)
    if named is not None:
        _name_by(metadata, named[0], parameters)
    if metadata.size_label is None:
        metadata.size_label = gguf.size_label(parameters, shared, experts, count)
    if adapter is not None:  # the merged model goes by the adapter's name, which tells its family
        metadata.name = _adapter_name(adapter)
    writer.add_type(gguf.GGUFType.MODEL)
    metadata.set_gguf_meta_model(writer)
    writer.add_string("erank_lite.version", __version__)
    writer.add_string("erank_lite.type", quant_type)
    # The folder's name only: where it lay on somebody's disk is nobody's business.
    writer.add_string("erank_lite.source", named[0] if named else path.absolute().name)
    if named is not None:
        writer.add_string("erank_lite.revision", named[1])
    if adapter is not None:
        writer.add_string("erank_lite.adapter", _adapter_name(adapter))


def _adapter_name(adapter: LoraAdapter) -> str:
    named = hub_name(adapter.path)
    return named[0] if named else adapter.path.absolute().name


def _card(path: Path, parameters: int) -> gguf.Metadata:
    try:
        metadata = gguf.Metadata.load(None, path, None, parameters)
    # A model card is foreign text, and the package raises whatever its parser does.
    except Exception as error:
        _log.warning("%s: the model card cannot be read (%s): left out", path, type(error).__name__)
        metadata = gguf.Metadata(name=path.absolute().name)
    # Nor does the package check types, and what it cannot write would end the conversion.
    for field in dataclasses.fields(metadata):
        value = getattr(metadata, field.name)
        if value is not None and not _writable(value, str(field.type)):
            setattr(metadata, field.name, None)
    return metadata


def _writable(value: Any, annotation: str) -> bool:
    if "list[str]" in annotation:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if "list" in annotation:
        return isinstance(value, list) and all(
            isinstance(v, dict) and all(isinstance(x, str) for x in v.values()) for v in value
        )
    if "str" in annotation:
        return isinstance(value, str)
    return type(value) in (int, float) and abs(value) < 2**31


def _name_by(metadata: gguf.Metadata, name: str, parameters: int) -> None:
    """Name the model by its name on the Hub: the folder's name there is a commit."""
    parts = gguf.Metadata.get_model_id_components(name, parameters)
    full, organization, basename, finetune, version, size_label = parts
    metadata.name = gguf.Metadata.id_to_title(full or name)
    metadata.organization = metadata.organization or gguf.Metadata.id_to_title(organization or "")
    metadata.basename, metadata.finetune = basename, finetune
    metadata.version, metadata.size_label = version, size_label or metadata.size_label
    metadata.source_url = metadata.source_repo_url = f"https://huggingface.co/{name}"
