"""What llama.cpp saves of one sequence, made to fit a context of another kind.

llama.cpp takes a state back only where there are as many sequences and values lie as they did: by
tokens with flash attention, by dimensions without it. Neither says anything about the numbers, so
here a state is saved as of a context of one sequence, and changed to what the next one expects.

The format is that of `llama_kv_cache::state_write` in llama.cpp: u32 magic, sequence and number of
sequences; for each of these u32 cells; for each cell i32 position, u32 1, i32 sequence; u32 whether
values lie by dimensions; u32 layers; for each layer i32 type, u64 bytes of a row, keys by tokens;
for each layer i32 type, u64 bytes of a row and values by tokens, or u32 bytes of a value, u32
dimensions and values by dimensions. What does not look so is taken back as it is, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ: more, no context has."""
_BYTES = {0: 4, 1: 2, 30: 2}  # of a value: GGML_TYPE_F32, F16, BF16
_CELL, _ROW = 12, 12  # bytes of what is told of a cell, and of a layer's keys or values
_COUNT = 12  # where the number of cells stands


@dataclass(frozen=True, slots=True)
class State:
    """One sequence's keys and values.

    Attributes:
        data: as of a context of one sequence, with room behind for more; or as it came.
        size: bytes without that room.
        known: it is in the format that is written of above.
    """

    data: npt.NDArray[np.uint8]
    size: int
    known: bool

    @classmethod
    def from_saved(cls, saved: npt.NDArray[np.uint8], size: int, sequence: int) -> State:
        """Return the state of `sequence`.

        Args:
            saved: what llama.cpp wrote, with zeros of 4 * MAX_SEQUENCES bytes behind it.
            size: bytes that it wrote.
            sequence: its number in the context that it comes from.
        """
        head = saved[: _COUNT + 4 * sequence + 4].view(np.uint32)
        if size < head.nbytes or not sequence < head[2] <= MAX_SEQUENCES or head[3:-1].any():
            return cls(saved, size, known=False)
        others = 4 * (int(head[2]) - 1)
        data = saved[4 * sequence :]
        data[:_COUNT].view(np.uint32)[:] = head[0], 0, 1
        return cls(data, size - others, known=True)

    def fitting(self, sequences: int, by_dimensions: bool | None) -> State:
        """Return it as a context of so many sequences expects it.

        Args:
            sequences: of the context.
            by_dimensions: how values lie there; None where it is not known: as they do here.
        """
        if not self.known:
            return self
        self.data[8:_COUNT].view(np.uint32)[0] = sequences
        if by_dimensions is None or by_dimensions == self._by_dimensions():
            return self
        return self._turned() or self

    def _cells(self) -> int:
        return self._number(_COUNT)

    def _number(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4].tobytes(), "little")

    def _layers(self) -> int:
        """Return where the layers begin, behind how values lie and how many layers there are."""
        return _COUNT + 4 + _CELL * self._cells() + 8

    def _by_dimensions(self) -> bool:
        return bool(self._cells() and self._number(self._layers() - 8))

    def _turned(self) -> State | None:
        """Return it with its values the other way round; None where they cannot be turned."""
        cells, at = self._cells(), self._layers()
        if not cells:
            return None
        layers = self._number(at - 4)
        by_dimensions = self._by_dimensions()
        data = self.data.copy()
        data[at - 8 : at - 4].view(np.uint32)[0] = not by_dimensions
        for _ in range(layers):
            at += _ROW + self._number(at + 4) * cells
        for _ in range(layers):
            if at + _ROW > self.size or self._number(at) not in _BYTES:
                return None
            width = _BYTES[self._number(at)]
            dimensions = self._number(at + 8) if by_dimensions else self._number(at + 4) // width
            end = at + _ROW + dimensions * cells * width
            if end > self.size:
                return None
            values = self.data[at + _ROW : end].view(f"u{width}")
            shape = (dimensions, cells) if by_dimensions else (cells, dimensions)
            turned = np.ascontiguousarray(values.reshape(shape).T)
            data[at + _ROW : end].view(f"u{width}")[:] = turned.ravel()
            row = (dimensions * width, 0) if by_dimensions else (width, dimensions)
            data[at + 4 : at + _ROW].view(np.uint32)[:] = row
            at = end
        if at != self.size:
            return None
        return State(data, self.size, known=True)
