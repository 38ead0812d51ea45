"""The llama.cpp engine: many documents decoded together, on CPU, CUDA, Metal or Vulkan.

Sequences keep cells of their own. What the documents of a query share is computed once, saved,
and restored into each sequence: an exact copy, which takes about a thousandth of the time. A
place that becomes free is filled at once, and reading goes on beside decoding.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from erank_lite.engines.base import Engine
from erank_lite.engines.llama_cpp.amx import amx_is_broken
from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model, gpu_devices
from erank_lite.engines.llama_cpp.dry_run import tried_plan
from erank_lite.engines.llama_cpp.setup import (
    REBUILD,
    chat_template,
    check_model,
    check_options,
    end_ids,
)
from erank_lite.errors import InputError, ModelError
from erank_lite.families.erank.score import MAX_NEW_TOKENS
from erank_lite.machine.hardware import probe
from erank_lite.machine.planning import CELL_STEP, MICRO_BATCH, ModelShape, Overrides
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, Guide, Request, Step

_log = logging.getLogger(__name__)

_SHORTEST_PREFIX = 16  # below, saving and restoring is not worth it
_ATTEMPTS = 3


@dataclass(slots=True)
class _Sequence:
    """One document under way: `ids` are all its tokens, of which `past` have been decoded."""

    slot: int
    request: Request
    guide: Guide
    ids: list[int]
    past: int = 0
    tokens_generated: int = 0
    attempts: int = 1
    logprobs_for: tuple[int, ...] | None = None

    @property
    def pending(self) -> int:
        return len(self.ids) - self.past


@dataclass(slots=True)
class _Work:
    """What one run still has to start: requests to begin again first, then new ones."""

    source: Iterator[Request]
    again: deque[tuple[Request, int]] = field(default_factory=deque)
    ahead: deque[Request] = field(default_factory=deque)

    def look(self, count: int) -> list[Request]:
        """Return up to `count` requests that come next, without taking them."""
        missing = count - len(self.again) - len(self.ahead)
        if missing > 0:
            self.ahead.extend(islice(self.source, missing))
        return [r for r, _ in self.again] + list(self.ahead)

    def take(self) -> tuple[Request, int]:
        """Take the next request and the number of this attempt at it."""
        return self.again.popleft() if self.again else (self.ahead.popleft(), 1)


class LlamaCppEngine(Engine):
    """Runs a GGUF file with llama.cpp."""

    def __init__(
        self,
        path: Path,
        *,
        strict: bool = False,
        tokenizer: Path | None = None,
        sequences: int | None = None,
        context_length: int | None = None,
        micro_batch: int | None = None,
        threads: int | None = None,
        gpu_layers: int | None = None,
        main_gpu: int | None = None,
        tensor_split: Sequence[float] | None = None,
        kv_type: str = "f16",
        flash_attention: bool | None = None,
        memory: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            path: of the GGUF file.
            strict: one document at a time, so that no document's result depends on the others, to
                the last bit.
            tokenizer: the checkpoint's tokenizer.json, where the GGUF's own cannot be used.
            sequences: documents decoded together; None chooses by what the memory allows.
            context_length: tokens that one document's prompt and completion may have; None means
                what the model was trained for.
            micro_batch: rows computed at once.
            threads: None means the physical cores that this process may use.
            gpu_layers: layers on the GPU, -1 for all; None leaves it to the plan.
            main_gpu: the GPU to use alone; None shares the layers between all.
            tensor_split: share of each GPU, where they are to differ.
            kv_type: type of the keys and values: f32, f16, bf16, q8_0, …
            flash_attention: None leaves it out on a processor, where it is less exact, and lets
                llama.cpp decide on a GPU.
            memory: bytes for keys and values; None takes a share of what is free.

        Raises:
            ModelError: the file cannot be used, or not with this build of llama.cpp.
            InputError: an option is out of its range.
        """
        check_options(sequences, context_length, micro_batch, threads, gpu_layers, kv_type)
        gguf = GGUFFile.read(path)
        check_model(gguf)
        self.chat_template = chat_template(gguf)
        self.tokenizer = (
            Tokenizer.from_gguf(gguf) if tokenizer is None else Tokenizer.from_checkpoint(tokenizer)
        )
        devices = gpu_devices() if gpu_layers != 0 else []
        if gpu_layers and not devices:
            has = "has no GPU support" if not lib.llama_supports_gpu_offload() else "finds no GPU"
            raise ModelError(
                f"{gpu_layers} layers were asked for on the GPU, but this build of "
                f"llama-cpp-python {has}: {REBUILD}; or leave gpu_layers out"
            )
        if main_gpu is not None and devices and not 0 <= main_gpu < len(devices):
            raise InputError(f"main_gpu must lie between 0 and {len(devices) - 1}, not {main_gpu}")
        self.max_new_tokens = gguf.metadata.get("erank_lite.max_new_tokens")
        trained = int(gguf.hparam("context_length", 0)) or 32768
        self.context_length = min(context_length or trained, trained)
        facts = ModelShape.of(gguf, self.max_new_tokens or MAX_NEW_TOKENS)
        # GPUs as llama.cpp sees them, whoever made them.
        gpus = tuple(devices if main_gpu is None else devices[main_gpu:][:1])
        self.plan = tried_plan(
            path,
            replace(facts, context_length=self.context_length),
            replace(probe(), gpus=gpus),
            Overrides(
                gpu_layers=gpu_layers, sequences=1 if strict else sequences, kv_type=kv_type,
                flash_attention=flash_attention, micro_batch=micro_batch or MICRO_BATCH,
                threads=threads, tensor_split=tuple(tensor_split) if tensor_split else None,
                cache=memory,
            ),
            main_gpu,
        )  # fmt: skip
        _log.info("%s", "; ".join(self.plan.reasons))
        if not self.plan.fits:
            _log.warning("%s", self.plan.reasons[-1])
        self._model = Model(
            path,
            self.plan.gpu_layers,
            main_gpu,
            list(tensor_split) if tensor_split else None,
            repack=not amx_is_broken(),
        )
        self.end_ids = end_ids(gguf) or self._model.end_ids
        self.tokens_generated = 0
        where = "the processor"
        if self.plan.gpu_layers:
            names = ", ".join(g.name for g in gpus)
            where = f"{names} ({self.plan.gpu_layers} of {facts.layers + 1} layers)"
        self.description = f"llama.cpp on {where}"
        self._strict = strict
        self._micro_batch = micro_batch or MICRO_BATCH
        self._kv_type = kv_type
        self._cell_bytes = facts.cell_size(kv_type)
        self._context: Context | None = None
        self._active: dict[int, _Sequence] = {}
        self._work: _Work | None = None
        self._prefix: tuple[tuple[int, ...], npt.NDArray[np.uint8]] | None = None

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Complete every request; see `Engine.run`. A run that begins ends the one before."""
        if self._model.pointer is None:
            raise ModelError("the engine is closed: make another one")
        self._clear()
        work = self._work = _Work(iter(requests))
        try:
            while True:
                finished = list(self._admit(work))
                if self._active:
                    finished += self._advance(work)
                elif not finished:
                    return
                for completion in finished:
                    yield completion
                    if self._work is not work:
                        raise ModelError("this run was given up when another one began")
        finally:
            if self._work is work:
                self._clear()

    def close(self) -> None:
        """Free the model and its memory."""
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    # Admission

    def _admit(self, work: _Work) -> Iterator[Completion]:
        """Start documents while there is room, and make the context when nothing runs in it."""
        while next_requests := work.look(1):
            if self._context is not None and len(self._active) == self._context.sequences:
                return
            request = next_requests[0]
            need = len(request.prompt.ids) + request.guide().max_tokens
            if need > self.context_length:
                request, _ = work.take()
                reason = f"it needs {need} tokens, the context has {self.context_length}"
                yield Completion(request.key, request.guide(), failure=reason)
                continue
            if not self._active:
                self._resize(work)
            assert self._context is not None
            if need > self._context.cells:
                return
            free = next(s for s in range(self._context.sequences) if s not in self._active)
            yield from self._start(free, work)
        self._compact()

    def _resize(self, work: _Work) -> None:
        """Make the context fit the work ahead, where the one there is does not."""
        ahead = work.look(4 * self.plan.sequences)
        needs = [len(r.prompt.ids) + r.guide().max_tokens for r in ahead]
        needs = [n for n in needs if n <= self.context_length]
        cells = _round_up(max(needs))
        sequences = min(self.plan.sequences, len(ahead), self._fit(cells))
        old = self._context
        if old is not None:
            # Making it anew takes a while: not for a few places more.
            if old.cells >= cells and old.sequences * 3 >= sequences * 2:
                return
            if old.cells < cells:
                # What grew once may grow again.
                most = _round_up(self.context_length)
                cells = max(cells, min(_round_up(old.cells * 3 // 2), most))
            sequences = min(max(sequences, old.sequences), self._fit(cells))
            old.close()
            self._context = self._prefix = None
        self._context = Context(
            self._model,
            sequences,
            cells,
            batch=self._micro_batch + 8 * sequences,
            micro_batch=self._micro_batch,
            threads=self.plan.threads,
            kv_type=self._kv_type,
            flash_attention=self.plan.flash_attention,
        )
        _log.info("%d sequences of %d tokens", sequences, cells)

    def _fit(self, cells: int) -> int:
        """Return how many sequences of so many cells the memory holds; one is always tried."""
        return max(1, self.plan.cache // (cells * self._cell_bytes))

    def _start(self, slot: int, work: _Work) -> Iterator[Completion]:
        """Begin the next document in `slot`, after the part that its query's documents share."""
        request, attempts = work.take()
        guide = request.guide()
        sequence = _Sequence(slot, request, guide, list(request.prompt.ids), attempts=attempts)
        self._active[slot] = sequence
        shared = request.prompt.ids[: request.prompt.shared]
        if len(shared) >= _SHORTEST_PREFIX and not self._share(sequence, shared):
            yield from self._restart([sequence], work)
            return
        yield from self._follow(sequence, guide.begin())

    def _share(self, sequence: _Sequence, shared: tuple[int, ...]) -> bool:
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

    def _advance(self, work: _Work) -> Iterator[Completion]:
        """Decode one token of each document that writes, and part of what the others still read."""
        budget = self._micro_batch
        while True:
            plan = self._plan(budget)
            rows = _rows(plan)
            assert self._context is not None
            code = self._context.decode(rows)
            if code != 1:
                break
            if len(rows.tokens) > len(plan):
                budget = len(rows.tokens) // 2
                continue
            # Not even one token each fits: give up a document for now, or the last for good.
            newest = plan[-1][0]
            newest.attempts += len(plan) == 1
            yield from self._restart([newest], work, count=False)
            if not self._active:
                return
        if code != 0:
            _log.warning("llama_decode returned %d; %d documents start again", code, len(plan))
            yield from self._restart([s for s, _ in plan], work)
            return
        writing = []
        for sequence, count in plan:
            sequence.past += count
            if not sequence.pending:
                writing.append(sequence)
        if not writing:
            return
        logits = self._context.logits(len(writing))
        tokens = logits.argmax(axis=1).tolist()
        steps = []
        for sequence, token, row in zip(writing, tokens, logits, strict=True):
            logprobs = None
            if sequence.logprobs_for is not None:
                logprobs = _logprobs(row, (token, *sequence.logprobs_for))
            sequence.ids.append(token)
            sequence.tokens_generated += 1
            self.tokens_generated += 1
            steps.append((sequence, sequence.guide.feed(token, logprobs)))
        for sequence, step in steps:
            yield from self._follow(sequence, step)

    def _plan(self, budget: int) -> list[tuple[_Sequence, int]]:
        """Choose how many tokens of each document to decode next, in order of their places.

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

    def _follow(self, sequence: _Sequence, step: Step) -> Iterator[Completion]:
        """Do what the guide asks: drop tokens, append tokens, or finish."""
        if step.done:
            self._drop(sequence.slot)
            yield Completion(sequence.request.key, sequence.guide, sequence.tokens_generated)
            return
        if step.drop:
            del sequence.ids[-step.drop :]
        sequence.ids += step.force
        kept = len(sequence.ids) - len(step.force)
        # At least one token must be decoded for there to be a next one.
        past = min(sequence.past, kept, len(sequence.ids) - 1)
        if past < sequence.past:
            assert self._context is not None
            self._context.remove(sequence.slot, past)
            sequence.past = past
        sequence.logprobs_for = step.logprobs_for

    def _restart(
        self, sequences: list[_Sequence], work: _Work, count: bool = True
    ) -> Iterator[Completion]:
        """Clear these sequences; their documents start again, up to a number of attempts."""
        for sequence in reversed(sequences):
            self._drop(sequence.slot)
            if sequence.attempts < _ATTEMPTS:
                work.again.appendleft((sequence.request, sequence.attempts + count))
                continue
            reason = f"llama.cpp failed to decode it {_ATTEMPTS} times"
            yield Completion(sequence.request.key, sequence.request.guide(), failure=reason)

    def _clear(self) -> None:
        for slot in list(self._active):
            self._drop(slot)

    def _drop(self, slot: int) -> None:
        del self._active[slot]
        if self._context is not None:
            self._context.remove(slot)


def _rows(plan: Sequence[tuple[_Sequence, int]]) -> Batch:
    """Return the rows of the next `count` tokens of each sequence; a last token wants logits."""
    batch = Batch([], [], [], [])
    for sequence, count in plan:
        start, end = sequence.past, sequence.past + count
        batch.tokens += sequence.ids[start:end]
        batch.positions += range(start, end)
        batch.sequences += [sequence.slot] * count
        batch.outputs += [0] * (count - 1) + [int(end == len(sequence.ids))]
    return batch


def _logprobs(row: npt.NDArray[np.float32], ids: Sequence[int]) -> Mapping[int, float]:
    """Return log-probabilities of `ids` under the full softmax of one row of logits."""
    top = float(row.max())
    total = math.log(float(np.exp(row - top).sum(dtype=np.float64))) + top
    return {i: float(row[i]) - total for i in ids}


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _round_up(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP
