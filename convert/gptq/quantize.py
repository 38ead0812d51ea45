"""GPTQ by GPTQModel, one layer after the other, in a child process.

GPTQModel keeps global state, prints much and wants settings in the environment before it is
imported: all of that stays in the child.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from erank_lite.errors import ModelError
from erank_lite.machine.hardware import usable_cores
from erank_lite.util import worker

_SIDE = 1024  # rows and columns of the matrices that are multiplied to learn the device's speed
_WHAT = "GPTQModel"


def trial(device: str | None) -> tuple[str, float]:
    """Return the device that will be used, "cpu" or "cuda", and how fast it multiplies.

    Args:
        device: as `convert_gptq`.

    Returns:
        The device, and its floating-point operations a second with 32 bits.

    Raises:
        ModelError: there is no such device, or torch does not work.
    """
    found, rate = worker.call(__name__, {"device": device, "job": None}, _WHAT)
    return found, rate


def quantize(
    source: Path,
    out: Path,
    work: Path,
    settings: dict[str, Any],
    samples: Path,
    dtype: str,
    device: str,
) -> Generator[int]:
    """Quantize the checkpoint `source` into the folder `out`; yield the layers that are done.

    Closing the iterator stops the work.

    Args:
        source: the checkpoint's folder.
        out: the folder to make.
        work: a folder to make for layers that are done, which are kept on disk.
        settings: for GPTQModel's QuantizeConfig.
        samples: a JSON file with a list of lists of token ids.
        dtype: of what is not quantized, as torch names it.
        device: "cpu" or "cuda".

    Raises:
        ModelError: GPTQModel refuses, fails or crashes.
    """
    paths = {"source": source, "out": out, "work": work, "samples": samples}
    job: dict[str, Any] = {name: str(path.absolute()) for name, path in paths.items()}
    job |= {"settings": settings, "dtype": dtype}
    for message in worker.run(__name__, {"device": device, "job": job}, _WHAT):
        yield message["layer"]


def prepare() -> None:
    """Set what GPTQModel reads from the environment; to be called before its import."""
    os.environ["GPTQMODEL_CPU_WORKERS"] = str(max(2, usable_cores()))  # it fails with one
    # Packing in C++ gives the same bytes, and would first have to be compiled.
    os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"
    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # it takes longer than it could save here
    os.environ["HF_HUB_OFFLINE"] = "1"


def _work(
    send: worker.Send, device: str | None, job: dict[str, Any] | None
) -> tuple[str, float] | None:
    prepare()
    try:
        if job is None:
            return _trial(device)
        _quantize(send, device, **job)
        return None
    except ModelError:
        raise
    # Other threads of GPTQModel would keep a child that only fails alive.
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["it gave no reason"])[0]
        raise ModelError(f"GPTQModel fails: {type(error).__name__}: {reason}") from error


def _trial(device: str | None) -> tuple[str, float]:
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "this torch finds no CUDA device", "leave --device out, or install a torch for CUDA"
        )
    a = torch.ones(_SIDE, _SIDE, device=device)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        (a @ a).sum().item()
        seconds.append(time.perf_counter() - start)
    return device, 2 * _SIDE**3 / min(seconds)


def _quantize(
    send: worker.Send,
    device: str | None,
    source: str,
    out: str,
    work: str,
    samples: str,
    settings: dict[str, Any],
    dtype: str,
) -> None:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    def note(layer_idx: int, submodule_finalized: bool) -> None:
        if submodule_finalized:
            send({"layer": layer_idx})

    ids = json.loads(Path(samples).read_text("ascii"))
    Path(work).mkdir()
    os.chdir(work)  # GPTQModel logs into a folder `logs` wherever it runs
    # Weights stay in the source's files until their layer's turn, and go to `work` after it.
    config = QuantizeConfig(
        **settings,
        # Groups are taken by the order of activations, where there are groups and no such order.
        act_group_aware=settings["group_size"] > 0 and not settings["desc_act"],
        offload_to_disk=True,
        offload_to_disk_path=work,
    )
    model = GPTQModel.load(source, config, device=device, dtype=getattr(torch, dtype))
    model.layer_callback = note
    batches = [{"input_ids": sample, "attention_mask": [1] * len(sample)} for sample in ids]
    model.quantize(batches, batch_size=1)
    model.save(out)


if __name__ == "__main__":
    worker.serve(_work)
