"""What a model asks of a machine: its layers, their sizes, and what computing them takes.

Sizes of an ERank checkpoint are known without its files; those of another are computed from its
config.json, or read from the header of a GGUF file (`GGUFFile.shape`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from erank_lite.errors import ModelError

MAX_NEW_TOKENS = 4096
"""The published limit of a completion, for a checkpoint that names none."""

DEFAULT_CONTEXT_LENGTH = 32_768  # of a model that does not say what it was trained for

KV_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32,
}  # fmt: skip
"""Bytes of a number in the cache of keys and values, by the cache's type."""

CELL_STEP = 256  # llama.cpp pads a sequence's cells to this
USUAL_PROMPT = 1_024  # tokens of a usual document with its query, to tell how many fit
USUAL_ANSWER = 512
"""Tokens that are expected of an answer before a model has written any."""
# More than any model has: a damaged file may name any number.
MAX_LAYERS, MAX_SIZE = 1_000, 2**31 - 1

_VOCABULARY = 151_936
_OUTPUT_BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 34 / 32}


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

WEIGHT_BYTES = {
    "F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 1.063, "Q6_K": 0.820, "Q5_K_M": 0.712,
    "Q5_K_S": 0.695, "Q5_1": 0.754, "Q5_0": 0.695, "Q4_K_M": 0.609, "Q4_K_S": 0.580, "Q4_1": 0.635,
    "Q4_0": 0.576, "IQ4_NL": 0.582, "IQ4_XS": 0.554, "Q3_K_L": 0.535, "Q3_K_M": 0.495,
    "Q3_K_S": 0.450, "IQ3_M": 0.466, "IQ3_S": 0.452, "Q2_K": 0.389, "IQ3_XS": 0.431,
    "IQ3_XXS": 0.402, "Q2_K_S": 0.365, "IQ2_M": 0.360, "IQ2_S": 0.336, "IQ2_XS": 0.317,
    "IQ2_XXS": 0.291, "IQ1_M": 0.260, "IQ1_S": 0.242,
}  # fmt: skip
"""Bytes of a weight, by type, where only the configuration is known: those of ERank-14B's files, as
llama.cpp 0.3.36's quantizer names them."""


