"""Write a checkpoint of an ERank model's shape with random BF16 weights, in shards.

What a conversion costs depends on shapes and sizes, not on what was learnt.

    python benchmarks/convert/random_checkpoint.py FOLDER --shape 4B --tokenizer QWEN3_FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

# layers, hidden, FFN, heads, key-value heads, head width, tied
SHAPES = {
    "4B": (36, 2560, 9728, 32, 8, 128, True),
    "14B": (40, 5120, 17408, 40, 8, 128, False),
    "32B": (64, 5120, 25600, 64, 8, 128, False),
    "tiny": (2, 256, 768, 4, 2, 64, True),
}
VOCABULARY = 151936
SHARD = 5_000_000_000  # bytes, as Transformers cuts them
_BLOCK = 32 << 20  # numbers that are drawn once and used again from other places


def tensor_shapes(shape: str) -> dict[str, tuple[int, ...]]:
    """Return name → shape of a Qwen3 model."""
    layers, hidden, ffn, heads, kv_heads, head, tied = SHAPES[shape]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}input_layernorm.weight": (hidden,),
            f"{layer}mlp.down_proj.weight": (hidden, ffn),
            f"{layer}mlp.gate_proj.weight": (ffn, hidden),
            f"{layer}mlp.up_proj.weight": (ffn, hidden),
            f"{layer}post_attention_layernorm.weight": (hidden,),
            f"{layer}self_attn.k_norm.weight": (head,),
            f"{layer}self_attn.k_proj.weight": (kv_heads * head, hidden),
            f"{layer}self_attn.o_proj.weight": (hidden, heads * head),
            f"{layer}self_attn.q_norm.weight": (head,),
            f"{layer}self_attn.q_proj.weight": (heads * head, hidden),
            f"{layer}self_attn.v_proj.weight": (kv_heads * head, hidden),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, hidden)
    return shapes


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
    layers, hidden, ffn, heads, kv_heads, head, tied = SHAPES[arguments.shape]
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": head,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "max_position_embeddings": 40960,
        "model_type": "qwen3",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    generation = {"eos_token_id": 151643, "max_new_tokens": 2048}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in tensor_shapes(arguments.shape).items():
        length = 2 * int(np.prod(shape))
        if size + length > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += length
    draw = np.random.default_rng(0)
    floats = draw.standard_normal(_BLOCK, np.float32) * np.float32(0.02)
    block = (floats.view(np.uint32) >> 16).astype(np.uint16)
    index = {}
    for i, shapes in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        index |= dict.fromkeys(shapes, file)
        _write(folder / file, shapes, None if arguments.sparse else block, draw)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def _write(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    block: np.ndarray | None,
    draw: np.random.Generator,
) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        length = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if block is None:
            file.truncate(8 + len(text) + at)
            return
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left:
                start = int(draw.integers(block.size // 2))
                piece = block[start : start + left]
                file.write(piece.data)
                left -= piece.size


if __name__ == "__main__":
    main()
