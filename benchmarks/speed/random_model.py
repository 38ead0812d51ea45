"""Write a Qwen3 GGUF of random weights, for shapes of which there is no trained file.

    python -m erank_lite.benchmarks.speed.random_model OUT.gguf --shape 4B --type Q4_K_M

All layers are copies of one: what it computes means nothing, what it costs is that of its shape.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, TokenType
from tokenizers import pre_tokenizers

from erank_lite.convert.gguf.tensors import quantized
from erank_lite.errors import InputError
from erank_lite.testing.tiny_models import ERANK, Shape, write_gguf

TYPES = ("Q8_0", "Q4_K_M")
_MIN_VOCABULARY = 512
_TILE = 1 << 22  # numbers that are drawn; a matrix repeats them


def write_random(
    out: Path, vocabulary: int = 151936, shape: str | Shape = "4B", quant_type: str = "Q8_0"
) -> Path:
    """Write the model.

    Args:
        out: the file to make; one that is there is replaced.
        vocabulary: how many tokens, with the special ones.
        shape: "4B", "14B" or "32B", as ERank has them, or another.
        quant_type: "Q8_0", or "Q4_K_M" in the mixture that llama.cpp makes.

    Raises:
        InputError: a value is out of range, or the file cannot be written.
    """
    found = ERANK.get(shape) if isinstance(shape, str) else shape
    if found is None:
        raise InputError(f"there is no shape {shape!r}", f"shapes are {', '.join(ERANK)}")
    if quant_type not in TYPES:
        raise InputError(f"there is no type {quant_type!r} here", f"types are {', '.join(TYPES)}")
    if vocabulary < _MIN_VOCABULARY:
        raise InputError(f"a model needs at least {_MIN_VOCABULARY} tokens")
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += [f"w{i}" for i in range(vocabulary - len(tokens) - 2)]
    tokens += ["<|im_end|>", "<|im_start|>"]
    try:
        write_gguf(
            out,
            tokens,
            [TokenType.NORMAL] * (vocabulary - 2) + [TokenType.CONTROL] * 2,
            ["w 1"],
            shape=found,
            pre="qwen2",
            template="{% for m in messages %}{{ m.content }}{% endfor %}",
            matrix=functools.partial(_matrix, _types(found.layers, quant_type)),
        )
    except OSError as error:
        raise InputError(f"`{out}` cannot be written: {error.strerror}") from None
    return out


def _types(layers: int, quant_type: str) -> dict[str, GGMLQuantizationType]:
    """Return the types of tensors that are not the first: llama.cpp's mixture for Q4_K_M."""
    if quant_type == "Q8_0":
        return {"": GGMLQuantizationType.Q8_0}
    eighth = layers // 8
    more = [
        i for i in range(layers)
        if i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2
    ]  # fmt: skip
    larger = [f"blk.{i}.{name}.weight" for i in more for name in ("attn_v", "ffn_down")]
    q6 = dict.fromkeys(["token_embd.weight", *larger], GGMLQuantizationType.Q6_K)
    return {"": GGMLQuantizationType.Q4_K} | q6


def _matrix(
    types: dict[str, GGMLQuantizationType], name: str, rows: int, columns: int
) -> tuple[npt.NDArray[Any], int]:
    kind = types.get(name, types[""])
    return _random(rows, columns, kind), kind


@functools.lru_cache(maxsize=16)
def _random(rows: int, columns: int, kind: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Return a matrix of random numbers, the same each time: [rows, bytes of a row]."""
    step = max(1, min(rows, _TILE // columns))
    values = np.random.default_rng(0).standard_normal((step, columns), np.float32)
    tile = quantized(values / np.float32(np.sqrt(columns)), kind).reshape(step, -1)
    return np.tile(tile, (-(-rows // step), 1))[:rows]


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.speed.random_model",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--shape", default="4B", help=", ".join(ERANK))
    parser.add_argument("--type", default="Q8_0", help=" or ".join(TYPES))
    options = parser.parse_args()
    try:
        write_random(options.out, options.vocabulary, options.shape, options.type)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
