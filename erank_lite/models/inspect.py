"""What a name stands for and what it asks of a machine, found out without its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from erank_lite.errors import InputError, ModelError
from erank_lite.machine.shapes import PUBLISHED, ModelInfo, ModelShape
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.ref import BUNDLED_TYPE, PUBLISHER, ModelRef
from erank_lite.models.repository import Repository


def inspect(ref: ModelRef) -> ModelInfo:
    """Return what `ref` is; of a repository that is not here, a few small files are downloaded.

    Raises:
        InputError: the name and what it means do not go together.
        ModelError: what is named is damaged.

    Example:
        >>> info = inspect(ModelRef.parse("Alibaba-NLP/ERank-4B"))
        >>> info.format, info.type, info.shape("Q4_K_M").layers
        ('checkpoint', None, 36)
        >>> f"{info.shape('Q4_K_M').size / 1e9:.1f} GB"
        '2.5 GB'
    """
    if ref.kind == "server":
        return ModelInfo("server")
    if ref.kind == "file":
        assert ref.path is not None
        return _inspect_gguf(ref.path)
    if ref.kind == "bundled":
        assert ref.path is not None
        shape = _expected_shape(Checkpoint.open(ref.path))
        return ModelInfo("bundled", ref.type or BUNDLED_TYPE, shape)
    if ref.kind == "folder":
        assert ref.path is not None
        _refuse_gguf_files(ref.path)
        return _inspect_checkpoint(Checkpoint.open(ref.path), ref.type)
    if ref.file:
        here = Repository(ref).local_gguf()
        return ModelInfo("gguf") if here is None else _inspect_gguf(here)
    owner, _, published = ref.repository.partition("/")
    if owner == PUBLISHER and published in PUBLISHED:
        shape = partial(ModelShape.published, published)
        return ModelInfo("gguf" if ref.type else "checkpoint", ref.type, shape)
    found = None if ref.type else Repository(ref).config()
    if found is None:
        return ModelInfo("gguf" if ref.type else "checkpoint", ref.type)
    return _inspect_checkpoint(found, None)


def _inspect_gguf(path: Path) -> ModelInfo:
    shape = GGUFFile.read(path).shape()
    return ModelInfo("gguf", None, lambda quant_type: shape)


def _refuse_gguf_files(folder: Path) -> None:
    files = sorted(folder.glob("*.gguf"))
    if files and not (folder / "config.json").is_file():
        raise ModelError(
            f"`{folder}` is a folder of GGUF files, not a checkpoint",
            f"name one of them, as in {files[0]}",
        )


def _inspect_checkpoint(folder: Checkpoint, quant_type: str | None) -> ModelInfo:
    if folder.quantization:
        folder.check_gptq()
        if quant_type is not None:
            raise InputError(
                f"`{folder.path}` is GPTQ, which has no quantization types",
                f"leave :{quant_type} out",
            )
        return ModelInfo("gptq", None, _expected_shape(folder))
    return ModelInfo("gguf" if quant_type else "checkpoint", quant_type, _expected_shape(folder))


def _expected_shape(folder: Checkpoint) -> Callable[[str], ModelShape]:
    """Return the shape of a checkpoint by type; of what is here already, with its own size."""
    size = sum(f.stat().st_size for f in folder.path.glob("*.safetensors") if f.is_file())

    def shape(quant_type: str) -> ModelShape:
        expected = ModelShape.from_config(folder.config, quant_type, folder.max_new_tokens)
        return replace(expected, size=size) if size and quant_type == "BF16" else expected

    return shape
