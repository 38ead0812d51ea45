"""LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors.

A module's weight W becomes W + scale·(B·A), scale = alpha / r, or alpha / √r where `use_rslora` is
set (arXiv 2106.09685; `peft.tuners.lora`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from erank_lite.errors import ModelError
from erank_lite.models.architecture import Architecture
from erank_lite.models.safetensors import DTYPES, StoredTensor, read_header
from erank_lite.util.files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PART = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)(?:\.\w+)?\.weight")


@dataclass(frozen=True)
class LoraPart:
    """What is added to one weight: scale·(B·A).

    Attributes:
        a: [r, columns of the weight].
        b: [rows of the weight, r].
        scale: a factor.
    """

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]
    scale: float

    def added(self, rows: npt.NDArray[np.float32], start: int) -> npt.NDArray[np.float32]:
        """Return some rows of the weight, from row `start` on, with what is added to them."""
        delta = self.b[start : start + len(rows)] @ self.a
        merged: npt.NDArray[np.float32] = rows + delta * np.float32(self.scale)
        return merged


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter.

    Attributes:
        path: its folder.
        base: the model that it says it is for, or None.
        parts: by the name of the weight in the base's checkpoint.
    """

    path: Path
    base: str | None
    parts: Mapping[str, LoraPart]

    @classmethod
    def open(cls, path: Path) -> LoraAdapter:
        """Read an adapter.

        Raises:
            ModelError: it is none, is damaged, or changes a model in another way than is known.
        """
        if not path.is_dir():
            raise ModelError(
                f"there is no folder `{path}`", "give the folder of a LoRA adapter as PEFT saves it"
            )
        if not (path / CONFIG).is_file():
            raise ModelError(
                f"`{path}` holds no {CONFIG}",
                "give the folder of a LoRA adapter as PEFT saves it",
            )
        config = read_json(path / CONFIG)
        _refuse_unsupported(path, config)
        if not (path / WEIGHTS).is_file():
            raise ModelError(f"`{path}` holds no {WEIGHTS}", "save the adapter in safetensors")
        stored = read_header(path / WEIGHTS, DTYPES)
        modules: dict[str, dict[str, StoredTensor]] = {}
        for name, tensor in stored.items():
            found = _PART.fullmatch(name)
            if found is None or len(tensor.shape) != 2:
                raise ModelError(
                    f"`{path / WEIGHTS}` holds {name}, which is no A or B of a weight matrix",
                    "merge it with PEFT (merge_and_unload), and convert the merged checkpoint",
                )
            modules.setdefault(found[1], {})[found[2]] = tensor
        parts = {
            f"{module}.weight": _part(path, module, pair, config)
            for module, pair in modules.items()
        }
        if not parts:
            raise ModelError(f"`{path / WEIGHTS}` holds no weights", "save the adapter again")
        base = config.get("base_model_name_or_path")
        return cls(path, base if isinstance(base, str) and base else None, parts)

    def check(self, architecture: Architecture) -> None:
        """Check that a model has the weights that this adapter changes.

        Raises:
            ModelError: it has not, or in other shapes.
        """
        shapes = {spec.source: spec.shape for spec in architecture.tensors}
        for name, part in self.parts.items():
            wanted = (part.b.shape[0], part.a.shape[1])
            if shapes.get(name) != wanted:
                has = shapes.get(name)
                what = f"which has {list(has)} there" if has else "which has none of that name"
                raise ModelError(
                    f"`{self.path}` changes {name} of shape {list(wanted)}, and is no adapter of "
                    f"this model, {what}",
                    f"it says that it is one of {self.base}" if self.base else None,
                )


def _refuse_unsupported(path: Path, config: Mapping[str, Any]) -> None:
    for wrong, what in (
        (config.get("peft_type") != "LORA", f"peft_type {config.get('peft_type')!r}"),
        (config.get("use_dora"), "use_dora"),
        (config.get("fan_in_fan_out"), "fan_in_fan_out"),
        (config.get("bias") not in (None, "none"), f"bias {config.get('bias')!r}"),
        (config.get("modules_to_save"), "modules_to_save"),
        (config.get("trainable_token_indices"), "trainable_token_indices"),
    ):
        if wrong:
            raise ModelError(
                f"`{path / CONFIG}` asks for {what}, which is not supported",
                "merge it with PEFT (merge_and_unload), and convert the merged checkpoint",
            )


def _part(
    path: Path, module: str, pair: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> LoraPart:
    a, b = pair.get("A"), pair.get("B")
    if a is None or b is None or a.shape[0] != b.shape[1]:
        raise ModelError(f"`{path / WEIGHTS}` is damaged: A and B of {module} do not fit")
    rank = a.shape[0]
    alpha = config.get("lora_alpha")
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.search(rf"(?:.*\.)?(?:{pattern})$", module):
            alpha = own
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise ModelError(f"`{path / CONFIG}`: lora_alpha must be a number, not {alpha!r}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraPart(_floats(a), _floats(b), scale)


def _floats(tensor: StoredTensor) -> npt.NDArray[np.float32]:
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        data = file.read(tensor.size)
    if tensor.dtype == "BF16":
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F16": np.float16, "F32": np.float32}[tensor.dtype]).astype(
            np.float32
        )
    return values.reshape(tensor.shape)
