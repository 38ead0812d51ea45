"""The llama.cpp engine: many documents decoded together, on CPU, CUDA, Metal or Vulkan.

Sequences keep cells of their own. What the documents of a query share is computed once, saved,
and restored into each sequence: an exact copy, which takes about a thousandth of the time. A
place that becomes free is filled at once, and reading goes on beside decoding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erank_lite.engines.base import Engine, Queue, Sequence
from erank_lite.engines.llama_cpp.amx import amx_is_broken
from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
from erank_lite.engines.llama_cpp.dry_run import tried
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.machine.hardware import probe, usable_by_llama
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import CELL_STEP
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide, Step

_log = logging.getLogger(__name__)

_SHORTEST_PREFIX = 16  # below, saving and restoring is not worth it
_ATTEMPTS = 3


class LlamaCppEngine(Engine):
    """Runs a GGUF file with llama.cpp."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Load a model.

        Args:
            path: of the GGUF file.
            plan: how to run it (`erank_lite.engines.choose.plan`); its options are
                `LlamaCppOptions`.

        Raises:
            ModelError: the file cannot be used, or not as planned.
        """
        assert isinstance(plan.options, LlamaCppOptions)
        options = plan.options
        gguf = GGUFFile.read(path)
        gguf.check_generates_text()
        text = ModelText.from_gguf(gguf, options.tokenizer)
        shape = gguf.shape()
        if plan.tight:
            plan = tried(path, shape, usable_by_llama(probe()), plan)
        for reason in plan.reasons:
            _log.info("%s", reason)
        if not plan.fits:
            _log.warning("%s", plan.reasons[-1])
        # What was planned by a published shape may be more than this file was trained for.
        context_length = min(plan.context_length or shape.context_length, shape.context_length)
        super().__init__(replace(plan, context_length=context_length), text, context_length)
        assert plan.gpu_layers is not None and plan.sequences is not None
        assert plan.threads is not None and plan.micro_batch is not None and plan.cache is not None
        self._sequences, self._threads, self._cache = plan.sequences, plan.threads, plan.cache
        self._micro_batch = plan.micro_batch
        self._strict, self._kv_type = options.strict, options.kv_type
        self._model = Model(
            path,
            plan.gpu_layers,
            options.main_gpu,
            list(options.tensor_split) if options.tensor_split else None,
            repack=not amx_is_broken(),
        )
        on = "the CPU"
        if plan.gpu_layers:
            on = f"{plan.device} ({plan.gpu_layers} of {shape.layers + 1} layers)"
        self.description = f"llama.cpp on {on}"
        self._cell_bytes = shape.cell_size(self._kv_type)
        self._context: Context | None = None
        self._active: dict[int, Sequence] = {}
        self._prefix: tuple[tuple[int, ...], npt.NDArray[np.uint8]] | None = None

    def _advance(self, queue: Queue) -> list[Completion[Guide]] | None:
        finished = self._admit(queue)
        if self._active:
            finished += self._decode(queue)
        elif not finished:
            return None
        return finished

    def _cancel(self) -> None:
        for slot in list(self._active):
            self._drop(slot)

    def _free(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    # Admission

    def _admit(self, queue: Queue) -> list[Completion[Guide]]:
        """Start documents while there is room, and make the context when nothing runs in it."""
        finished: list[Completion[Guide]] = []
        while ahead := queue.look(1):
            if self._context is not None and len(self._active) == self._context.sequences:
                return finished
            need = len(ahead[0].prompt.ids) + ahead[0].max_tokens
            if not self._active:
                self._resize(queue)
            assert self._context is not None
            if need > self._context.cells:
                return finished
            free = next(s for s in range(self._context.sequences) if s not in self._active)
            finished += self._start(free, queue)
        self._compact()
        return finished

    def _resize(self, queue: Queue) -> None:
        """Make the context fit the work ahead, where the one there is does not."""
        ahead = queue.look(4 * self._sequences)
        cells = _round_up(max(len(r.prompt.ids) + r.max_tokens for r in ahead))
        sequences = min(self._sequences, len(ahead), self._fit(cells))
        old = self._context
        if old is not None:
            # Making it anew takes a while: not for a few places more.
            if old.cells >= cells and old.sequences * 3 >= sequences * 2:
                return
            if old.cells < cells:
                # What grew once may grow again.
                limit = _round_up(self.context_length)
                cells = max(cells, min(_round_up(old.cells * 3 // 2), limit))
            sequences = min(max(sequences, old.sequences), self._fit(cells))
            old.close()
            self._context = self._prefix = None
        self._context = Context(
            self._model,
            sequences,
            cells,
            batch=self._micro_batch + 8 * sequences,
            micro_batch=self._micro_batch,
            threads=self._threads,
            kv_type=self._kv_type,
            flash_attention=self.plan.flash_attention,
        )
        _log.info("%d sequences of %d tokens", sequences, cells)

    def _fit(self, cells: int) -> int:
        """Return how many sequences of so many cells the memory holds; one is always tried."""
        return max(1, self._cache // (cells * self._cell_bytes))

    def _start(self, slot: int, queue: Queue) -> list[Completion[Guide]]:
        """Begin the next document in `slot`, after the part that its query's documents share."""
        sequence = queue.take()
        assert sequence is not None
        sequence.slot = slot
        self._active[slot] = sequence
        prompt = sequence.request.prompt
        shared = prompt.ids[: prompt.shared]
        if len(shared) >= _SHORTEST_PREFIX and not self._share(sequence, shared):
            return self._restart([sequence], queue)
        return self._follow(sequence, sequence.guide.begin())

    def _share(self, sequence: Sequence, shared: tuple[int, ...]) -> bool:
        """Bring `shared` into the sequence: restored, or computed and saved for the next."""
        context = self._context
        assert context is not None
        known, state = self._prefix or ((), None)
        # Strict results must not depend on the query before, whose beginning this one may share.
        common = len(shared) if known == shared else 0 if self._strict else _common(known, shared)
        if (
            state is not None
            and common >= _SHORTEST_PREFIX
            and context.restore(sequence.slot, state)
        ):
            sequence.past = common
            if common < len(known):
                context.remove(sequence.slot, common)
        if known == shared and sequence.past == len(shared):
            return True
        while sequence.past < len(shared):
            end = min(sequence.past + self._micro_batch, len(shared))
            if context.decode(_rows([(sequence, end - sequence.past)])) != 0:
                return False
            sequence.past = end
        self._prefix = (shared, context.save(sequence.slot))
        return True

    def _compact(self) -> None:
        """Close the gaps between the last documents: only neighbours are decoded in one pass."""
        context = self._context
        assert context is not None or not self._active
        for slot in range(len(self._active)):
            last = max(self._active)
            if slot in self._active or context is None or last < slot:
                continue
            sequence = self._active.pop(last)
            self._active[slot] = sequence
            state = context.save(last)
            context.remove(last)
            sequence.slot = slot
            if not context.restore(slot, state):
                sequence.past = 0

    # Decoding

    def _decode(self, queue: Queue) -> list[Completion[Guide]]:
        """Decode one token of each document that writes, and part of what the others still read."""
        # 1) Run the rows, fewer of them where the cache has no room for all.
        budget = self._micro_batch
        while True:
            parts = self._parts(budget)
            rows = _rows(parts)
            assert self._context is not None
            code = self._context.decode(rows)
            if code != 1:
                break
            if len(rows.tokens) > len(parts):
                budget = len(rows.tokens) // 2
                continue
            # Not even one token each fits: give up a document for now, or the last for good.
            newest = parts[-1][0]
            newest.attempts += len(parts) == 1
            failed = self._restart([newest], queue, count=False)
            if failed or not self._active:
                return failed
        if code != 0:
            _log.warning("llama_decode returned %d; %d documents start again", code, len(parts))
            return self._restart([s for s, _ in parts], queue)
        # 2) Take the next token of each document that has read all there is.
        writing = []
        for sequence, count in parts:
            sequence.past += count
            if not sequence.pending:
                writing.append(sequence)
        if not writing:
            return []
        logits = self._context.logits(len(writing))  # [documents that write, vocabulary]
        tokens = logits.argmax(axis=1).tolist()
        steps = []
        for sequence, token, row in zip(writing, tokens, logits, strict=True):
            wanted = sequence.step.logprobs_for
            logprobs = None if wanted is None else _logprobs(row, (token, *wanted))
            sequence.ids.append(token)
            sequence.tokens_generated += 1
            self.tokens_generated += 1
            steps.append((sequence, sequence.guide.feed(token, logprobs)))
        # 3) Do what the guides ask, which may change what lies in the slots.
        return [done for sequence, step in steps for done in self._follow(sequence, step)]

    def _parts(self, budget: int) -> list[tuple[Sequence, int]]:
        """Choose how many tokens of each document to decode next, in order of their slots.

        Each gets at least one, so that neither writing nor reading waits and no gap parts the
        neighbours; what is left of `budget` goes to the documents begun first.
        """
        counts = {slot: 1 for slot in self._active}
        left = budget - len(counts)
        for slot, sequence in self._active.items():
            more = max(0, min(left, sequence.pending - 1))
            counts[slot] += more
            left -= more
        return [(self._active[slot], counts[slot]) for slot in sorted(counts)]

    def _follow(self, sequence: Sequence, step: Step) -> list[Completion[Guide]]:
        """Do what the guide asks; return the completion where that was the end."""
        past = sequence.past
        if sequence.apply(step):
            self._drop(sequence.slot)
            return [sequence.finished()]
        if sequence.past < past:
            assert self._context is not None
            self._context.remove(sequence.slot, sequence.past)
        return []

    def _restart(
        self, sequences: list[Sequence], queue: Queue, count: bool = True
    ) -> list[Completion[Guide]]:
        """Clear these sequences; their documents start again, up to a number of attempts."""
        failed = []
        for sequence in reversed(sequences):
            self._drop(sequence.slot)
            if sequence.attempts < _ATTEMPTS:
                queue.put_back(sequence, failed=count)
                continue
            reason = f"llama.cpp failed to decode it {_ATTEMPTS} times"
            failed.append(
                Completion(sequence.request.key, sequence.request.guide(), failure=reason)
            )
        return failed

    def _drop(self, slot: int) -> None:
        del self._active[slot]
        if self._context is not None:
            self._context.remove(slot)


def _rows(parts: Seq[tuple[Sequence, int]]) -> Batch:
    """Return the rows of the next `count` tokens of each sequence; a last token wants logits."""
    batch = Batch([], [], [], [])
    for sequence, count in parts:
        start, end = sequence.past, sequence.past + count
        batch.tokens += sequence.ids[start:end]
        batch.positions += range(start, end)
        batch.sequences += [sequence.slot] * count
        batch.outputs += [0] * (count - 1) + [int(end == len(sequence.ids))]
    return batch


def _logprobs(row: npt.NDArray[np.float32], ids: Seq[int]) -> Mapping[int, float]:
    """Return log-probabilities of `ids` under the full softmax of one row of logits."""
    top = float(row.max())
    total = math.log(float(np.exp(row - top).sum(dtype=np.float64))) + top
    return {i: float(row[i]) - total for i in ids}


def _common(a: Seq[int], b: Seq[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _round_up(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP
