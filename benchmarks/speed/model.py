"""From a model's name to what the ways run: a GGUF file, and the checkpoint behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erank_lite.benchmarks.speed.work import Work
from erank_lite.engines import is_address
from erank_lite.errors import InputError
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.prepare import (
    BUNDLED_MODEL,
    checkpoint_folder,
    folder_and_type,
    is_a,
    model_file,
)


@dataclass(frozen=True)
class Model:
    """What is measured.

    Attributes:
        name: as it is told in results, without its place on this machine.
        gguf: the file.
        checkpoint: the folder of the same model as published, or None where none is known.
    """

    name: str
    gguf: Path
    checkpoint: Path | None

    @classmethod
    def find(cls, name: str | Path, checkpoint: str | Path | None = None) -> Model:
        """Find, or convert, what `name` means.

        Args:
            name: as `erank_lite.models.prepare.model_file` takes it.
            checkpoint: the folder of the checkpoint, for the ways that run it in BF16; None takes
                the one that `name` itself names, where it names one.

        Raises:
            InputError: the name or the checkpoint cannot be.
            ModelError: there is nothing of that name.
        """
        if is_address(name):
            raise InputError(f"{name}: speed is measured on files here, not at an address")
        text = str(name)
        if checkpoint is not None:
            checkpoint = checkpoint_folder(checkpoint)
            if not (checkpoint / "config.json").is_file():
                raise InputError(f"{checkpoint} is not a checkpoint: it has no config.json")
        told = text
        if is_a(Path.exists, text):
            told = Path(text).resolve().name
        elif text.partition(":")[0] == BUNDLED_MODEL:
            checkpoint = checkpoint or checkpoint_folder(BUNDLED_MODEL)
        folder, kind = (None, None) if is_a(Path.is_file, text) else folder_and_type(text)
        if folder is not None:
            checkpoint = checkpoint or folder
            told = folder.resolve().name + (f":{kind}" if kind else "")
        return cls(told, model_file(name), checkpoint)

    def check(self, work: Work) -> GGUFFile:
        """Return the file's header, if the work fits into the model's context.

        Raises:
            InputError: it does not.
            ModelError: the file cannot be read.
        """
        gguf = GGUFFile.read(self.gguf)
        most = int(gguf.hparam("context_length", 0) or 0)
        if most and work.cells > most:
            raise InputError(
                f"{self.name} has a context of {most} tokens, and a document would need "
                f"{work.cells}: ask for fewer shared, own or written tokens"
            )
        return gguf
