"""The files that hold a model's weights, and what tells them from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from erank_lite.models.gguf import GGUFFile

_CHUNK, _CHUNKS = 1 << 20, 256


def weight_files(path: Path | str) -> list[Path]:
    """Return the files that hold the weights; none of a server's."""
    if isinstance(path, str):
        return []
    if path.is_file():
        return list(GGUFFile.read(path).parts)
    return sorted(path.glob("*.safetensors"))


def weights_digest(path: Path | str) -> str:
    """Return a hash of the weights and of the JSON files beside them; of a server, of its address.

    Of a large file 256 stretches of 1 MiB are read: another quantization, or another training,
    differs in each.

    Args:
        path: the file, the folder or the address that an engine runs.
    """
    state = hashlib.blake2b(digest_size=12)
    if isinstance(path, str):
        state.update(path.encode())
        return state.hexdigest()
    extra = () if path.is_file() else sorted(path.glob("*.json*"))
    for file in (*extra, *weight_files(path)):
        size = file.stat().st_size
        state.update(f"{file.name if extra else ''} {size}\n".encode())
        with file.open("rb") as data:
            for chunk in range(_CHUNKS) if size > _CHUNKS * _CHUNK else (None,):
                if chunk is None:
                    state.update(data.read())
                else:
                    data.seek(chunk * (size - _CHUNK) // (_CHUNKS - 1))
                    state.update(data.read(_CHUNK))
    return state.hexdigest()
