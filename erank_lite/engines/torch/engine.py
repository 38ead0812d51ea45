"""Many documents decoded together by a model of Transformers, whatever its weights are kept in.

The loop is ours, since the model is asked for one token at a time and the guide decides what
follows: nothing of Transformers' `generate`, its processors or its configuration takes part. A row
of the batch is a document; one that is finished gives its place to the next, rows never wait for
each other, and memory grows with what is written. What the documents of a query share is computed
once and copied.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erank_lite.engines.base import Engine
from erank_lite.engines.torch.kv_cache import Rows
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import memory as free_memory
from erank_lite.machine.hardware import usable_cores
from erank_lite.machine.planning import CACHE_SHARE, MAX_SEQUENCES_CPU, MAX_SEQUENCES_GPU, WRITTEN
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, Guide, Request, Step

_log = logging.getLogger(__name__)

_SHORTEST_PREFIX = 16  # below, copying is not worth it
_AHEAD = 4  # times the rows: documents of like length are read in one pass
_MICRO_BATCH = 2048


@dataclass(slots=True)
class _Row:
    """One document under way: `ids` are all its tokens, of which `past` have been computed."""

    request: Request
    guide: Guide
    ids: list[int]
    past: int = 0
    tokens_generated: int = 0
    logprobs_for: tuple[int, ...] | None = None
    begun: bool = False

    @property
    def pending(self) -> int:
        return len(self.ids) - self.past


class TorchEngine(Engine):
    """What the engines of Transformers share: all but how the weights are loaded."""

    def __init__(
        self,
        path: Path,
        *,
        strict: bool = False,
        tokenizer: Path | None = None,
        sequences: int | None = None,
        context_length: int | None = None,
        micro_batch: int = _MICRO_BATCH,
        threads: int | None = None,
        device: str | None = None,
        memory: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            path: of the checkpoint's folder.
            strict: one document at a time, so that no document's result depends on the others, to
                the last bit.
            tokenizer: a tokenizer.json to use instead of the checkpoint's.
            sequences: documents decoded together; None means 16 on a processor, 64 on a GPU, and
                less where the memory is less.
            context_length: tokens that one document's prompt and completion may have; None means
                what the model was trained for.
            micro_batch: tokens of prompts computed at once.
            threads: of a processor; None means the physical cores that this process may use.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the first NVIDIA GPU, or Apple's, or
                the processor.
            memory: bytes for keys and values; None takes a share of what is free.

        Raises:
            ModelError: the checkpoint cannot be used.
            InputError: an option is out of its range.
        """
        for name, value, least, most in (
            ("sequences", sequences, 1, 1024),
            ("context_length", context_length, 256, 1 << 24),
            ("micro_batch", micro_batch, 1, 1 << 20),
            ("threads", threads, 1, 1024),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} must lie between {least} and {most}, not {value}")
        folder = CheckpointFolder.open(path)
        _check_architecture(folder)
        self.tokenizer = (
            folder.tokenizer() if tokenizer is None else Tokenizer.from_checkpoint(tokenizer)
        )
        self.chat_template = folder.chat_template()
        self.end_ids = folder.end_ids(self.tokenizer)
        self.max_new_tokens = folder.max_new_tokens
        trained = folder.config.get("max_position_embeddings")
        trained = trained if type(trained) is int and trained > 0 else 32768
        self.context_length = min(context_length or trained, trained)
        self.tokens_generated = 0
        self._strict = strict
        self._micro_batch = micro_batch
        torch.set_num_threads(threads or usable_cores())
        self._device = checked_device(device)
        with _quiet():
            model = self._load(folder, self._device)
        self._model: Any = model.eval()
        self.description = f"{self._computes(model)} on {_device_name(self._device)}"
        self._cache_name = (
            "cache" if "cache" in inspect.signature(model.model.forward).parameters
            else "past_key_values"
        )  # fmt: skip
        config = model.config
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = model.get_input_embeddings().weight.dtype.itemsize
        self._cell_bytes: int = 2 * config.num_hidden_layers * heads * size * width
        on_gpu = self._device.type != "cpu"
        self._most = (
            1 if strict else sequences or (MAX_SEQUENCES_GPU if on_gpu else MAX_SEQUENCES_CPU)
        )
        self._memory = memory or int(self._free() * CACHE_SHARE)
        self._rows: Rows | None = None
        self._active: list[_Row] = []
        self._parked: deque[_Row] = deque()
        self._prefix: tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]] | None = None
        self._run = 0

    @abstractmethod
    def _load(self, folder: CheckpointFolder, device: torch.device) -> Any:
        """Return the model, a `PreTrainedModel` for causal language modelling.

        Raises:
            ModelError: it cannot be loaded.
        """

    @abstractmethod
    def _computes(self, model: Any) -> str:
        """Return what the model is computed with, to be told."""

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Complete every request; see `Engine.run`. A run that begins ends the one before."""
        if self._model is None:
            raise ModelError("the engine is closed: make another one")
        self._run += 1
        run = self._run
        source = iter(requests)
        ahead: deque[Request] = deque()
        self._active.clear()
        self._parked.clear()
        self._rows = None
        try:
            for completion in self._turns(source, ahead):
                yield completion
                if self._run != run:
                    raise ModelError("this run was given up when another one began")
        finally:
            if self._run == run:
                self._active.clear()
                self._parked.clear()

    def close(self) -> None:
        """Free the model and its memory."""
        self._model = self._rows = self._prefix = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _turns(self, source: Iterator[Request], ahead: deque[Request]) -> Iterator[Completion]:
        out_of_memory = torch.OutOfMemoryError  # as Python ends, the module may be gone before this
        while True:
            full = False
            try:
                yield from self._admit(source, ahead)
                if not self._active:
                    return
                yield from self._write()
            except out_of_memory:
                full = True
            if full:  # out here, where the error no longer holds what it failed with
                yield from self._shrink()

    # Admission

    def _admit(self, source: Iterator[Request], ahead: deque[Request]) -> Iterator[Completion]:
        """Start documents while there is room, and read their prompts."""
        begun = len(self._active)
        while len(self._active) < self._most:
            row = self._parked.popleft() if self._parked else None
            if row is None:
                request = self._next(source, ahead)
                if request is None:
                    break
                guide = request.guide()
                need = len(request.prompt.ids) + guide.max_tokens
                if need > self.context_length:
                    reason = f"it needs {need} tokens, the context has {self.context_length}"
                    yield Completion(request.key, guide, failure=reason)
                    continue
                row = _Row(request, guide, list(request.prompt.ids))
            if not self._active and self._rows and self._rows.cells > 2 * self._need(row):
                self._rows = None  # one long document would keep the rows few for all that follow
            if self._active and not self._fits(len(self._active) + 1, self._need(row)):
                self._parked.appendleft(row)
                break
            self._active.append(row)
        if len(self._active) > begun:
            yield from self._read(begun)

    def _next(self, source: Iterator[Request], ahead: deque[Request]) -> Request | None:
        """Return the next request; among a query's next, the longest, so that neighbours are alike.

        Strict results depend on no order, so the order given is kept.
        """
        if not ahead:
            batch = list(islice(source, 1 if self._strict else _AHEAD * self._most))
            # Queries stay in their order: what one's documents share is computed when it comes.
            shared = [r.prompt.ids[: r.prompt.shared] for r in batch]
            order = sorted(
                range(len(batch)),
                key=lambda i: (shared.index(shared[i]), -len(batch[i].prompt.ids)),
            )
            ahead.extend(batch[i] for i in order)
            if not ahead:
                return None
        return ahead.popleft()

    def _need(self, row: _Row) -> int:
        return len(row.ids) + min(row.guide.max_tokens, WRITTEN)

    def _fits(self, count: int, cells: int) -> bool:
        """Return whether so many rows of so many tokens are within the memory."""
        cells = max(cells, self._rows.cells if self._rows else 0)
        return count * cells * self._cell_bytes <= self._memory

    def _make_room(self, cells: int) -> None:
        """Have room for so many tokens of each document; documents that find none are parked."""
        count = len(self._active)
        if self._rows is None:
            self._rows = Rows(count, cells)
            return
        if self._rows.cells >= cells and self._rows.count >= count:
            return
        if self._rows.cells < cells:
            # What grew once grows again: by a quarter, so that little time goes to copying.
            cells = max(cells, self._rows.cells * 5 // 4)
        while count > 1 and not self._fits(count, cells):
            self._park()
            count -= 1
        self._rows.resize(count, max(cells, self._rows.cells))

    def _park(self) -> None:
        """Take the last row out; it goes on where it was once there is room, its tokens kept."""
        row = self._active.pop()
        row.past = 0
        self._parked.appendleft(row)

    # Reading

    def _read(self, begun: int) -> Iterator[Completion]:
        """Compute the prompts of the rows from `begun` on, all but each one's last token."""
        self._make_room(max(self._need(row) for row in self._active[begun:]))
        for at in range(begun, len(self._active)):
            self._share(at)
        at = begun
        while at < len(self._active):
            rows = self._alike(at)
            while any(row.pending > 1 for row in rows):
                most = max(1, self._micro_batch // len(rows))
                self._pass(at, [min(row.pending - 1, most) for row in rows])
            at += len(rows)
        for row in self._active[begun:]:
            if not row.begun:
                row.begun = True
                yield from self._follow(row, row.guide.begin())

    def _alike(self, at: int) -> list[_Row]:
        """Return the rows from `at` on that are read in one pass: as many as it has tokens for."""
        rows: list[_Row] = []
        longest = 0
        for row in self._active[at:]:
            longest = max(longest, row.pending)
            if rows and longest * (len(rows) + 1) > self._micro_batch:
                break
            rows.append(row)
        return rows

    def _share(self, at: int) -> None:
        """Bring what the documents of a query share into a row: copied, or computed and kept."""
        row, prompt = self._active[at], self._active[at].request.prompt
        shared = prompt.ids[: prompt.shared]
        if len(shared) < _SHORTEST_PREFIX:
            return
        assert self._rows is not None
        known, state = self._prefix or ((), [])
        if known != shared:
            # Read alone, so that it is the same whatever is read beside it.
            while row.past < len(shared):
                self._pass(at, [min(self._micro_batch, len(shared) - row.past)])
            self._prefix = (shared, self._rows.save(at, len(shared)))
            return
        self._rows.restore(at, state, len(shared))
        row.past = len(shared)

    # Writing

    def _write(self) -> Iterator[Completion]:
        """Compute what is pending of every row, and let each guide take its next token."""
        self._make_room(max(len(row.ids) for row in self._active) + 1)
        rows = list(self._active)
        counts = [row.pending for row in rows]
        hidden = self._pass(0, counts)
        tokens, logprobs = self._choose(hidden, counts, [row.logprobs_for for row in rows])
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.ids.append(token)
            row.tokens_generated += 1
            self.tokens_generated += 1
            yield from self._follow(row, row.guide.feed(token, logprobs.get(i)))

    def _choose(
        self, hidden: Tensor, counts: Sequence[int], measures: Sequence[tuple[int, ...] | None]
    ) -> tuple[list[int], dict[int, dict[int, float]]]:
        """Return each row's most probable token and, for rows that want them, log-probabilities.

        Args:
            hidden: the last layer's output, [rows, tokens, width].
            counts: how many tokens of each row count; the last gives the logits.
            measures: see `Step.measure`.
        """
        places = torch.arange(len(counts), device=hidden.device)
        last = torch.tensor(counts, device=hidden.device) - 1
        with torch.no_grad():
            logits = self._model.lm_head(hidden[places, last]).float()
        tokens = logits.argmax(dim=-1).tolist()
        logprobs = {}
        measured = [i for i, measure in enumerate(measures) if measure is not None]
        if measured:
            totals = torch.logsumexp(logits[measured], dim=-1).tolist()
            for i, total in zip(measured, totals, strict=True):
                wanted = [tokens[i], *(measures[i] or ())]
                values = logits[i, wanted].tolist()
                logprobs[i] = {t: v - total for t, v in zip(wanted, values, strict=True)}
        return tokens, logprobs

    def _follow(self, row: _Row, step: Step) -> Iterator[Completion]:
        """Do what the guide asks: drop tokens, append tokens, or finish."""
        if step.done:
            self._remove(row)
            yield Completion(row.request.key, row.guide, row.tokens_generated)
            return
        if step.drop:
            del row.ids[-step.drop :]
        # At least one token must be computed for there to be a next one.
        row.past = min(row.past, len(row.ids), len(row.ids) + len(step.force) - 1)
        row.ids += step.force
        row.logprobs_for = step.logprobs_for

    def _remove(self, row: _Row) -> None:
        """Give a row's place up: the last one moves there, so that all stay neighbours."""
        at = next(i for i, other in enumerate(self._active) if other is row)
        last = self._active.pop()
        if last is not row:
            assert self._rows is not None
            self._rows.move(len(self._active), at, last.past)
            self._active[at] = last

    # The model

    def _pass(self, first: int, counts: Sequence[int]) -> Tensor:
        """Compute the next `counts` tokens of neighbouring rows.

        Returns:
            The last layer's output, [rows, tokens, width].

        Raises:
            OutOfMemoryError: of the GPU; nothing has changed then.
        """
        rows = self._active[first : first + len(counts)]
        most = max(counts)
        ids = [
            (row.ids[row.past : row.past + n] + [0] * most)[:most]
            for row, n in zip(rows, counts, strict=True)
        ]
        past = torch.tensor([row.past for row in rows], device=self._device)
        positions = past[:, None] + torch.arange(most, device=self._device)
        assert self._rows is not None
        longest = max(row.past for row in rows) + most
        if self._rows.cells < longest:
            self._rows.resize(self._rows.count, longest)
        with torch.no_grad():
            output = self._model.model(
                input_ids=torch.tensor(ids, device=self._device),
                attention_mask=self._rows.begin(first, positions),
                position_ids=positions,
                use_cache=True,
                **{self._cache_name: self._rows},
            )
        for row, n in zip(rows, counts, strict=True):
            row.past += n
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _shrink(self) -> Iterator[Completion]:
        """Half the documents wait: what was free turned out to be less than was thought."""
        torch.cuda.empty_cache()
        if len(self._active) == 1:
            row = self._active.pop()
            reason = f"the GPU's memory is too small for its {len(row.ids)} tokens"
            yield Completion(row.request.key, row.request.guide(), failure=reason)
            return
        self._most = max(1, len(self._active) // 2)
        _log.warning("the GPU's memory is full: %d documents together from here on", self._most)
        while self._active and (len(self._active) > self._most or not self._active[-1].begun):
            self._park()
        if self._rows is not None:
            self._rows.resize(max(1, len(self._active)), self._rows.cells)

    def _free(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.mem_get_info(self._device)[0])
        return free_memory()[1]


def checked_device(name: str | None) -> torch.device:
    """Return the device of that name, or the best that there is.

    Raises:
        InputError: there is none of that name here.
    """
    if name is None:
        mps = torch.backends.mps.is_available()
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise ValueError
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        found += ["mps"] * torch.backends.mps.is_available()
        raise InputError(
            f"there is no device {name!r} that torch {torch.__version__} can use; it finds "
            f"{', '.join(found)}"
        ) from None
    return device


def _device_name(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)


def _check_architecture(folder: CheckpointFolder) -> None:
    found = folder.config.get("architectures")
    kind = str(found[0]) if isinstance(found, list) and found else None
    if kind not in ("Qwen3ForCausalLM", "LlamaForCausalLM"):
        raise ModelError(
            f"{folder.path}: the checkpoint's architecture is {kind}; Qwen3ForCausalLM (ERank) and "
            "LlamaForCausalLM can be run"
        )
    types = folder.config.get("layer_types") or []
    if folder.config.get("use_sliding_window") or any(t != "full_attention" for t in types):
        raise ModelError(
            f"{folder.path}: config.json asks for sliding windows, which ERank models do not have"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries say while they load from the user's terminal: errors are raised."""
    from transformers.utils import logging as theirs

    root = logging.root
    before, bars = root.manager.disable, theirs.is_progress_bar_enabled()
    level, handlers = root.level, list(root.handlers)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        logging.disable(logging.WARNING)
        theirs.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(before)
            root.setLevel(level)
            root.handlers[:] = handlers
            if bars:
                theirs.enable_progress_bar()
