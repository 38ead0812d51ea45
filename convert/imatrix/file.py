"""Importance matrices in llama.cpp's files: how much each column of a weight matters.

What is kept of a weight is the sum of the squares of what it was multiplied by, column by column,
over all tokens of a text. Format: llama.cpp's `tools/imatrix/imatrix.cpp` (`save_imatrix`, a GGUF
file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from erank_lite.errors import ModelError
from erank_lite.models.gguf import GGUFFile
from erank_lite.util.files import atomic
from erank_lite.version import __version__

_SUMS, _COUNTS = ".in_sum2", ".counts"
_KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")

Columns = Mapping[str, int]
"""Of each weight that llama.cpp quantizes with a matrix, by its name in GGUF: numbers in a row."""


@dataclass(frozen=True)
class ImportanceMatrix:
    """What a text did to the weights of a model.

    Attributes:
        sums: of squared activations, by the weight's name in GGUF: [columns].
        counts: tokens that were summed, by the same names.
        datasets: what the text is called.
        chunks: pieces of text; 0 where the file does not say.
        chunk_size: tokens of a piece, in the mean; 0 where the file does not say.
        notes: where it comes from; kept under `erank_lite.…`.
    """

    sums: Mapping[str, npt.NDArray[np.float32]]
    counts: Mapping[str, int]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int
    notes: Mapping[str, str] = field(default_factory=dict)

    def weights(self, name: str) -> npt.NDArray[np.float32]:
        """Return the mean squares of one weight's columns, which llama.cpp quantizes it with."""
        # As llama-quantize does where nothing was counted: all columns matter alike.
        count = self.counts[name]
        return self.sums[name] / np.float32(count) if count else np.ones_like(self.sums[name])

    def check(self, columns: Columns) -> None:
        """Check that the matrix is of a model with these weights.

        Raises:
            ModelError: it lacks one, has one more, or one of another size, or not a number.
        """
        lost = sorted(columns.keys() - self.sums.keys())
        # Not every matrix has these two, and llama.cpp wants neither.
        odd = sorted(self.sums.keys() - columns.keys() - {"output.weight", "token_embd.weight"})
        if lost or odd:
            raise ModelError(
                "the importance matrix is of another model: it "
                + (f"lacks {lost[0]}" if lost else f"has {odd[0]}, which the model does not")
                + (f" ({len(lost or odd)} such in all)" if len(lost or odd) > 1 else "")
            )
        for name, sums in self.sums.items():
            if sums.size != columns.get(name, sums.size):
                raise ModelError(
                    f"the importance matrix is of another model: {name} has {sums.size} columns in "
                    f"it, and {columns[name]} in the model"
                )
            if not np.isfinite(sums).all() or (sums < 0).any() or self.counts[name] < 0:
                raise ModelError(
                    f"the importance matrix is damaged: its numbers for {name} are not sums of "
                    "squares"
                )

    def write(self, path: Path) -> None:
        """Write it to the GGUF file `path`, as llama-imatrix does.

        Raises:
            OSError: it cannot be written.
        """
        with atomic(path) as partial:
            writer = _Writer(partial, "")
            writer.add_type("imatrix")
            writer.add_array(_KEYS[0], list(self.datasets))
            writer.add_uint32(_KEYS[1], self.chunks)
            writer.add_uint32(_KEYS[2], self.chunk_size)
            writer.add_string("erank_lite.version", __version__)
            for key, value in self.notes.items():
                writer.add_string(f"erank_lite.{key}", value)
            for name in sorted(self.sums):
                writer.add_tensor(f"{name}{_SUMS}", self.sums[name])
                writer.add_tensor(f"{name}{_COUNTS}", np.array([self.counts[name]], np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()

    @classmethod
    def read(cls, path: Path) -> ImportanceMatrix:
        """Read a matrix that this package or llama-imatrix wrote.

        Raises:
            ModelError: there is no such file, it is not a matrix, or it is damaged.
        """
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ModelError(
                f"the importance matrix `{path}` cannot be read: {error.strerror}"
            ) from None
        if magic != b"GGUF":
            raise ModelError(
                f"`{path}` is not an importance matrix in GGUF",
                "write an old .dat file again by a current llama-imatrix, as GGUF",
            )
        return _read(path)


class _Writer(gguf.GGUFWriter):
    def add_architecture(self) -> None:
        """Leave it out: a matrix has none."""


def _read(path: Path) -> ImportanceMatrix:
    header = GGUFFile.read(path)
    metadata = header.metadata
    datasets, chunks, chunk_size = map(metadata.get, _KEYS)
    if not isinstance(datasets, list) or type(chunks) is not int or type(chunk_size) is not int:
        model = "general.architecture" in metadata
        what = f"a model ({header.architecture})" if model else "another kind of GGUF file"
        raise ModelError(f"`{path}` is not an importance matrix, but {what}")
    try:
        tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    # The package checks little and raises whatever comes of it.
    except Exception as error:
        raise ModelError(f"the importance matrix `{path}` is damaged: {error}") from None
    sums, counts = {}, {}
    for name in (n.removesuffix(_SUMS) for n in tensors if n.endswith(_SUMS)):
        values, count = tensors[f"{name}{_SUMS}"], tensors.get(f"{name}{_COUNTS}")
        if count is None:
            raise ModelError(f"the importance matrix `{path}` is damaged: {name} has no counts")
        if {values.dtype, count.dtype} != {np.dtype(np.float32)}:
            raise ModelError(
                f"the importance matrix `{path}` is not in F32: {name} is in {values.dtype}",
                "write it again by a current llama-imatrix",
            )
        if count.size != 1:
            raise ModelError(
                f"the importance matrix `{path}` is of a mixture of experts, which is not supported"
            )
        sums[name], counts[name] = values.ravel(), _whole(path, name, float(count.ravel()[0]))
    notes = {
        key.removeprefix("erank_lite."): str(value)
        for key, value in metadata.items()
        if key.startswith("erank_lite.") and key != "erank_lite.version"
    }
    return ImportanceMatrix(sums, counts, tuple(map(str, datasets)), chunks, chunk_size, notes)


def _whole(path: Path, name: str, count: float) -> int:
    if not 0 <= count < 2**63:
        raise ModelError(f"the importance matrix `{path}` is damaged: {name} was counted {count}")
    return round(count)
