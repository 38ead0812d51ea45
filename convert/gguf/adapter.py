"""A LoRA adapter as a GGUF file, which llama.cpp adds to a model as it runs.

Names and keys are llama.cpp's (`convert_lora_to_gguf.py`). The scale is part of B, so that modules
may have different ones; A and B keep 32 bits.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from erank_lite.convert.output import check_parent
from erank_lite.errors import InputError
from erank_lite.models.architecture import match
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.lora import LoraAdapter
from erank_lite.util.files import atomic
from erank_lite.version import __version__


def convert_adapter(source: Path, base: Path, out: Path, *, force: bool = False) -> None:
    """Write the adapter in the folder `source` as the GGUF file `out`.

    Args:
        source: as PEFT saves it.
        base: folder of the checkpoint that it changes; its weights are not read.
        out: the file to make.
        force: replace a file that is there.

    Raises:
        InputError: the path of the output cannot be used.
        ModelError: it is no adapter, or none of this model.
    """
    if out.suffix != ".gguf":
        raise InputError(f"the output must be a .gguf file, not `{out}`")
    check_parent(out, force)
    adapter = LoraAdapter.open(source)
    architecture = match(Checkpoint.open(base))
    adapter.check(architecture)
    specs = {spec.source: spec for spec in architecture.tensors}
    with atomic(out) as path:
        writer = gguf.GGUFWriter(path, architecture.name)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_string("general.name", source.absolute().name)
        writer.add_string("erank_lite.version", __version__)
        for name, part in adapter.parts.items():
            spec = specs[name]
            b = part.b * np.float32(part.scale)
            if spec.heads:  # as the rows of the weight are
                head = len(b) // spec.heads
                b = b.reshape(spec.heads, 2, head // 2, -1).swapaxes(1, 2).reshape(b.shape)
            writer.add_tensor(f"{spec.name}.lora_a", part.a)
            writer.add_tensor(f"{spec.name}.lora_b", np.ascontiguousarray(b))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
