"""Read a GGUF file's header: metadata and the list of tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. The official
`gguf` package reads it too, but takes seconds for a vocabulary of 150,000 tokens, at every start;
its tables of types are used here.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from erank_lite.errors import ModelError
from erank_lite.machine.shapes import (
    DEFAULT_CONTEXT_LENGTH,
    MAX_LAYERS,
    MAX_NEW_TOKENS,
    ModelShape,
    largest,
)
from erank_lite.util.files import name_like, refuse_pointer

_ALIKE = 0.99  # cosine of two rows that are one, each quantized in its own way
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_PART = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_names(name: str) -> list[str]:
    """Return the names of all parts of a split model, by that of any; of other files, its own.

    Example:
        >>> part_names("erank-Q8_0-00002-of-00002.gguf")
        ['erank-Q8_0-00001-of-00002.gguf', 'erank-Q8_0-00002-of-00002.gguf']
    """
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return [name]
    count = match["count"]
    return [f"{match['prefix']}-{i:05d}-of-{count}.gguf" for i in range(1, int(count) + 1)]


def first_part(path: Path) -> Path:
    """Return the part of a split model that llama.cpp loads it by, where that is beside `path`."""
    first = os.path.join(path.parent, part_names(path.name)[0])
    return Path(first) if os.path.isfile(first) else path  # as Path, but no name is an error


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file. `shape` is in GGUF order: the row length comes first."""

    name: str
    shape: tuple[int, ...]
    type: str
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """The header of one GGUF file, or of all parts of a split one (`llama-gguf-split`).

    Attributes:
        path: where it is, or its first part.
        version: of the format.
        metadata: key → number, bool, str or list of them; those of the first part.
        tensors: in file order, part after part; sizes in bytes.
        size: of all parts, in bytes.
        parts: their paths; of a file that is not split, its own.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    size: int
    parts: tuple[Path, ...]

    @classmethod
    def read(cls, path: Path) -> GGUFFile:
        """Read the header of `path`, and of the other parts where it is one of several.

        Raises:
            ModelError: there is no such file, it may not be read, it is not a GGUF file of a
                version known here, it is cut short, or a part is missing or of another model.
        """
        found = cls._read_one(first_part(path))
        count = found.metadata.get("split.count", 0)
        if type(count) is not int or count < 2:
            return found
        files = [found.path.with_name(name) for name in part_names(found.path.name)]
        if len(files) != count:
            raise ModelError(
                f"`{found.path}` is one of {count} parts by its header, but not by its name",
                f"name the parts NAME-00001-of-{count:05d}.gguf and so on",
            )
        for file in files:
            if not file.is_file():
                raise ModelError(
                    f"`{file}` is missing: the model is split into {count} parts",
                    "put all parts into one folder",
                )
        parts = [found, *map(cls._read_one, files[1:])]
        for i, part in enumerate(parts):
            if (part.metadata.get("split.no"), part.metadata.get("split.count")) != (i, count):
                raise ModelError(
                    f"`{part.path}` is not part {i + 1} of {count} by its header",
                    "download all parts again",
                )
        tensors = tuple(tensor for part in parts for tensor in part.tensors)
        stated = found.metadata.get("split.tensors.count", len(tensors))
        if len(tensors) != stated or len({tensor.name for tensor in tensors}) != len(tensors):
            raise ModelError(
                f"the parts of `{found.path}` hold {len(tensors)} tensors instead of {stated}: "
                "they are not of one model",
                "download all parts again",
            )
        size = sum(part.size for part in parts)
        paths = tuple(part.path for part in parts)
        return replace(found, tensors=tensors, size=size, parts=paths)

    @classmethod
    def _read_one(cls, path: Path) -> GGUFFile:
        try:
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ModelError(f"`{path}` is a pipe or device", "give a .gguf file")
            refuse_pointer(path)
            with path.open("rb") as file:
                size = path.stat().st_size
                if size < 24:
                    raise ModelError(f"`{path}` is not a GGUF file: it has only {size} bytes")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _parse(path, data, size)
        except FileNotFoundError:
            raise ModelError(f"there is no file `{path}`", name_like(path)) from None
        except IsADirectoryError:
            raise ModelError(f"`{path}` is a folder", "give a .gguf file") from None
        except OSError as error:
            raise ModelError(f"`{path}` cannot be read: {error.strerror}") from None

    @property
    def architecture(self) -> str:
        """`general.architecture`, such as `qwen3`."""
        return str(self.metadata.get("general.architecture", "unknown"))

    def hparam(self, name: str, default: Any = None) -> Any:
        """Return the value of `<architecture>.<name>`."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    @cached_property
    def cache_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes in a cache of 16-bit floats."""
        try:
            return self._cache_bytes_per_token()
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            raise ModelError(
                f"`{self.path}` is damaged: its layer count, head count or sizes are not numbers"
            ) from None

    def _cache_bytes_per_token(self) -> int:
        heads = self.hparam("attention.head_count", 0)
        kv_heads = self.hparam("attention.head_count_kv", heads)
        layers = int(self.hparam("block_count", 0))
        # The number of layers may be damaged: no list of that length.
        total = sum(map(int, kv_heads)) if isinstance(kv_heads, list) else int(kv_heads) * layers
        width = int(self.hparam("embedding_length", 0))
        head = width // max(1, heads if isinstance(heads, int) else max(heads))
        key = int(self.hparam("attention.key_length", head))
        value = int(self.hparam("attention.value_length", head))
        return 2 * total * (key + value)

    @property
    def chat_template(self) -> str:
        """The chat template, in jinja2.

        Raises:
            ModelError: there is none.
        """
        template = self.metadata.get("tokenizer.chat_template")
        if not isinstance(template, str):
            others = self.metadata.get("tokenizer.chat_templates")
            what = "no chat template"
            if isinstance(others, list) and others:
                what = f"chat templates ({', '.join(map(str, others))}), but no default one"
            raise ModelError(
                f"`{self.path}` has {what}, and the prompt cannot be made without it",
                "convert it again from a checkpoint that has one",
            )
        return template

    @property
    def names(self) -> tuple[str, ...]:
        """What the file says that its model is called; empty where it says nothing."""
        found = (self.metadata.get(f"general.{key}") for key in ("name", "basename"))
        return tuple(name for name in found if isinstance(name, str))

    @property
    def end_ids(self) -> frozenset[int]:
        """The end tokens that the checkpoint named; empty in a file of another converter."""
        return frozenset(self.metadata.get("erank_lite.end_token_ids", ()))

    @property
    def max_new_tokens(self) -> int | None:
        """The checkpoint's own limit of new tokens, or None where it names none."""
        limit = self.metadata.get("erank_lite.max_new_tokens")
        return limit if type(limit) is int else None

    def check_generates_text(self) -> None:
        """Check that the file holds a model that generates text.

        Raises:
            ModelError: it is damaged, an encoder, an embedding model or a classifier.
        """
        limits = (
            self.hparam("context_length", 0),
            self.metadata.get("erank_lite.max_new_tokens", 1),
        )
        ends = self.metadata.get("erank_lite.end_token_ids", [])
        if not all(type(v) is int for v in limits) or not isinstance(ends, list):
            raise ModelError(f"`{self.path}` is damaged: its limits or end tokens are not numbers")
        names = {t.name for t in self.tensors}
        if not names:
            raise ModelError(f"`{self.path}` holds no weights, only a vocabulary")
        if self.hparam("attention.causal") is False or "encoder" in self.architecture:
            raise ModelError(
                f"`{self.path}` is an encoder ({self.architecture}), which cannot generate a "
                "reasoning",
                "give a GGUF file of an ERank checkpoint",
            )
        classifies = any(n.startswith("cls") for n in names) or self.hparam("pooling_type", 0)
        if classifies and not self._generates_too(names):
            raise ModelError(
                f"`{self.path}` was converted as a classifier or embedding model, so it cannot "
                "generate",
                "convert the checkpoint again as a causal language model",
            )

    def _generates_too(self, names: set[str]) -> bool:
        """Return whether a file with a classifier's head has the model's own output as well.

        llama.cpp's converter gives Qwen3-Reranker such a head: the rows of "yes" and "no" of the
        output matrix. Where that is tied to the embedding, it is there too; where it is not, it is
        left out.
        """
        head, labels = "cls.output.weight", self.hparam("classifier.output_labels")
        if {n for n in names if n.startswith("cls")} != {head} or labels != ["yes", "no"]:
            return False
        if "output.weight" in names:
            return True
        tokens = self.metadata.get("tokenizer.ggml.tokens", [])
        if not all(label in tokens for label in labels):
            return False
        from gguf import GGUFReader
        from gguf.quants import dequantize

        wanted = {tensor.name: tensor for tensor in GGUFReader(self.path).tensors
                  if tensor.name in (head, "token_embd.weight")}  # fmt: skip
        if len(wanted) < 2:
            return False
        rows, tied = wanted[head], wanted["token_embd.weight"]
        own = dequantize(rows.data, rows.tensor_type)
        theirs = dequantize(tied.data[[tokens.index(label) for label in labels]], tied.tensor_type)
        if own.shape != theirs.shape:
            return False
        # The two may be quantized in other ways, but point the same way.
        product = (own * theirs).sum(1)
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1)
        return bool((product > _ALIKE * lengths).all())

    def shape(self) -> ModelShape:
        """Return what the model asks of a machine, from the sizes of its tensors.

        Raises:
            ModelError: the header is damaged.
        """
        layer_sizes: dict[str, int] = {}
        others: dict[str, int] = {}
        for tensor in self.tensors:
            part = tensor.name.split(".")
            group, key = (
                (layer_sizes, part[1]) if part[0] == "blk" and part[1:] else (others, part[0])
            )
            group[key] = group.get(key, 0) + tensor.size
        # Of a file in several parts, the first names few layers: the others are taken to be alike.
        usual = sum(layer_sizes.values()) // max(1, len(layer_sizes))
        layers = max(1, len(layer_sizes), largest(self.hparam("block_count", 0)))
        sizes = tuple(layer_sizes.get(str(i), usual) for i in range(min(layers, MAX_LAYERS)))
        embedding = next((t for t in self.tensors if t.name == "token_embd.weight"), None)
        heads = max(1, largest(self.hparam("attention.head_count", 1)))
        width = largest(self.hparam("embedding_length", 0))
        return ModelShape(
            layer_sizes=sizes,
            output_size=others.get("output", others.get("token_embd", 0)),
            tied="output" not in others,
            size=sum(sizes) + sum(others.values()),
            cache_size=self.cache_bytes_per_token,
            width=width,
            inner_width=largest(self.hparam("feed_forward_length", 0)),
            heads=heads,
            head_size=largest(self.hparam("attention.key_length", width // heads)),
            vocabulary=max(embedding.shape, default=0) if embedding is not None else 0,
            context_length=largest(self.hparam("context_length", 0)) or DEFAULT_CONTEXT_LENGTH,
            max_new_tokens=self.max_new_tokens or MAX_NEW_TOKENS,
        )


def _parse(path: Path, data: mmap.mmap, size: int) -> GGUFFile:
    if data[:4] != b"GGUF":
        raise ModelError(f"`{path}` is not a GGUF file: it begins with {data[:4]!r}")
    (version,) = struct.unpack_from("<I", data, 4)
    if version not in _VERSIONS:
        note = "; it is big-endian" if version and version & 0xFFFF == 0 else ""
        raise ModelError(
            f"`{path}` is GGUF version {version}{note}; versions 2 and 3 (little-endian) can be "
            "used",
            "convert the model again with a current converter",
        )
    cursor = _Cursor(data, 8)
    try:
        n_tensors, n_keys = cursor.unpack("<QQ")
        metadata = {cursor.string(): cursor.value(cursor.unpack("<I")[0]) for _ in range(n_keys)}
        infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    except (struct.error, UnicodeDecodeError, KeyError, MemoryError, OverflowError, RecursionError):
        raise ModelError(
            f"`{path}` is damaged or cut short: its header ends or breaks at byte {cursor.at} "
            f"of {size}",
            "download or convert it again",
        ) from None
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelError(f"`{path}` is damaged: its alignment is {str(alignment)[:40]!r}")
    start = -(-cursor.at // alignment) * alignment
    tensors = []
    for name, shape, kind, offset in infos:
        type_name, length = _type_and_size(path, name, shape, kind)
        if start + offset + length > size:
            raise ModelError(
                f"`{path}` is cut short: tensor {name} should end at byte "
                f"{start + offset + length}, the file has {size}",
                "download or convert it again",
            )
        tensors.append(Tensor(name, shape, type_name, length))
    return GGUFFile(path, version, metadata, tuple(tensors), size, (path,))


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    (dims,) = cursor.unpack("<I")
    if dims > 8:
        raise struct.error("a tensor of more than 8 dimensions")
    shape = cursor.unpack(f"<{dims}Q")
    kind, offset = cursor.unpack("<IQ")
    return name, shape, kind, offset


def _type_and_size(path: Path, name: str, shape: tuple[int, ...], kind: int) -> tuple[str, int]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(kind)
    except ValueError:
        raise ModelError(f"`{path}`: tensor {name} has the unknown type {kind}") from None
    block, block_bytes = GGML_QUANT_SIZES[known]
    count = 1
    for n in shape:
        count *= n
    return known.name, count // block * block_bytes


class _Cursor:
    """A place in the header that moves on as values are read."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data = data
        self.at = at

    def unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self) -> str:
        (length,) = self.unpack("<Q")
        end = self.at + length
        if end > len(self.data):
            raise struct.error("a string goes past the end of the file")
        # Metadata of foreign files may hold broken text; the keys and tokens that matter do not.
        text = self.data[self.at : end].decode("utf-8", "replace")
        self.at = end
        return text

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.unpack("<" + _SCALARS[kind])[0]
        item, count = self.unpack("<IQ")
        if item in _SCALARS:
            return list(self.unpack(f"<{count}{_SCALARS[item]}"))
        read: Callable[[], Any] = self.string if item == _STRING else lambda: self.value(item)
        return [read() for _ in range(count)]
