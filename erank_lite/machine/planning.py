"""How a model is to run on a machine: a pure function from facts and wishes to a plan.

Nothing is looked up and nothing is loaded here: the same facts give the same plan on any machine.

What is preferred, and why:

1. All layers on the GPUs, with room for at least `_MIN_SEQUENCES` documents. ERank writes some 400 tokens
   a document, one after the other, and each reads every weight: the pace is that of the memory, of
   which a GPU's is about ten times a processor's.
2. As many layers as fit. The processor computes the others at every token, so that the pace falls
   quickly with the first that are left out; below `_MIN_LAYER_SHARE` of them it is the processor's own
   within a factor of two, and all stays there unless its memory alone is too small.
3. The processor.

Sizes are those that llama.cpp reserves: each document decoded has cells of its own, for its prompt
and all that it may write. Of the buffers that it computes in, the size is fitted to what llama.cpp
0.3.36 of llama-cpp-python reports for five Qwen3 shapes (tests/test_planning.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from erank_lite.errors import InputError, ModelError
from erank_lite.families.erank.score import MAX_NEW_TOKENS
from erank_lite.machine.hardware import Gpu, Hardware
from erank_lite.models.gguf import GGUFFile

KV_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32,
}  # fmt: skip
"""Bytes of a number in the cache of keys and values, by the cache's type."""

MICRO_BATCH = 512
CELL_STEP = 256  # llama.cpp pads a sequence's cells to this

# Documents decoded together: on a processor, more rows stop paying about here; a GPU has room for
# more before its memory is what limits.
MAX_SEQUENCES_CPU, MAX_SEQUENCES_GPU = 16, 64
_MIN_SEQUENCES = 2
_MAX_LAYERS = 1_024  # more than any model has: a damaged header may name any number
_MIN_LAYER_SHARE = 0.5
# Of what is free, for keys and values: other programs go on, and want memory at times.
CACHE_SHARE = 0.6
_PER_GPU = 400 << 20  # what the driver's own context takes of each
_BESIDE = 28 << 20  # llama.cpp's graphs, and what reads its results (tests/test_memory.py)
_TIGHT = 0.85  # of what is free on the GPUs
WRITTEN = 512  # tokens of a usual answer, where memory grows as it is written
USUAL_PROMPT = 1_024  # tokens of a usual document with its query, to tell how many fit


_VOCABULARY = 151_936
_OUTPUT_BYTES = {"BF16": 2.0, "Q8_0": 34 / 32}


@dataclass(frozen=True)
class _Checkpoint:
    layers: int
    width: int
    inner_width: int
    heads: int
    tied: bool
    """The embeddings are the output too."""
    sizes: dict[str, int]
    vocabulary: int = _VOCABULARY


PUBLISHED = {
    "ERank-4B": _Checkpoint(36, 2560, 9728, 32, True, {
        "BF16": 8_045_352_416, "Q8_0": 4_274_457_150, "Q6_K": 3_300_319_560,
        "Q5_K_M": 2_883_563_029, "Q4_K_M": 2_491_332_690,
    }),
    "ERank-14B": _Checkpoint(40, 5120, 17408, 40, False, {
        "BF16": 29_537_491_008, "Q8_0": 15_692_589_958, "Q6_K": 12_115_991_593,
        "Q5_K_M": 10_508_618_957, "Q4_K_M": 8_995_806_905,
    }),
    "ERank-32B": _Checkpoint(64, 5120, 25600, 64, False, {
        "BF16": 65_525_642_592, "Q8_0": 34_811_758_511, "Q6_K": 26_877_341_205,
        "Q5_K_M": 23_208_866_612, "Q4_K_M": 19_756_188_959,
    }),
}  # fmt: skip
"""The checkpoints of Alibaba-NLP, and the bytes of their tensors by type."""

WEIGHT_BYTES = {"BF16": 2.0, "Q8_0": 1.063, "Q6_K": 0.820, "Q5_K_M": 0.712, "Q4_K_M": 0.609}
"""Bytes of a weight where only the configuration is known: those of ERank-14B's files."""