@dataclass(frozen=True)
class ModelShape:
    """What a model of one quantization type asks of a machine. Sizes in bytes.

    Attributes:
        layer_sizes: of each layer's weights, from the first.
        output_size: of the last matrix, which gives the logits.
        tied: it is the embeddings' matrix too, of which a GPU gets a copy.
        size: of all weights; what is neither a layer nor the output stays with the CPU.
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
    def published(cls, name: str, quant_type: str) -> ModelShape:
        """Return the shape of an ERank checkpoint, one of `PUBLISHED`, as a GGUF of that type.

        Sizes are those that llama.cpp 0.3.36's quantizer names for tensors of these shapes.
        """
        return cls._expected(PUBLISHED[name], quant_type, 8 * 128, 128, 40_960, MAX_NEW_TOKENS)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], quant_type: str, max_new_tokens: int | None = None
    ) -> ModelShape:
        """Return what is to be expected of a checkpoint, by its config.json, as a GGUF.

        Raises:
            ModelError: a number is missing or out of range.
        """
        names = (
            "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
            "num_key_value_heads", "vocab_size", "max_position_embeddings",
        )  # fmt: skip
        values: dict[str, Any] = {name: config.get(name) for name in names}
        if config.get("head_dim") is not None:
            values["head_dim"] = config["head_dim"]
        for name, value in values.items():
            limit = MAX_LAYERS if name == "num_hidden_layers" else MAX_SIZE
            if type(value) is not int or not 1 <= value <= limit:
                raise ModelError(
                    f"config.json: {name} must be an integer from 1 to {limit}, not {value!r:.40}"
                )
        layers, width, inner, heads, kv_heads, vocabulary, context = (
            values[name] for name in names
        )
        head = values.get("head_dim") or width // heads
        tied = config.get("tie_word_embeddings") is not False
        layer = width * head * (2 * heads + 2 * kv_heads) + 3 * width * inner
        weights = layers * layer + (1 if tied else 2) * vocabulary * width
        sizes = {"BF16": int(weights * WEIGHT_BYTES["BF16"])}
        checkpoint = _Checkpoint(layers, width, inner, heads, tied, sizes, vocabulary)
        longest = max_new_tokens or MAX_NEW_TOKENS
        return cls._expected(checkpoint, quant_type, kv_heads * head, head, context, longest)

    @classmethod
    def _expected(
        cls,
        checkpoint: _Checkpoint,
        quant_type: str,
        kv_width: int,
        head: int,
        context: int,
        max_new_tokens: int,
    ) -> ModelShape:
        weights = checkpoint.sizes["BF16"] / WEIGHT_BYTES["BF16"]
        size = checkpoint.sizes.get(quant_type) or int(weights * WEIGHT_BYTES[quant_type])
        # K-quants keep the output as Q6_K, and embeddings apart from it in the main type; that the
        # latter are taken for as large makes layers 1 % smaller than they are.
        each = _OUTPUT_BYTES.get(quant_type, 210 / 256)
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
            max_new_tokens=max_new_tokens,
        )

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.layer_sizes)

    @property
    def kv_width(self) -> int:
        """Numbers in a token's keys, and in its values, of one layer."""
        return self.cache_size // (4 * self.layers)

    @property
    def layer_weights(self) -> int:
        """Numbers that every token is multiplied by: those of the layers."""
        attention = 2 * self.width * (self.heads * self.head_size + self.kv_width)
        return self.layers * (attention + 3 * self.width * self.inner_width)

    @property
    def output_weights(self) -> int:
        """Numbers that a token is multiplied by to give the next one's logits."""
        return self.vocabulary * self.width

    @property
    def passed_by(self) -> int:
        """Bytes of weights that are read for each token that is written."""
        return sum(self.layer_sizes) + self.output_size

    @property
    def document_cells(self) -> int:
        """Cells that a usual document with its query and its answer takes."""
        usual = min(USUAL_PROMPT + min(USUAL_ANSWER, self.max_new_tokens), self.context_length)
        return max(1, -(-usual // CELL_STEP)) * CELL_STEP

    def cell_size(self, kv_type: str) -> int:
        """Return the bytes of the keys and values of one token."""
        return max(1, int(self.cache_size * KV_BYTES[kv_type] / 2))

    def on_gpu(self, layers: int) -> int:
        """Return the bytes of so many layers: llama.cpp takes the output first, then the last."""
        return self.output_size + sum(self.layer_sizes[self.layers + 1 - layers :]) if layers else 0

    def on_cpu(self, layers: int) -> int:
        """Return the bytes of weights that stay with the CPU when so many layers do not."""
        return self.size - self.on_gpu(layers) + (self.output_size if self.tied and layers else 0)

    def cache_share(self, layers: int) -> float:
        """Return the share of keys and values that lies on the GPU with so many layers there."""
        return max(0, layers - 1) / self.layers

    def buffer_size(
        self, sequences: int, cells: int, micro_batch: int, flash_attention: bool
    ) -> int:
        """Return the bytes that llama.cpp computes in, the logits it hands out included."""
        rows = 4 * micro_batch
        if flash_attention:
            layer = rows * (3 * self.inner_width + 4 * self.width) + 2 * micro_batch * cells
        else:
            scores = (self.heads + 1) * cells
            inner = self.width + self.inner_width + self.heads * self.head_size + 3 * self.kv_width
            layer = rows * (scores + inner)
        logits = 4 * sequences * self.vocabulary
        return max(layer, logits) + logits


def largest(value: object) -> int:
    """Return a number of a model's metadata, or the largest where each layer has its own."""
    numbers = value if isinstance(value, list) else [value]
    return max((n for n in numbers if isinstance(n, int)), default=0)


Format = Literal["gguf", "bundled", "checkpoint", "gptq", "server"]
"""What a name stands for: a GGUF file, the bundled model (a checkpoint with a default type), a
checkpoint that is not quantized, a GPTQ checkpoint, or a server."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, known without its weights.

    Attributes:
        format: how it is to be had.
        type: the quantization type that its name asks for, or None.
        shape: what it asks of a machine, by quantization type ("BF16" for what it is itself); None
            where that is not known before the file is here.
    """

    format: Format
    type: str | None = None
    shape: Callable[[str], ModelShape] | None = None
