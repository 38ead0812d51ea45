"""Write a checkpoint of an ERank model's shape with random BF16 weights, in shards.

What a conversion costs depends on shapes and sizes, not on what was learnt.

    python benchmarks/convert/random_checkpoint.py FOLDER --shape 4B --tokenizer QWEN3_FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from erank_lite.testing.tiny_models import (
    ERANK,
    Shape,
    checkpoint_config,
    checkpoint_shapes,
    write_shards,
)

SHAPES = ERANK | {"tiny": Shape(2, 256, 768, 4, 2, 64, 40960)}
TIED = ("4B", "tiny")
VOCABULARY = 151936
SHARD = 5_000_000_000  # bytes, as Transformers cuts them
_BLOCK = 32 << 20  # numbers that are drawn once, and used again from other offsets


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="4B")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder of Qwen3's tokenizer.json"
    )
    parser.add_argument(
        "--sparse", action="store_true", help="leave the weights out: zeros that take no room"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(arguments.tokenizer / file, folder / file)
    shape, tied = SHAPES[arguments.shape], arguments.shape in TIED
    ids = {"bos_token_id": 151643, "eos_token_id": 151645}
    config = checkpoint_config(shape, VOCABULARY, tied=tied, **ids)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generation = {"eos_token_id": 151643, "max_new_tokens": 2048}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, tensor in checkpoint_shapes(shape, VOCABULARY, tied=tied).items():
        length = 2 * int(np.prod(tensor))
        if size + length > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += length
    write_shards(folder, shards, "BF16", None if arguments.sparse else RandomBF16())


class RandomBF16:
    """Draws a block of numbers once, of which tensors are made."""

    def __init__(self) -> None:
        self._draw = np.random.default_rng(0)
        floats = self._draw.standard_normal(_BLOCK, np.float32) * np.float32(0.02)
        self._block = (floats.view(np.uint32) >> 16).astype(np.uint16)

    def __call__(self, name: str, shape: tuple[int, ...]) -> Iterator[Any]:
        left = int(np.prod(shape))
        while left:
            start = int(self._draw.integers(self._block.size // 2))
            piece = self._block[start : start + left]
            yield piece.data
            left -= piece.size


if __name__ == "__main__":
    main()
