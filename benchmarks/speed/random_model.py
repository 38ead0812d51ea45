"""Write a Qwen3 GGUF of random Q8_0 weights, for shapes of which there is no trained file.

python -m erank_lite.benchmarks.speed.random_model OUT.gguf --vocabulary 151936
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gguf import TokenType
from tokenizers import pre_tokenizers

from erank_lite.errors import InputError
from erank_lite.testing.tiny_models import Shape, write_gguf

_MIN_VOCABULARY = 512


def write_random(out: Path, vocabulary: int = 151936, layers: int = 12, width: int = 512) -> Path:
    """Write the model.

    Args:
        out: the file to make; one that is there is replaced.
        vocabulary: how many tokens, with the special ones.
        layers: how many.
        width: of the residual stream, in numbers; a multiple of 128.

    Raises:
        InputError: a number is out of range, or the file cannot be written.
    """
    if vocabulary < _MIN_VOCABULARY or layers < 1 or width < 128 or width % 128:
        raise InputError(
            f"a model needs at least {_MIN_VOCABULARY} tokens, a layer, and a width that is a "
            "multiple of 128"
        )
    try:
        _write(out, vocabulary, layers, width)
    except OSError as error:
        raise InputError(f"`{out}` cannot be written: {error.strerror}") from None
    return out


def _write(out: Path, vocabulary: int, layers: int, width: int) -> None:
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += [f"w{i}" for i in range(vocabulary - len(tokens) - 2)]
    tokens += ["<|im_end|>", "<|im_start|>"]
    write_gguf(
        out,
        tokens,
        [TokenType.NORMAL] * (vocabulary - 2) + [TokenType.CONTROL] * 2,
        ["w 1"],
        shape=Shape(layers, width, 3 * width, width // 64, width // 128, 128, 32768),
        pre="qwen2",
        template="{% for m in messages %}{{ m.content }}{% endfor %}",
        quant_type="Q8_0",
    )


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.speed.random_model",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    try:
        write_random(options.out, options.vocabulary, options.layers, options.width)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
