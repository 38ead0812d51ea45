"""Where each tensor of a checkpoint lies, by the headers of its safetensors files.

Format: https://huggingface.co/docs/safetensors (a length, a JSON header, the data). All is checked
before anyone reads a byte of data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from erank_lite.errors import ModelError
from erank_lite.util.files import read_json, refuse_pointer

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_MAX_HEADER = 100_000_000  # the limit of the safetensors library
# Bytes of an element. Other types are parts of quantized weights.
DTYPES = {"BF16": 2, "F16": 2, "F32": 4}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its shape, rows first, and the bytes of its file that hold it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def stored_tensors(path: Path, dtypes: Mapping[str, int] = DTYPES) -> dict[str, StoredTensor]:
    """Return where the tensors of all shards are, checked against the index.

    Args:
        path: of the folder.
        dtypes: bytes of an element, of the types that are looked for.

    Raises:
        ModelError: a file is missing, cut short or damaged, or holds another type.
    """
    # As in Transformers, whole weights go before an index, which may be left of other ones.
    if (path / SINGLE).is_file():
        return read_header(path / SINGLE, dtypes)
    if (path / INDEX).is_file():
        return _locate_by_index(path, dtypes)
    shards = sorted(p.name for p in path.glob("model-*-of-*.safetensors"))
    if shards:
        raise ModelError(
            f"`{path}` has shards ({shards[0]}, …) but no {INDEX}, which says what they hold",
            "download it too",
        )
    pickles = sorted(p.name for pattern in _PICKLES for p in path.glob(pattern))
    if pickles:
        raise ModelError(
            f"`{path}` has its weights in pickle files ({pickles[0]}), which can run code when "
            "they are opened",
            "get the checkpoint in safetensors, or save it again with a current Transformers, on a "
            "machine that you can spare",
        )
    raise ModelError(f"`{path}` holds no weights: {SINGLE} or {INDEX} with its shards is missing")


def _locate_by_index(path: Path, dtypes: Mapping[str, int]) -> dict[str, StoredTensor]:
    index = read_json(path / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ModelError(f"`{path / INDEX}` has no weight_map")
    for name, file in index.items():
        # A name is joined to the folder's path, so it must not lead elsewhere.
        if not isinstance(file, str) or Path(file).is_absolute() or ".." in Path(file).parts:
            raise ModelError(f"`{path / INDEX}` names {file!r}, which is not a file of this folder")
        index[name] = Path(file).as_posix()  # `./a` and `a` are one
    files = sorted(set(index.values()))
    missing = [file for file in files if not (path / file).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"`{path}` is incomplete: the index names {missing[0]}{more}, which "
            f"{'are' if more else 'is'} not there",
            "download the rest",
        )
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_header(path / file, dtypes).items():
            if index.get(name) != file:
                raise ModelError(
                    f"`{path / file}` holds a tensor {name} which the index "
                    + (f"places in {index[name]}" if name in index else "does not know")
                    + ": the shards are not of one checkpoint"
                )
            tensors[name] = tensor
    # What the index names and no file has may not be needed: whoever needs it, misses it.
    return tensors


def read_header(file: Path, dtypes: Mapping[str, int]) -> dict[str, StoredTensor]:
    """Return the tensors of one safetensors file, from its header; see `stored_tensors`."""
    try:
        size = file.stat().st_size
        refuse_pointer(file)
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(
                    f"`{file}` is not a safetensors file, or its header is cut short",
                    "download it again",
                )
            header = json.loads(stream.read(length))
    except OSError as error:
        raise ModelError(f"`{file}` cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"`{file}` has a damaged header", "download it again") from None
    tensors = {}
    end = 0
    try:
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            shape = tuple(entry["shape"])
            dtype = entry["dtype"]
            if not isinstance(dtype, str) or not all(
                type(n) is int and n >= 0 for n in (start, stop, *shape)
            ):
                raise TypeError
            _check_dtype(file, name, dtype, dtypes)
            if start != end or stop - start != math.prod(shape) * dtypes[dtype]:
                raise ModelError(
                    f"`{file}` is damaged: tensor {name} of shape {list(shape)} ({dtype}) cannot "
                    f"lie in bytes {start} to {stop}"
                )
            end = stop
            tensors[name] = StoredTensor(file, dtype, shape, 8 + length + start, stop - start)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise ModelError(f"`{file}` has a damaged header", "download it again") from None
    if 8 + length + end != size:
        raise ModelError(
            f"`{file}` has {size} bytes instead of {8 + length + end}: its download broke off, or "
            "it is damaged",
            "download it again",
        )
    return tensors


def _check_dtype(file: Path, name: str, dtype: str, dtypes: Mapping[str, int]) -> None:
    if dtype in dtypes:
        return
    shown = "FP8" if dtype.startswith("F8") else dtype
    raise ModelError(
        f"`{file}`: tensor {name} is {shown}, so the weights are quantized already or not weights",
        f"give a checkpoint in {', '.join(dtypes)}",
    )
