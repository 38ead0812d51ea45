"""The files of a GPTQ checkpoint beside its weights: the source's own, and what was done to them.

GPTQModel writes a sampling generation configuration, a tokenizer of its own making, a log, and a
temporary path into the configurations: none of it stays.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from erank_lite.convert.provenance import hub_name
from erank_lite.errors import ModelError
from erank_lite.models.checkpoint import TOKENIZER, Checkpoint
from erank_lite.util.files import read_json
from erank_lite.version import __version__

_COPIED = (
    "generation_config.json", TOKENIZER, "tokenizer_config.json", "chat_template.jinja",
    "chat_template.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "LICENSE", "NOTICE",
)  # fmt: skip
_WEIGHTS = (".safetensors", ".safetensors.index.json")
# What loaders read, or people may want to know; all else of `meta` is GPTQModel's housekeeping.
_META = (
    "quantizer", "uri", "damp_percent", "damp_auto_increment", "static_groups", "true_sequential",
    "mse", "act_group_aware",
)  # fmt: skip


def finish(
    folder: Path,
    source: Checkpoint,
    settings: dict[str, Any],
    dtype: str,
    calibration: dict[str, Any],
) -> None:
    """Make what GPTQModel saved in `folder` a checkpoint like `source`, but for its weights.

    Args:
        folder: with the quantized weights.
        source: what was quantized.
        settings: as they were asked for; they are compared with what GPTQModel wrote.
        dtype: of what is not quantized.
        calibration: what is to be noted of the calibration text.

    Raises:
        ModelError: GPTQModel wrote something else than was asked for.
    """
    quantization = read_json(folder / "config.json").get("quantization_config", {})
    asked = settings | {
        "quant_method": "gptq", "format": "gptq", "checkpoint_format": "gptq",
    }  # fmt: skip
    for key, value in asked.items():
        if quantization.get(key) != value:
            raise ModelError(
                f"GPTQModel wrote {key} {quantization.get(key)!r} where {value!r} was asked for: "
                "this version of it cannot be used"
            )
    meta = quantization.get("meta", {})
    quantization["meta"] = {key: meta[key] for key in _META if meta.get(key) is not None} | {
        "erank_lite": _provenance(source.path, calibration)
    }
    for file in folder.iterdir():
        if not file.name.endswith(_WEIGHTS):
            file.unlink()
    for name in _COPIED:
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    named = "dtype" if "dtype" in source.config else "torch_dtype"
    config = source.config | {named: dtype, "quantization_config": quantization}
    _write(folder / "config.json", config)
    _write(folder / "quantize_config.json", quantization)


def data_size(folder: Path) -> int:
    """Return the bytes of all tensors in the folder, without the headers of their files."""
    size = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            size += file.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")
    return size


def _provenance(source: Path, calibration: dict[str, Any]) -> dict[str, Any]:
    named = hub_name(source)
    # The folder's name only: where it lay on somebody's disk is nobody's business.
    origin = {"source": named[0], "revision": named[1]} if named else {"source": source.name}
    return {"version": __version__} | origin | {"calibration": calibration}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
