"""The llama.cpp engine: many documents decoded together, on CPU, CUDA, Metal or Vulkan.

Sequences keep cells of their own. What the documents of a query share is computed once, saved,
and restored into each sequence: an exact copy, which takes about a thousandth of the time. A
place that becomes free is filled at once, and reading goes on beside decoding, where that is faster
in a context of its own (`reader`). Where more or longer documents come than there are places for,
the context is made anew, and what is under way moves.

Documents get room for the answer that is expected, not for all that they may write. Where one
outgrows it, all get more; where memory does not hold that, it is parked: what was computed is
saved, and it goes on when there is room.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erank_lite.engines.base import Engine
from erank_lite.engines.calls import Queue, Sequence
from erank_lite.engines.llama_cpp.amx import amx_is_broken
from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
from erank_lite.engines.llama_cpp.dry_run import tried
from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.engines.llama_cpp.prefixes import Prefixes
from erank_lite.engines.llama_cpp.reader import Reader
from erank_lite.engines.llama_cpp.state import State
from erank_lite.engines.sampling import draw
from erank_lite.errors import InputError
from erank_lite.machine.hardware import probe, usable_by_llama
from erank_lite.machine.pace import Meter
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import CELL_STEP
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide, Request, Step

_log = logging.getLogger(__name__)

_PREFIXES = 8  # the share of the cache's memory that saved beginnings may take
_ATTEMPTS = 3
_READING = 8  # the share that a prompt may take which is read in a context of its own
_PARKED = 8  # the share of the cache's memory that what is parked may take
_PATIENCE = 2000  # steps that a parked document lets others go first
_ABORTED = 2  # llama_decode's code


@dataclass(slots=True)
class _Parked:
    """A document without a place.

    Attributes:
        sequence: with all its tokens.
        state: what was computed of them; None where there was no room to keep it.
        since: the step at which it was parked.
    """

    sequence: Sequence
    state: State | None
    since: int


class LlamaCppEngine(Engine):
    """Runs a GGUF file with llama.cpp."""

    _meter: Meter

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
        if options.adapter is not None and not options.adapter.is_file():
            raise InputError(
                f"the adapter `{options.adapter}` is no file",
                "give a GGUF file that `erank-lite convert adapter` made",
            )
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
            adapter=options.adapter,
        )
        on = "the CPU"
        if plan.gpu_layers:
            on = f"{plan.device} ({plan.gpu_layers} of {shape.layers + 1} layers)"
        flash = ", flash attention" * bool(plan.flash_attention or plan.flash_reading)
        flash += " for prompts" * bool(plan.flash_reading)
        types = f", keys and values in {self._kv_type}" * (self._kv_type != "f16")
        self.names = (*([options.adapter.stem] if options.adapter else []), *gguf.names)
        with_adapter = f", with {options.adapter.name}" if options.adapter else ""
        self.description = f"llama.cpp on {on}{flash}{types}{with_adapter}"
        self._cell_bytes = shape.cell_size(self._kv_type)
        self._context: Context | None = None
        self._active: dict[int, Sequence] = {}
        self._prefixes = Prefixes(self._cache // _PREFIXES, exact=self._strict)
        self._reader: Reader | None = None
        if plan.flash_reading:
            self._reader = Reader(
                self._model,
                self._micro_batch,
                self._threads,
                self._prefixes,
                max_cells=max(shape.document_cells, self._cache // _READING // self._cell_bytes),
            )
        self._parked: list[_Parked] = []
        self._meter = Meter(shape, self.plan)
        self._answers = self._meter.answers
        self._steps = 0

    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        finished = self._admit(queue)
        return finished + (self._decode(queue) if self._active else [])

    def _under_way(self) -> Iterable[Sequence]:
        reading = self._reader.sequence if self._reader else None
        parked = [parked.sequence for parked in self._parked]
        return [*self._active.values(), *parked, *([reading] if reading else [])]

    def _interrupt(self) -> None:
        if self._context is not None:
            self._context.abort()
        if self._reader is not None:
            self._reader.abort()

    def _free(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    # Admission

    def _admit(self, queue: Queue) -> list[Completion[Guide]]:
        """Start documents while there are places for them, those that were parked first."""
        finished: list[Completion[Guide]] = []
        self._grow()
        room = self._micro_batch  # for what is read in a context of its own
        while True:
            if self._reader is not None and self._reader.sequence is not None:
                if room <= 0:
                    break
                read, failed = self._read(self._reader, queue)
                finished += failed
                room = room - read if read else 0
            elif self._resume(queue) and self._has_place(queue):
                finished += self._start(queue)
            else:
                break
        self._compact()
        return finished

    def _has_place(self, queue: Queue) -> bool:
        """Return whether the next document has a place, in a context made anew if need be."""
        ahead = queue.look(1)
        if not ahead:
            return False
        context, active = self._context, len(self._active)
        fits = context is not None and self._expected(ahead[0]) <= context.cells
        if active and fits:
            assert context is not None
            if active < context.sequences:
                return True
            if context.sequences == self._sequences:
                return False
        ahead = queue.look(4 * self._sequences)
        under_way = self._active.values()
        cells = _round_up(max(*map(self._expected, ahead), *map(self._needs, under_way), 1))
        sequences = min(self._sequences, active + len(ahead), self._fit(cells))
        if context is not None:
            # Making it anew takes a while: not for a few places more.
            enough = context.sequences * 3 >= sequences * 2
            if not active and context.cells >= cells and enough:
                return True
            if active and (sequences <= active or (fits and enough)):
                return False
            if context.cells < cells:
                # What grew once may grow again.
                limit = _round_up(self.context_length)
                room = self._cache // (sequences * self._cell_bytes) // CELL_STEP * CELL_STEP
                cells = max(cells, min(_round_up(context.cells * 3 // 2), limit, room))
            sequences = min(max(sequences, context.sequences), self._fit(cells))
            if sequences <= active:
                return False
        self._remake(sequences, cells)
        return True

    def _expected(self, request: Request[Guide]) -> int:
        """Return the cells that a document is expected to need."""
        return len(request.prompt.ids) + self._answers.reserved(request.max_tokens)

    def _needs(self, sequence: Sequence) -> int:
        """Return the cells that a document under way needs to go on for a good while."""
        request, prompt = sequence.request, len(sequence.request.prompt.ids)
        longer = prompt + (len(sequence.ids) - prompt) * 3 // 2 + 1
        return min(prompt + request.max_tokens, max(self._expected(request), longer))

    def _grow(self) -> None:
        """See to documents that have no cell for the next token: all get more, or they wait."""
        context = self._context
        if context is None:
            return
        outgrown = [s for s in self._active.values() if len(s.ids) > context.cells]
        if not outgrown:
            return
        cells = _round_up(max(map(self._needs, self._active.values())))
        room = self._fit(cells)
        if len(self._active) <= room:
            self._remake(max(len(self._active), min(room, context.sequences)), cells)
            return
        for sequence in outgrown:
            self._park(sequence)

    def _park(self, sequence: Sequence) -> None:
        """Take a document's place away; it goes on later."""
        assert self._context is not None
        state = None
        kept = sum(parked.state.size for parked in self._parked if parked.state is not None)
        if kept + sequence.past * self._cell_bytes <= self._cache // _PARKED:
            state = self._context.save(sequence.slot)
        self._drop(sequence)
        self._parked.append(_Parked(sequence, state, self._steps))

    def _resume(self, queue: Queue) -> bool:
        """Let parked documents go on; return whether others may be started too."""
        while self._parked:
            needed = _round_up(max(self._needs(parked.sequence) for parked in self._parked))
            context, active = self._context, len(self._active)
            if context is None or context.cells < needed:
                if not self._is_time(queue):
                    return True
                room = self._fit(needed)
                if active >= room:
                    return False  # the places of those that are finished first go to the parked
                wanted = active + len(self._parked) + len(queue.look(self._sequences))
                self._remake(min(self._sequences, wanted, room), needed)
                continue
            if active == context.sequences:
                return False
            parked = self._parked.pop(0)
            slot = self._free_slot()
            assert slot is not None
            self._place(parked.sequence, slot, parked.state)
        return True

    def _is_time(self, queue: Queue) -> bool:
        """Return whether what is parked is to go on, in fewer and larger places."""
        waits_long = self._steps - self._parked[0].since > _PATIENCE
        full = any(parked.state is None for parked in self._parked)
        return full or waits_long or not queue.look(1)

    def _place(self, sequence: Sequence, slot: int, state: State | None) -> None:
        """Give a document under way a place, with what was computed of it, or to be read again."""
        assert self._context is not None
        sequence.slot = slot
        self._active[slot] = sequence
        if state is None or not self._context.restore(slot, state):
            sequence.past = 0

    def _remake(self, sequences: int, cells: int) -> None:
        """Make the context anew; what is under way goes on in it, from an exact copy."""
        states = []
        if self._context is not None:
            states = [self._context.save(slot) for slot in self._active]
            self._context.close()
            self._context = None
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
        under_way, self._active = list(self._active.values()), {}
        for slot, (sequence, state) in enumerate(zip(under_way, states, strict=True)):
            self._place(sequence, slot, state)
        _log.info("%d sequences of %d tokens", sequences, cells)

    def _fit(self, cells: int) -> int:
        """Return how many sequences of so many cells the memory holds; one is always tried."""
        reading = self._reader.cells * self._cell_bytes if self._reader else 0
        return max(1, (self._cache - reading) // (cells * self._cell_bytes))

    def _free_slot(self) -> int | None:
        """Return the first place that is free."""
        assert self._context is not None
        return next((s for s in range(self._context.sequences) if s not in self._active), None)

    def _start(self, queue: Queue) -> list[Completion[Guide]]:
        """Begin the next document: what it shares with others first, or all by the reader."""
        sequence = queue.take()
        assert sequence is not None
        step = sequence.guide.begin()
        if self._reader is not None and self._reader.takes(sequence):
            if sequence.apply(step):
                return [sequence.finished()]
            self._reader.begin(sequence)
            return []
        slot = self._free_slot()
        assert slot is not None
        sequence.slot = slot
        self._active[slot] = sequence
        if not self._share(sequence):
            return self._restart([sequence], queue)
        return self._follow(sequence, step)

    def _read(self, reader: Reader, queue: Queue) -> tuple[int, list[Completion[Guide]]]:
        """Read on in the reader's document, and give it a place once it is read.

        Returns:
            How many tokens were read, 0 where it has to wait; and what failed for good.
        """
        sequence, slot, count = reader.sequence, self._free_slot(), 0
        assert sequence is not None
        if sequence.pending > 1:
            past = sequence.past
            code, count = reader.read()
            if code == _ABORTED:
                return 0, []
            if code != 0:
                return 0, self._restart([sequence], queue)
            self._meter.read(past, count)
        if sequence.pending > 1 or slot is None:
            return count, []
        self._place(sequence, slot, reader.finish())
        return max(1, count), []

    def _share(self, sequence: Sequence) -> bool:
        """Bring what documents share into the sequence: restored, or computed for all of them."""
        context = self._context
        assert context is not None
        shared = sequence.request.prompt.ids[: sequence.request.prompt.shared]
        state, common = self._prefixes.longest(shared)
        if state is not None and context.restore(sequence.slot, state):
            context.remove(sequence.slot, common)
            sequence.past = common
        if not self._prefixes.wants(shared):
            return True
        while sequence.past < len(shared):
            end = min(sequence.past + self._micro_batch, len(shared))
            if context.decode(_rows([(sequence, end - sequence.past)])) != 0:
                return False
            self._meter.read(sequence.past, end - sequence.past)
            sequence.past = end
        self._prefixes.keep(shared, context.save(sequence.slot))
        return True

    def _compact(self) -> None:
        """Close the gaps between the last documents: only neighbours are decoded in one pass."""
        context = self._context
        assert context is not None or not self._active
        for slot in range(len(self._active)):
            last = max(self._active)
            if slot in self._active or context is None or last < slot:
                continue
            state = context.save(last)
            context.remove(last)
            self._place(self._active.pop(last), slot, state)

    # Decoding

    def _decode(self, queue: Queue) -> list[Completion[Guide]]:
        """Decode one token of each document that writes, and part of what the others still read."""
        self._steps += 1
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
        if code == _ABORTED:
            return []
        if code != 0:
            _log.warning("llama_decode returned %d; %d documents start again", code, len(parts))
            return self._restart([s for s, _ in parts], queue)
        # 2) Take the next token of each document that has read all there is.
        writing = []
        for sequence, count in parts:
            if count == sequence.pending == 1:
                self._meter.wrote(sequence.past)
            else:
                self._meter.read(sequence.past, count)
            sequence.past += count
            if not sequence.pending:
                writing.append(sequence)
        if not writing:
            return []
        logits = self._context.logits(len(writing))  # [documents that write, vocabulary]
        tokens = logits.argmax(axis=1).tolist()
        steps = []
        for sequence, token, row in zip(writing, tokens, logits, strict=True):
            sampling = sequence.request.sampling
            if sampling is not None:
                token = draw(row, sampling, sequence.request.prompt.ids, sequence.written)
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
            self._drop(sequence)
            request = sequence.request
            self._answers.add(request.max_tokens, len(sequence.ids) - len(request.prompt.ids))
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
            self._drop(sequence)
            if sequence.attempts < _ATTEMPTS:
                queue.put_back(sequence, failed=count)
                continue
            reason = f"llama.cpp failed to decode it {_ATTEMPTS} times"
            failed.append(
                Completion(sequence.request.key, sequence.request.guide(), failure=reason)
            )
        return failed

    def _drop(self, sequence: Sequence) -> None:
        if self._active.get(sequence.slot) is not sequence:
            self._parked = [parked for parked in self._parked if parked.sequence is not sequence]
            if self._reader is not None and self._reader.sequence is sequence:
                self._reader.sequence = None
            return
        del self._active[sequence.slot]
        if self._context is not None:
            self._context.remove(sequence.slot)


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


def _round_up(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP
