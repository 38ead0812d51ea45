"""A checkpoint that is to be converted: opened, its architecture known, and the two matched."""

from __future__ import annotations

from pathlib import Path

from erank_lite.convert.architectures import Architecture
from erank_lite.convert.gguf.tensors import PIECE
from erank_lite.errors import ModelError
from erank_lite.models.safetensors import Checkpoint, StoredTensor


def open_source(path: Path) -> tuple[Checkpoint, Architecture]:
    """Open the checkpoint in the folder `path` and check that it is whole, before anyone writes.

    Raises:
        ModelError: it is no checkpoint, damaged, quantized already, or of an architecture that is
            not converted.
    """
    checkpoint = Checkpoint.open(path)
    architecture = Architecture.of(checkpoint.config, "lm_head.weight" in checkpoint.tensors)
    _match(checkpoint, architecture)
    return checkpoint, architecture


def _match(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Check that the checkpoint holds the architecture's tensors, in their shapes, and no other.

    Raises:
        ModelError: it does not.
    """
    stored = dict(checkpoint.tensors)
    for plan in architecture.tensors:
        tensor = stored.pop(plan.source, None)
        if tensor is None:
            raise ModelError(
                f"{checkpoint.path} lacks the tensor {plan.source}, which config.json calls for: "
                "they are not of one checkpoint, or a shard is missing"
            )
        if tensor.shape != plan.shape:
            raise ModelError(
                f"{tensor.file}: tensor {plan.source} has shape {list(tensor.shape)}, config.json "
                f"calls for {list(plan.shape)}"
            )
    head = stored.pop("lm_head.weight", None)
    if head is not None and not _same_data(head, checkpoint.tensors["model.embed_tokens.weight"]):
        raise ModelError(
            f"{checkpoint.path} holds an lm_head.weight of its own, but config.json ties it to the "
            "embedding: set tie_word_embeddings to what was trained"
        )
    # Transformers 3 saved the frequencies of the rotation, which config.json gives too.
    extra = [name for name in stored if not name.endswith("rotary_emb.inv_freq")]
    if extra:
        raise ModelError(
            f"{stored[extra[0]].file} holds a tensor {extra[0]} ({len(extra)} such in all) that a "
            f"{architecture.name} model of this config.json does not have: the result would not "
            "be the model that was trained"
        )


def _same_data(a: StoredTensor, b: StoredTensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with a.file.open("rb") as one, b.file.open("rb") as other:
        one.seek(a.offset)
        other.seek(b.offset)
        for at in range(0, a.size, PIECE):
            length = min(PIECE, a.size - at)
            if one.read(length) != other.read(length):
                return False
    return True
