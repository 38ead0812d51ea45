"""Which ggml is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

USE_ALL = """
import numpy as np, gguf
from erank_lite.convert.gguf.tensors import quantized
from erank_lite.convert.imatrix.graph import Tensors
from erank_lite.machine.llama_library import gpu_devices
gpu_devices()
Tensors()
quantized(np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
print(*sorted({line.split()[-1] for line in open("/proc/self/maps") if "libggml" in line}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which libraries are loaded")
@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_ggml_is_in_the_process(tmp_path: Path, elsewhere: bool) -> None:
    folder = Path(llama_cpp.__file__).parent / "lib"
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH", folder))
    surroundings = dict(os.environ)
    if elsewhere:
        shutil.copytree(folder, tmp_path / "lib")
        folder = tmp_path / "lib"
        surroundings["LLAMA_CPP_LIB_PATH"] = str(folder)
    done = subprocess.run(
        [sys.executable, "-c", USE_ALL], capture_output=True, text=True, env=surroundings
    )
    assert done.returncode == 0, done.stderr
    loaded = [Path(name) for name in done.stdout.split()]
    assert loaded and {path.parent for path in loaded} == {folder.resolve()}
