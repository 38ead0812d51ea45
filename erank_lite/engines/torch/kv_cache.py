"""Keys and values of many documents, a row each, for the models of Transformers.

Rows are of different lengths and begin at the left: where a row goes on is told by positions, what
it may see by a mask. So a row can be cut, copied or taken up again by a number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CELL_STEP = 256
"""Rows grow by so many tokens."""


class SlotKVCache:
    """What a model's attention layers keep; given to Transformers in the place of its own cache.

    Each layer has keys and values of shape [rows, heads, cells, head size], on the layer's own
    device.
    """

    def __init__(self, count: int, cells: int) -> None:
        """Have `count` rows of at least `cells` tokens; memory is taken when a layer first writes.

        Args:
            count: how many documents.
            cells: tokens of each.
        """
        self.count = count
        self.cells = rounded(cells)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._first = 0
        self._positions = torch.empty(0)
        self._length = 0

    def begin(self, first: int, positions: Tensor) -> Tensor:
        """Say which rows the next pass of the model computes, and return its attention mask.

        Args:
            first: of the rows, which are neighbours.
            positions: of the tokens computed, [rows, tokens]; each row's follow each other.

        Returns:
            [rows, 1, tokens, cells seen], true where a token may see a cell.
        """
        self._first, self._positions = first, positions
        self._length = int(positions.max()) + 1
        cells = torch.arange(self._length, device=positions.device)
        return cells[None, None, None, :] <= positions[:, None, :, None]

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one layer and return all that its tokens may see."""
        seen = []
        last = self._first + len(keys)
        positions = self._positions.to(keys.device)
        rows = torch.arange(len(keys), device=keys.device)[:, None]
        for kept, new in zip(self._layer(layer, keys), (keys, values), strict=True):
            part = kept[self._first : last]
            part[rows, :, positions] = new.transpose(1, 2)
            seen.append(part[:, :, : self._length])
        return seen[0], seen[1]

    def get_seq_length(self, *_: Any) -> int:
        """Return what Transformers asks where it is not told positions; it always is."""
        return 0

    def save(self, row: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Return a copy of the first `length` tokens of a row."""
        return [
            (k[row, :, :length].clone(), v[row, :, :length].clone())
            for k, v in self._layers.values()
        ]

    def restore(self, row: int, state: Sequence[tuple[Tensor, Tensor]], length: int) -> None:
        """Put the first `length` tokens of what was saved into a row."""
        for layer, (keys, values) in enumerate(state):
            k, v = self._layer(layer, keys[None])
            k[row, :, :length], v[row, :, :length] = keys[:, :length], values[:, :length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row to another."""
        for k, v in self._layers.values():
            k[target, :, :length] = k[source, :, :length]
            v[target, :, :length] = v[source, :, :length]

    def resize(self, count: int, cells: int) -> None:
        """Have so many rows of at least `cells` tokens, the first of which keep what they hold."""
        cells = rounded(cells)
        for layer, kept in self._layers.items():
            grown = []
            for old in kept:
                new = old.new_zeros((count, old.shape[1], cells, old.shape[3]))
                part = old[:count, :, :cells]
                new[: part.shape[0], :, : part.shape[2]] = part
                grown.append(new)
            self._layers[layer] = (grown[0], grown[1])
        self.count, self.cells = count, cells

    def _layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a layer keeps; memory is taken the first time, like `like` of a few rows."""
        if layer not in self._layers:
            shape = (self.count, like.shape[1], self.cells, like.shape[3])
            # Zeros, since what is masked is still multiplied by nought.
            self._layers[layer] = (like.new_zeros(shape), like.new_zeros(shape))
        return self._layers[layer]


def rounded(cells: int) -> int:
    """Return `cells` as they are taken: in whole steps."""
    return -(-cells // CELL_STEP) * CELL_STEP
