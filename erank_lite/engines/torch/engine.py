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
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erank_lite.engines.base import Engine
from erank_lite.engines.calls import NOT_BEGUN, Queue, Sequence
from erank_lite.engines.sampling import draw
from erank_lite.engines.torch.kv_cache import SlotKVCache
from erank_lite.engines.torch.options import TorchOptions
from erank_lite.engines.torch.plan import plan as torch_plan
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import probe
from erank_lite.machine.pace import Meter
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import USUAL_ANSWER, ModelShape
from erank_lite.models.architecture import architecture_name
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.text import ModelText
from erank_lite.types import Completion, Guide, Request, Step

_log = logging.getLogger(__name__)

_SHORTEST_PREFIX = 16  # below, copying is not worth it
_PREFIXES = 8  # kept at most


class TorchEngine(Engine):
    """What the engines on torch share: all but how the weights are loaded."""

    _meter: Meter

    def __init__(self, path: Path, plan: Plan) -> None:
        """Load a model.

        Args:
            path: of the checkpoint's folder.
            plan: how to run it (`erank_lite.engines.choose.plan`); its options are
                `TorchOptions`.

        Raises:
            ModelError: the checkpoint cannot be used.
            InputError: the device that was asked for is not here.
        """
        assert isinstance(plan.options, TorchOptions) and plan.device is not None
        folder = Checkpoint.open(path)
        _check_architecture(folder)
        text = ModelText.from_checkpoint(folder, plan.options.tokenizer)
        try:
            self._device = checked_device(plan.device)
        except InputError as error:
            if plan.options.device is not None:
                raise
            plan = _on_cpu(folder, plan, error.message)
            self._device = torch.device("cpu")
        for reason in plan.reasons:
            _log.info("%s", reason)
        options = plan.options
        assert isinstance(options, TorchOptions)
        assert plan.context_length is not None and plan.sequences is not None
        assert plan.threads is not None and plan.micro_batch is not None and plan.cache is not None
        super().__init__(plan, text, plan.context_length)
        self._strict, self._sequences = options.strict, plan.sequences
        self._micro_batch, self._memory = plan.micro_batch, plan.cache
        torch.set_num_threads(plan.threads)
        with _quiet():
            model = self._load(folder, self._device)
        self._model: Any = model.eval()
        shape = ModelShape.from_config(folder.config, "BF16", folder.max_new_tokens)
        self._meter = Meter(shape, plan)
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
        self._cache: SlotKVCache | None = None
        self._active: list[Sequence] = []
        self._parked: deque[Sequence] = deque()
        self._prefixes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}

    @abstractmethod
    def _load(self, folder: Checkpoint, device: torch.device) -> Any:
        """Return the model, a `PreTrainedModel` for causal language modelling.

        Raises:
            ModelError: it cannot be loaded.
        """

    @abstractmethod
    def _computes(self, model: Any) -> str:
        """Return what the model is computed with, to be told."""

    def _advance(self, queue: Queue) -> list[Completion[Guide]]:
        out_of_memory = torch.OutOfMemoryError  # as Python ends, the module may be gone before this
        finished: list[Completion[Guide]] = []
        try:
            self._admit(queue, finished)
            if self._active:
                self._write(finished)
            if not self._active:
                self._cache = None
            return finished
        except out_of_memory:
            pass
        return finished + self._shrink()  # out here, where the error no longer holds its tensors

    def _under_way(self) -> Iterable[Sequence]:
        return (*self._active, *self._parked)

    def _free(self) -> None:
        self._model = self._cache = None
        self._prefixes.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # Admission

    def _admit(self, queue: Queue, finished: list[Completion[Guide]]) -> None:
        """Start documents while there is room, and read their prompts."""
        begun = len(self._active)
        while len(self._active) < self._sequences:
            row = self._parked.popleft() if self._parked else queue.take()
            if row is None:
                break
            if not self._active and self._cache and self._cache.cells > 2 * self._need(row):
                self._cache = None  # one long document would keep the rows few for all that follow
            if self._active and not self._fits(len(self._active) + 1, self._need(row)):
                self._parked.appendleft(row)
                break
            self._active.append(row)
        if len(self._active) > begun:
            self._read(begun, finished)

    def _arrange(self, requests: list[Request[Guide]]) -> list[Request[Guide]]:
        """Put the longest of a query's next documents first, so that neighbours are alike.

        Strict results depend on no order, so the order given is kept.
        """
        if self._strict:
            return requests
        # Queries stay in their order: what one's documents share is computed when it comes.
        shared = [r.prompt.ids[: r.prompt.shared] for r in requests]
        order = sorted(
            range(len(requests)),
            key=lambda i: (shared.index(shared[i]), -len(requests[i].prompt.ids)),
        )
        return [requests[i] for i in order]

    def _need(self, row: Sequence) -> int:
        limit = row.request.max_tokens
        # What strict results are computed with must not depend on what came before.
        answer = min(limit, USUAL_ANSWER) if self._strict else self._meter.answers.reserved(limit)
        return len(row.ids) + answer

    def _fits(self, count: int, cells: int) -> bool:
        """Return whether so many rows of so many tokens are within the memory."""
        cells = max(cells, self._cache.cells if self._cache else 0)
        return count * cells * self._cell_bytes <= self._memory

    def _make_room(self, cells: int) -> None:
        """Have room for so many tokens of each document; documents that find none are parked."""
        count = len(self._active)
        if self._cache is None:
            self._cache = SlotKVCache(count, cells)
            return
        if self._cache.cells >= cells and self._cache.count >= count:
            return
        if self._cache.cells < cells:
            # What grew once grows again: by a quarter, so that little time goes to copying.
            cells = max(cells, self._cache.cells * 5 // 4)
        while count > 1 and not self._fits(count, cells):
            self._park()
            count -= 1
        self._cache.resize(count, max(cells, self._cache.cells))

    def _park(self) -> None:
        """Take the last row out; it goes on where it was once there is room, its tokens kept."""
        row = self._active.pop()
        row.past = 0
        self._parked.appendleft(row)

    # Reading

    def _read(self, begun: int, finished: list[Completion[Guide]]) -> None:
        """Compute the prompts of the rows from `begun` on, all but each one's last token."""
        self._make_room(max(self._need(row) for row in self._active[begun:]))
        for at in range(begun, len(self._active)):
            self._share(at)
        at = begun
        while at < len(self._active):
            rows = self._alike(at)
            while any(row.pending > 1 for row in rows):
                width = max(1, self._micro_batch // len(rows))
                self._pass(at, [min(row.pending - 1, width) for row in rows])
            at += len(rows)
        for row in self._active[begun:]:
            if row.step is NOT_BEGUN:
                self._follow(row, row.guide.begin(), finished)

    def _alike(self, at: int) -> list[Sequence]:
        """Return the rows from `at` on that are read in one pass: as many as it has tokens for."""
        rows: list[Sequence] = []
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
        assert self._cache is not None
        state = self._prefixes.pop(shared, None)
        if state is None:
            # Read alone, so that it is the same whatever is read beside it.
            while row.past < len(shared):
                self._pass(at, [min(self._micro_batch, len(shared) - row.past)])
            self._prefixes[shared] = self._cache.save(at, len(shared))
            if len(self._prefixes) > _PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            return
        self._prefixes[shared] = state  # the last used is the last to go
        self._cache.restore(at, state, len(shared))
        row.past = len(shared)

    # Writing

    def _write(self, finished: list[Completion[Guide]]) -> None:
        """Compute what is pending of every row, and let each guide take its next token."""
        self._make_room(max(len(row.ids) for row in self._active) + 1)
        rows = list(self._active)
        counts = [row.pending for row in rows]
        hidden = self._pass(0, counts)
        tokens, logprobs = self._choose(hidden, counts, rows)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.ids.append(token)
            row.tokens_generated += 1
            self.tokens_generated += 1
            self._follow(row, row.guide.feed(token, logprobs.get(i)), finished)

    def _choose(
        self, hidden: Tensor, counts: Seq[int], rows: Seq[Sequence]
    ) -> tuple[list[int], dict[int, dict[int, float]]]:
        """Return each row's next token and, for rows that want them, log-probabilities.

        Args:
            hidden: the last layer's output, [rows, tokens, width].
            counts: how many tokens of each row count; the last gives the logits.
            rows: the documents.
        """
        places = torch.arange(len(counts), device=hidden.device)
        last = torch.tensor(counts, device=hidden.device) - 1
        with torch.no_grad():
            logits = self._model.lm_head(hidden[places, last]).float()
        tokens = logits.argmax(dim=-1).tolist()
        for i, row in enumerate(rows):
            sampling = row.request.sampling
            if sampling is not None:
                drawn_from = logits[i].cpu().numpy()
                tokens[i] = draw(drawn_from, sampling, row.request.prompt.ids, row.written)
        logprobs = {}
        wanted = [row.step.logprobs_for for row in rows]
        measured = [i for i, ids in enumerate(wanted) if ids is not None]
        if measured:
            totals = torch.logsumexp(logits[measured], dim=-1).tolist()
            for i, total in zip(measured, totals, strict=True):
                ids = [tokens[i], *(wanted[i] or ())]
                values = logits[i, ids].tolist()
                logprobs[i] = {t: v - total for t, v in zip(ids, values, strict=True)}
        return tokens, logprobs

    def _follow(self, row: Sequence, step: Step, finished: list[Completion[Guide]]) -> None:
        """Do what the guide asks: drop tokens, append tokens, or finish."""
        if row.apply(step):
            self._drop(row)
            request = row.request
            self._meter.answers.add(request.max_tokens, len(row.ids) - len(request.prompt.ids))
            finished.append(row.finished())

    def _drop(self, sequence: Sequence) -> None:
        """Give a row's place up: the last one moves there, so that all stay neighbours."""
        if sequence in self._parked:
            self._parked.remove(sequence)
            return
        at = self._active.index(sequence)
        last = self._active.pop()
        if last is not sequence:
            if self._cache is not None:  # there is none after an error in making it
                self._cache.move(len(self._active), at, last.past)
            self._active[at] = last

    # The model

    def _pass(self, first: int, counts: Seq[int]) -> Tensor:
        """Compute the next `counts` tokens of neighbouring rows.

        Returns:
            The last layer's output, [rows, tokens, width].

        Raises:
            OutOfMemoryError: of the GPU; nothing has changed then.
        """
        rows = self._active[first : first + len(counts)]
        width = max(counts)
        ids = [
            (row.ids[row.past : row.past + n] + [0] * width)[:width]
            for row, n in zip(rows, counts, strict=True)
        ]
        past = torch.tensor([row.past for row in rows], device=self._device)
        positions = past[:, None] + torch.arange(width, device=self._device)
        assert self._cache is not None
        longest = max(row.past for row in rows) + width
        if self._cache.cells < longest:
            self._cache.resize(self._cache.count, longest)
        with torch.no_grad():
            output = self._model.model(
                input_ids=torch.tensor(ids, device=self._device),
                attention_mask=self._cache.begin(first, positions),
                position_ids=positions,
                use_cache=True,
                **{self._cache_name: self._cache},
            )
        for row, n in zip(rows, counts, strict=True):
            if n == row.pending == 1:
                self._meter.wrote(row.past)
            else:
                self._meter.read(row.past, n)
            row.past += n
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _shrink(self) -> list[Completion[Guide]]:
        """Half the documents wait: what was free turned out to be less than was thought."""
        torch.cuda.empty_cache()
        if len(self._active) == 1:
            row = self._active.pop()
            reason = f"the GPU's memory is too small for its {len(row.ids)} tokens"
            return [Completion(row.request.key, row.request.guide(), failure=reason)]
        self._sequences = max(1, len(self._active) // 2)
        _log.warning(
            "the GPU's memory is full: %d documents together from here on", self._sequences
        )
        while self._active and (
            len(self._active) > self._sequences or self._active[-1].step is NOT_BEGUN
        ):
            self._park()
        if self._cache is not None:
            self._cache.resize(max(1, len(self._active)), self._cache.cells)
        return []


def _on_cpu(folder: Checkpoint, plan: Plan, why: str) -> Plan:
    """Return the plan for the CPU, where the GPU that was planned for cannot be used."""
    assert isinstance(plan.options, TorchOptions)
    _log.warning("%s: the model runs on the CPU", why)
    shape = ModelShape.from_config(folder.config, "BF16", folder.max_new_tokens)
    found = torch_plan(shape, replace(probe(), gpus=()), plan.options, plan.engine)
    return replace(found, alternatives=plan.alternatives)


def checked_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        InputError: there is none of that name here.
    """
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


def _check_architecture(folder: Checkpoint) -> None:
    kind = architecture_name(folder.config)
    if kind not in ("Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM"):
        raise ModelError(
            f"`{folder.path}`: the checkpoint's architecture is {kind}; Qwen3ForCausalLM (ERank), "
            "Qwen2ForCausalLM and LlamaForCausalLM can be run"
        )
    types = folder.config.get("layer_types") or []
    if folder.config.get("use_sliding_window") or any(t != "full_attention" for t in types):
        raise ModelError(
            f"`{folder.path}`: config.json asks for sliding windows, which ERank models do not have"
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
