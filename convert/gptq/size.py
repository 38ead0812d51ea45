"""How large the parts of a GPTQ checkpoint are (format v1), and what quantizing to one takes.

Of a matrix of r rows and c columns, at b bits in groups of g columns, the format keeps `qweight`
(b bits each), and, for each group, r `scales` (16 bits) and r `qzeros` (b bits), and the group of
each column, `g_idx` (32 bits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erank_lite.convert.estimate import Estimate
from erank_lite.errors import InputError, ModelError
from erank_lite.models.architecture import Architecture

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128, -1)
"""Columns that share a scale; -1 is a whole row."""

_PACKED = 32  # rows and columns are packed in words of so many bits
# Measured with benchmarks/convert/measure_gptq.py: Python with torch and GPTQModel; the square
# matrices of 32 bits that are alive for one Hessian; the passes of a layer's calibration.
_FIXED = 1400 << 20
_SQUARES = 4
_PASSES = 5
_STARTING = 30.0  # seconds
_EACH = 0.15  # seconds a matrix, whatever its size
_EFFICIENCY = 0.5  # of the speed of large square products


@dataclass(frozen=True)
class Layout:
    """The matrices that are quantized (rows, columns), and the elements of all other tensors."""

    matrices: tuple[tuple[int, int], ...]
    layers: int
    embedding: int
    rest: int
    bits: int
    group_size: int

    @classmethod
    def from_architecture(cls, architecture: Architecture, bits: int, group_size: int) -> Layout:
        """Return the layout of a model.

        Args:
            architecture: the model's.
            bits: of `BITS`.
            group_size: of `GROUP_SIZES`.

        Raises:
            InputError: the groups do not divide the columns.
            ModelError: the matrices cannot be packed.
        """
        shapes = {t.source: t.shape for t in architecture.tensors}
        names = [n for n, s in shapes.items() if n.startswith("model.layers.") and len(s) == 2]
        for name in names:
            if any(size % _PACKED for size in shapes[name]):
                raise ModelError(
                    f"tensor {name} has shape {list(shapes[name])}, but GPTQ packs multiples of "
                    f"{_PACKED} rows and columns",
                    "convert the checkpoint to GGUF instead",
                )
        columns = sorted({shapes[n][1] for n in names})
        if group_size > 0 and any(c % group_size for c in columns):
            fit = [g for g in GROUP_SIZES if g < 0 or not any(c % g for c in columns)]
            raise InputError(
                f"groups of {group_size} do not divide this model's {_listed(columns)} columns",
                f"use a group size of {_listed(fit, 'or')} (-1: a row is one group)",
            )
        matrices = tuple((shapes[n][0], shapes[n][1]) for n in names)
        rest = sum(math.prod(s) for n, s in shapes.items() if n not in names)
        embedding = math.prod(shapes["model.embed_tokens.weight"])
        layers = architecture.config["num_hidden_layers"]
        return cls(matrices, layers, embedding, rest, bits, group_size)

    @property
    def size(self) -> int:
        """The bytes of all tensors."""
        total = 2 * self.rest
        for rows, columns in self.matrices:
            groups = 1 if self.group_size < 0 else columns // self.group_size
            total += rows * columns * self.bits // 8 + 4 * columns
            total += groups * rows * 2 + groups * rows * self.bits // 8
        return total

    def estimate(self, tokens: int, longest: int, rate: float) -> Estimate:
        """Return what quantizing with calibration text takes.

        Args:
            tokens: of the text, all samples together.
            longest: tokens of the longest sample.
            rate: of the device, see `erank_lite.convert.gptq.quantize.trial`.
        """
        layer = self.matrices[: len(self.matrices) // self.layers]
        weights = sum(rows * columns for rows, columns in layer)
        widest = max(columns for _, columns in layer)
        width = min(columns for _, columns in layer)
        # One Hessian serves the matrices that read the same: four in a layer.
        inputs = [layer[i][1] for i in (0, 3, 4, 6)]
        operations = _PASSES * 2 * tokens * weights + sum(2 * tokens * c * c for c in inputs)
        operations += sum(rows * c * c + 2 * c**3 for rows, c in layer)
        seconds = self.layers * (operations / (rate * _EFFICIENCY) + _EACH * len(layer))
        quantizing = (
            4 * weights  # a layer, its 16 bits once more in 32 or before and after
            + 4 * _SQUARES * widest**2
            + 2 * 2 * tokens * width  # what goes into the layer, and what comes out
            + 8 * longest * widest
        )
        memory = _FIXED + 2 * self.embedding + max(quantizing, self.size)
        # Layers that are done are kept on disk until all are written together.
        return Estimate(self.size, 2 * self.size, memory, seconds + _STARTING)


def _listed(values: Sequence[int], word: str = "and") -> str:
    texts = [str(v) for v in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {word} {texts[-1]}"
