"""Reading prompts with flash attention on a CPU, where that is the faster way.

llama.cpp has three kernels of flash attention on a CPU. The one for many rows goes through keys and
values in tiles and sums in 32 bits; the one for few rows, as when documents are decoded together,
sums in 16 bits. So prompts are read in a context with flash attention, many rows at a time, and
moved to one without it, in which answers are written.
"""

from __future__ import annotations

from erank_lite.engines.calls import Sequence
from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
from erank_lite.engines.llama_cpp.prefixes import Prefixes
from erank_lite.engines.llama_cpp.state import State
from erank_lite.machine.shapes import CELL_STEP

_TILE = 64  # rows from which llama.cpp reads in tiles (ggml_fa_tile_config::Q)


class Reader:
    """Reads one document after the other.

    Attributes:
        sequence: the document that is being read; its `past` tells how far.
    """

    def __init__(
        self, model: Model, micro_batch: int, threads: int, prefixes: Prefixes, max_cells: int
    ) -> None:
        """Begin without a context: it is made for the first document.

        Args:
            model: the weights.
            micro_batch: the most tokens of one step.
            threads: that compute.
            prefixes: where the beginnings are kept that documents share.
            max_cells: tokens of the longest document that it takes.
        """
        self._model, self._threads, self._prefixes = model, threads, prefixes
        self._micro_batch = max(micro_batch, 2 * _TILE)
        self._max_cells = max_cells
        self._context: Context | None = None
        self.sequence: Sequence | None = None

    @property
    def cells(self) -> int:
        """Tokens that its context holds."""
        return self._context.cells if self._context else 0

    def takes(self, sequence: Sequence) -> bool:
        """Return whether a document has enough to be read for tiles, and not too much."""
        own = len(sequence.ids) - sequence.request.prompt.shared - 1  # the last token is left out
        return own >= _TILE and len(sequence.ids) <= self._max_cells

    def begin(self, sequence: Sequence) -> None:
        """Take a document, and what is known of its beginning."""
        if self.cells < len(sequence.ids):
            self.close()
            cells = -(-len(sequence.ids) // CELL_STEP) * CELL_STEP
            self._context = Context(
                self._model,
                1,
                cells,
                batch=self._micro_batch,
                micro_batch=self._micro_batch,
                threads=self._threads,
                kv_type="f16",
                flash_attention=True,
            )
        assert self._context is not None
        self.sequence = sequence
        self._context.remove(0)
        prompt = sequence.request.prompt
        state, common = self._prefixes.longest(prompt.ids[: prompt.shared])
        if state is not None and self._context.restore(0, state):
            self._context.remove(0, common)
            sequence.past = common

    def read(self) -> tuple[int, int]:
        """Read on for a step; return llama_decode's code, and how many tokens were read."""
        sequence = self.sequence
        assert sequence is not None and self._context is not None
        left = sequence.pending - 1
        count = min(left, self._micro_batch)
        if 0 < left - count < _TILE:  # the rest would be too few for tiles
            count = (left - _TILE) // _TILE * _TILE
        start, end = sequence.past, sequence.past + count
        none = [0] * count
        code = self._context.decode(
            Batch(sequence.ids[start:end], list(range(start, end)), none, none)
        )
        if code == 0:
            sequence.past = end
        return code, count

    def finish(self) -> State:
        """Return the state of the document, read but for its last token, and let it go."""
        sequence, context = self.sequence, self._context
        assert sequence is not None and context is not None
        self.sequence = None
        state = context.save(0)
        prompt = sequence.request.prompt
        shared = prompt.ids[: prompt.shared]
        if self._prefixes.wants(shared):
            context.remove(0, len(shared))
            self._prefixes.keep(shared, context.save(0))
        return state

    def abort(self) -> None:
        """Have what another thread reads end at once."""
        if self._context is not None:
            self._context.abort()

    def close(self) -> None:
        """Free the memory."""
        if self._context is not None:
            self._context.close()
            self._context = None
