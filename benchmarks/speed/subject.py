"""From a model's name to what the systems run: a GGUF file, and the checkpoint behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erank_lite.errors import InputError
from erank_lite.load import resolve
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.prepare import checkpoint_folder
from erank_lite.models.ref import ModelRef
from erank_lite.util.reporter import SILENT, Reporter


@dataclass(frozen=True)
class Subject:
    """The model that is measured.

    Attributes:
        name: as results have it, without its path on this machine.
        path: of the GGUF file.
        checkpoint: the folder of the same model as published, or None where none is known.
    """

    name: str
    path: Path
    checkpoint: Path | None


def find_subject(
    model: str | Path, checkpoint: str | Path | None = None, reporter: Reporter = SILENT
) -> Subject:
    """Find, download or convert what `model` means.

    Args:
        model: its name, as `erank_lite.load.load` takes it, with llama.cpp.
        checkpoint: of the model as published, for the systems that run it in BF16; None takes the
            one that `model` itself names, where it names one.
        reporter: shows how far a download or a conversion is.

    Raises:
        InputError: the name cannot be used.
        ModelError: there is nothing of that name, or the checkpoint is none.
    """
    ref = ModelRef.parse(model)
    if ref.kind == "server":
        raise InputError(f"`{model}` is an address, and speed is measured on files here")
    folder = ref.path if ref.kind in ("folder", "bundled") else None
    if checkpoint is not None:
        found = checkpoint_folder(ModelRef.parse(checkpoint), reporter)
        folder = Checkpoint.open(found).path
    _, path = resolve(model, "llama.cpp", reporter=reporter)
    return Subject(ref.label, Path(path), folder)
