"""Whether llama.cpp's kernels for Intel AMX work in the installed build; run as a child process.

GCC up to at least 12 miscompiles the instruction that configures AMX (`_tile_loadconfig`: most of
the stores to its operand are dropped), so that a llama.cpp built with it, on a processor that has
AMX, ends with a segmentation fault at the first prompt. No version number tells a broken build
from a sound one; a small model does, in a process that may die.
"""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)
_WIDTH = 256
_TOKENS = 32


@functools.cache
def amx_is_broken() -> bool:
    """Return whether this machine has AMX and the installed llama.cpp fails there; say so once."""
    try:
        has_amx = " amx_int8" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    if not has_amx:
        return False
    child = subprocess.run(
        [sys.executable, "-m", __name__], stdin=subprocess.DEVNULL, capture_output=True
    )
    if child.returncode < 0:
        _log.warning(
            "this build of llama.cpp crashes in its kernels for Intel AMX (a fault of the compiler "
            "that built it), so it runs without them, slower; to mend it: "
            "CMAKE_ARGS='-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8' "
            "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        )
    return child.returncode < 0


def _write_model(path: Path) -> None:
    """Write a Llama of one layer, without a vocabulary, in a type that AMX kernels take."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(_WIDTH)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(_WIDTH)
    square = np.ones((_WIDTH, _WIDTH), np.float32)
    kind = gguf.GGMLQuantizationType.Q4_0
    matrices = [f"blk.0.attn_{n}.weight" for n in ("q", "k", "v", "output")]
    matrices += [f"blk.0.ffn_{n}.weight" for n in ("gate", "up", "down")]
    for name in ("token_embd.weight", *matrices):
        writer.add_tensor(name, gguf.quantize(square, kind), raw_dtype=kind)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(name, square[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _run_model(path: Path) -> None:
    from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model

    model = Model(path, 0, None, None, repack=True)
    context = Context(model, 1, _WIDTH, _TOKENS, _TOKENS, 1, "f16", None)
    places = list(range(_TOKENS))
    context.decode(Batch(places, places, [0] * _TOKENS, [0] * (_TOKENS - 1) + [1]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder) / "amx.gguf")
        _run_model(Path(folder) / "amx.gguf")
