"""Write a Qwen3 GGUF of random Q8_0 weights, for shapes of which no trained file is at hand.

python -m erank_lite.benchmarks.speed.random_model OUT.gguf --vocabulary 151936
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from erank_lite.errors import InputError

_LEAST = 512


def write_random(out: Path, vocabulary: int = 151936, layers: int = 12, width: int = 512) -> Path:
    """Write the model.

    Args:
        out: the file to make; one that is there is replaced.
        vocabulary: tokens, the special ones among them.
        layers: how many.
        width: of the residual stream, in numbers; a multiple of 128.

    Raises:
        InputError: a number cannot be, or the file cannot be written.
    """
    if vocabulary < _LEAST or layers < 1 or width < 128 or width % 128:
        raise InputError(
            f"a model wants at least {_LEAST} tokens, a layer and a width that is a multiple of 128"
        )
    try:
        _write(out, vocabulary, layers, width)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None
    return out


def _write(out: Path, vocabulary: int, layers: int, width: int) -> None:
    heads, kv_heads, head = width // 64, width // 128, 128
    writer = gguf.GGUFWriter(out, "qwen3")
    writer.add_block_count(layers)
    writer.add_context_length(32768)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(3 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    texts = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts += [f"w{i}" for i in range(vocabulary - len(texts) - 2)]
    texts += ["<|im_end|>", "<|im_start|>"]
    writer.add_token_list(texts)
    writer.add_token_types([1] * (len(texts) - 2) + [3, 3])
    writer.add_token_merges(["a b"] if "ab" in texts else ["w 1"])
    writer.add_eos_token_id(len(texts) - 2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    draw = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType.Q8_0

    def add(name: str, *shape: int) -> None:
        values = draw.standard_normal(shape, np.float32) / np.sqrt(shape[-1])
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(texts), width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for i in range(layers):
        block = f"blk.{i}."
        add(f"{block}attn_q.weight", heads * head, width)
        add(f"{block}attn_k.weight", kv_heads * head, width)
        add(f"{block}attn_v.weight", kv_heads * head, width)
        add(f"{block}attn_output.weight", width, heads * head)
        add(f"{block}ffn_gate.weight", 3 * width, width)
        add(f"{block}ffn_up.weight", 3 * width, width)
        add(f"{block}ffn_down.weight", width, 3 * width)
        for norm, size in (
            ("attn_norm", width),
            ("ffn_norm", width),
            ("attn_q_norm", head),
            ("attn_k_norm", head),
        ):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
