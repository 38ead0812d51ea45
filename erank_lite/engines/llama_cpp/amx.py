"""Whether llama.cpp's kernels for Intel AMX work in the installed build; run as a child process.

GCC up to at least 12 miscompiles the instruction that configures AMX (`_tile_loadconfig`: most of
the stores to its operand are dropped), so that a llama.cpp built with it, on a CPU that has
AMX, ends with a segmentation fault at the first prompt. No version number tells a broken build
from a sound one; a small model does, in a process that may die.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from pathlib import Path

from erank_lite.errors import ModelError
from erank_lite.util import worker

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
    try:
        worker.call(__name__, {})
    except ModelError as error:
        # What fails without a crash fails with a message in the engine too.
        if not isinstance(error, worker.WorkerError) or error.signal is None:
            return False
        _log.warning(
            "this build of llama.cpp crashes in its kernels for Intel AMX (a fault of the compiler "
            "that built it), so it runs without them, slower; to mend it: "
            "CMAKE_ARGS='-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8' "
            "pip install --force-reinstall --no-cache-dir llama-cpp-python"
        )
        return True
    return False


def _work(send: worker.Send) -> None:
    """Run a model of one layer, without a vocabulary, in a type that AMX kernels take."""
    from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
    from erank_lite.testing.tiny_models import Shape, write_gguf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "amx.gguf"
        shape = Shape(1, _WIDTH, _WIDTH, heads=4, kv_heads=4, head_dim=_WIDTH // 4)
        write_gguf(path, _WIDTH, shape=shape, architecture="llama", quant_type="Q4_0")
        model = Model(path, 0, None, None, repack=True)
        context = Context(model, 1, _WIDTH, _TOKENS, _TOKENS, 1, "f16", None)
        ids = list(range(_TOKENS))
        context.decode(Batch(ids, ids, [0] * _TOKENS, [0] * (_TOKENS - 1) + [1]))


if __name__ == "__main__":
    worker.serve(_work)