@dataclass(frozen=True)
class ModelShape:
    """What a GGUF file asks of a machine. Sizes in bytes.

    Attributes:
        layer_sizes: of each layer's weights, from the first.
        output_size: of the last matrix, which gives the logits.
        tied: it is the embeddings' matrix too, of which a GPU gets a copy.
        size: of all weights; what is neither a layer nor the output stays with the processor.
        cache_size: of the keys and values of one token, in 16-bit floats.
        width: of the residual stream.
        inner_width: of the feed-forward part.
        heads: of attention.
        head_size: numbers in each.
        vocabulary: tokens.
        context_length: the most tokens that the model was trained for.
        max_new_tokens: the most that it may write.
    """

    layer_sizes: tuple[int, ...]
    output_size: int
    tied: bool
    size: int
    cache_size: int
    width: int
    inner_width: int
    heads: int
    head_size: int
    vocabulary: int
    context_length: int
    max_new_tokens: int

    @classmethod
    def of(cls, gguf: GGUFFile, max_new_tokens: int) -> ModelShape:
        """Return the facts of a file whose header has been read."""
        found: dict[str, int] = {}
        named: dict[str, int] = {}
        for tensor in gguf.tensors:
            part = tensor.name.split(".")
            group, key = (found, part[1]) if part[0] == "blk" and part[1:] else (named, part[0])
            group[key] = group.get(key, 0) + tensor.size
        # Of a file in several parts, the first names few layers: the others are taken to be alike.
        usual = sum(found.values()) // max(1, len(found))
        layers = min(max(1, len(found), _largest(gguf.hparam("block_count", 0))), _MAX_LAYERS)
        sizes = tuple(found.get(str(i), usual) for i in range(layers))
        embedding = next((t for t in gguf.tensors if t.name == "token_embd.weight"), None)
        heads = max(1, _largest(gguf.hparam("attention.head_count", 1)))
        width = _largest(gguf.hparam("embedding_length", 0))
        return cls(
            layer_sizes=sizes,
            output_size=named.get("output", named.get("token_embd", 0)),
            tied="output" not in named,
            size=sum(sizes) + sum(named.values()),
            cache_size=gguf.cache_bytes_per_token,
            width=width,
            inner_width=_largest(gguf.hparam("feed_forward_length", 0)),
            heads=heads,
            head_size=_largest(gguf.hparam("attention.key_length", width // heads)),
            vocabulary=max(embedding.shape, default=0) if embedding is not None else 0,
            context_length=_largest(gguf.hparam("context_length", 0)) or 32_768,
            max_new_tokens=max_new_tokens,
        )

    @classmethod
    def published(cls, name: str, kind: str) -> ModelShape:
        """Return the facts of an ERank checkpoint, one of `PUBLISHED`, as a GGUF of type `kind`.

        Sizes are those that llama.cpp 0.3.36's quantizer names for tensors of these shapes.
        """
        return cls._expected(PUBLISHED[name], kind, 8 * 128, 128, 40_960, MAX_NEW_TOKENS)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], kind: str, max_new_tokens: int) -> ModelShape:
        """Return what is to be expected of a checkpoint, by its config.json, as a GGUF.

        Raises:
            ModelError: a number is missing.
        """
        names = (
            "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
            "num_key_value_heads", "vocab_size", "max_position_embeddings",
        )  # fmt: skip
        found = [config.get(name) for name in names]
        for name, value in zip(names, found, strict=True):
            if type(value) is not int or value < 1:
                raise ModelError(f"config.json: {name} must be a positive integer, not {value!r}")
        layers, width, inner, heads, kv_heads, vocabulary, context = map(_largest, found)
        head = _largest(config.get("head_dim")) or width // heads
        tied = config.get("tie_word_embeddings") is not False
        layer = width * head * (2 * heads + 2 * kv_heads) + 3 * width * inner
        weights = min(layers, _MAX_LAYERS) * layer + (1 if tied else 2) * vocabulary * width
        sizes = {name: int(weights * each) for name, each in WEIGHT_BYTES.items()}
        checkpoint = _Checkpoint(layers, width, inner, heads, tied, sizes, vocabulary)
        return cls._expected(checkpoint, kind, kv_heads * head, head, context, max_new_tokens)

    @classmethod
    def _expected(
        cls, checkpoint: _Checkpoint, kind: str, kv_width: int, head: int, context: int, most: int
    ) -> ModelShape:
        size = checkpoint.sizes[kind]
        # K-quants keep the output as Q6_K, and embeddings apart from it in the main type; that the
        # latter are taken for as large makes layers 1 % smaller than they are.
        each = _OUTPUT_BYTES.get(kind, 210 / 256)
        output = int(checkpoint.vocabulary * checkpoint.width * each)
        matrices = 1 if checkpoint.tied else 2
        return cls(
            layer_sizes=((size - matrices * output) // checkpoint.layers,) * checkpoint.layers,
            output_size=output,
            tied=checkpoint.tied,
            size=size,
            cache_size=checkpoint.layers * 2 * 2 * kv_width,
            width=checkpoint.width,
            inner_width=checkpoint.inner_width,
            heads=checkpoint.heads,
            head_size=head,
            vocabulary=checkpoint.vocabulary,
            context_length=context,
            max_new_tokens=most,
        )

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.layer_sizes)

    @property
    def document_cells(self) -> int:
        """Cells that a usual document with its query and its answer takes."""
        usual = min(USUAL_PROMPT + self.max_new_tokens, self.context_length)
        return max(1, -(-usual // CELL_STEP)) * CELL_STEP

    def cell_size(self, kv_type: str) -> int:
        """Return the bytes of the keys and values of one token."""
        return max(1, int(self.cache_size * KV_BYTES[kv_type] / 2))

    def on_gpu(self, layers: int) -> int:
        """Return the bytes of so many layers: llama.cpp takes the output first, then the last."""
        return self.output_size + sum(self.layer_sizes[self.layers + 1 - layers :]) if layers else 0

    def on_cpu(self, layers: int) -> int:
        """Return the bytes of weights that stay with the processor when so many layers do not."""
        return self.size - self.on_gpu(layers) + (self.output_size if self.tied and layers else 0)

    def cache_share(self, layers: int) -> float:
        """Return the share of keys and values that lies on the GPU with so many layers there."""
        return max(0, layers - 1) / self.layers

    def buffer_size(
        self, sequences: int, cells: int, micro_batch: int, flash_attention: bool
    ) -> int:
        """Return the bytes that llama.cpp computes in, the logits it hands out included."""
        rows = 4 * micro_batch
        kv_width = self.cache_size // (4 * self.layers)
        if flash_attention:
            layer = rows * (3 * self.inner_width + 4 * self.width) + 2 * micro_batch * cells
        else:
            scores = (self.heads + 1) * cells
            inner = self.width + self.inner_width + self.heads * self.head_size + 3 * kv_width
            layer = rows * (scores + inner)
        logits = 4 * sequences * self.vocabulary
        return max(layer, logits) + logits


def _largest(value: object) -> int:
    """Return a number of the metadata, or the largest where each layer has its own."""
    numbers = value if isinstance(value, list) else [value]
    return max((n for n in numbers if isinstance(n, int)), default=0)


@dataclass(frozen=True)
class Overrides:
    """What the user asked for; None leaves it to the plan."""

    gpu_layers: int | None = None
    sequences: int | None = None
    kv_type: str = "f16"
    flash_attention: bool | None = None
    micro_batch: int = MICRO_BATCH
    threads: int | None = None
    tensor_split: tuple[float, ...] | None = None
    """The share of each GPU."""
    cache: int | None = None
    """Bytes for keys and values."""


@dataclass(frozen=True)
class Plan:
    """How the model runs. Sizes in bytes.

    Attributes:
        gpu_layers: layers on the GPUs, the output counted as one and the first to go there; all
            are layers + 1.
        sequences: the most documents decoded together.
        documents: of usual length, how many of these fit at once.
        cache: for the keys and values of all of them.
        flash_attention: use it; None leaves it to llama.cpp.
        threads: of the processor.
        gpu_memory: expected on the GPUs, with usual documents.
        memory: expected in the processor's memory, the weights mapped from the file included.
        fits: whether the memory is there.
        tight: it takes most of what is free on the GPUs, of which an estimate is no proof.
        reasons: why, a line each.
    """

    gpu_layers: int
    sequences: int
    documents: int
    cache: int
    flash_attention: bool | None
    threads: int
    gpu_memory: int
    memory: int
    fits: bool
    reasons: tuple[str, ...]
    tight: bool = False


def plan(model: ModelShape, machine: Hardware, wishes: Overrides) -> Plan:
    """Decide how `model` runs on `machine`.

    Raises:
        InputError: a wish cannot be kept.
    """
    reasons: list[str] = []
    layers = _layers(model, machine, wishes, reasons)
    share = model.cache_share(layers)
    on_gpu = model.on_gpu(layers)
    cells = model.document_cells
    document = cells * model.cell_size(wishes.kv_type)
    flash = wishes.flash_attention
    if flash is None and not layers and wishes.kv_type in ("f32", "f16", "bf16"):
        # On a processor it sums values in 16 bits, which makes results depend several times as
        # much on what is computed together (benchmarks/speed/noise.py).
        flash = False
    most = wishes.sequences or (MAX_SEQUENCES_GPU if layers else MAX_SEQUENCES_CPU)
    buffers = model.buffer_size(most, cells, wishes.micro_batch, flash is not False)

    # What is left once the weights are there: keys and values lie where their layers are.
    gpus, gpu_free = _gpus(machine, wishes)
    shared = any(g.shared for g in gpus)
    # Weights mapped from the file count as free until they are read.
    ram_free = machine.memory_free - model.on_cpu(layers) - (0 if layers else buffers)
    rooms = []
    if share:
        room = gpu_free - on_gpu - len(gpus) * (_PER_GPU + buffers)
        room -= model.on_cpu(layers) if shared else 0
        rooms.append(max(0, room) * CACHE_SHARE / share)
    if share < 1:
        rooms.append(max(0, ram_free) * CACHE_SHARE / (1 - share))
    cache = wishes.cache or max(1, int(min(rooms)))
    fitting = max(1, min(most, cache // document))
    used = fitting * document
    gpu_memory = 0
    if layers:
        gpu_memory = on_gpu + int(used * share) + len(gpus) * (_PER_GPU + buffers)
    memory = model.on_cpu(layers) + int(used * (1 - share)) + (0 if layers else buffers)
    memory += _BESIDE
    together = memory + (gpu_memory if shared else 0)
    fits = together <= machine.memory_free and gpu_memory <= gpu_free
    reasons.append(
        f"{fitting} documents of {cells:,} tokens together: {gib(document)} each for keys and "
        f"values ({wishes.kv_type})"
    )
    if not fits:
        reasons.append(
            f"it does not fit: it takes {gib(together)} of memory, {gib(machine.memory_free)} is "
            "free" + f"; {gib(gpu_memory)} of the GPU, {gib(gpu_free)} is free" * bool(layers)
        )
    threads = wishes.threads or machine.cores
    return Plan(
        layers, most, fitting, cache, flash, threads, gpu_memory, memory, fits, tuple(reasons),
        tight=gpu_memory > _TIGHT * gpu_free,
    )  # fmt: skip


def _layers(model: ModelShape, machine: Hardware, wishes: Overrides, reasons: list[str]) -> int:
    """Return how many layers go to the GPUs, the output counted as one."""
    everything = model.layers + 1
    gpus, free = _gpus(machine, wishes)
    names = ", ".join(g.name for g in machine.gpus)
    if wishes.gpu_layers is not None:
        asked = everything if wishes.gpu_layers < 0 else min(wishes.gpu_layers, everything)
        if asked and not machine.gpus:
            raise InputError(f"{wishes.gpu_layers} layers were asked for on the GPU: there is none")
        reasons.append(f"{asked} of {everything} layers on the GPU, as asked for")
        return asked
    if not machine.gpus:
        reasons.append("on the processor: there is no GPU that llama.cpp can use here")
        return 0
    document = model.document_cells * model.cell_size(wishes.kv_type)
    buffers = model.buffer_size(
        _MIN_SEQUENCES,
        model.document_cells,
        wishes.micro_batch,
        wishes.flash_attention is not False,
    )
    room = free - len(gpus) * (_PER_GPU + buffers)

    def needed(layers: int) -> float:
        cache = _MIN_SEQUENCES * document * model.cache_share(layers)
        return model.on_gpu(layers) + cache / CACHE_SHARE

    fitting = next((n for n in range(everything, 0, -1) if needed(n) <= room), 0)
    if fitting == everything:
        reasons.append(f"all layers on {names}: {gib(model.on_gpu(fitting))} of weights")
    elif fitting >= _MIN_LAYER_SHARE * model.layers or (
        fitting > 1 and model.on_cpu(0) + document + buffers > machine.memory_free
    ):
        reasons.append(
            f"{fitting} of {everything} layers on {names}: it has {gib(free)} free, all would "
            f"take {gib(int(needed(everything)) + free - room)}"
        )
    else:
        reasons.append(
            f"on the processor: {names} has {gib(free)} free, room for {fitting} of {everything} "
            "layers, which is too few to be faster"
        )
        fitting = 0
    return fitting


def _gpus(machine: Hardware, wishes: Overrides) -> tuple[tuple[Gpu, ...], int]:
    """Return the GPUs that take part, and the bytes that are free on them for what is split so."""
    # A driver that does not know its memory names none: then it is the processor's.
    gpus = tuple(g if g.total else replace(g, shared=True) for g in machine.gpus)
    most = machine.memory_free
    free = [min(g.free if g.total else most, most) if g.shared else g.free for g in gpus]
    shares = wishes.tensor_split
    if not shares or not any(shares[: len(gpus)]):
        return gpus, sum(free)
    taking = [(g, f, s) for g, f, s in zip(gpus, free, shares, strict=False) if s > 0]
    # All is full where the first of them is.
    whole = min(f / s for _, f, s in taking) * sum(s for _, _, s in taking)
    return tuple(g for g, _, _ in taking), int(whole)


def gib(size: int) -> str:
    """Return a number of bytes of memory as it is told to people."""
    return f"{size / 2**30:.1f} GiB"
