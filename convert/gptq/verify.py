"""The check of a GPTQ checkpoint before it gets its name: it loads, computes, and writes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from erank_lite.convert.gptq.quantize import prepare
from erank_lite.errors import ModelError
from erank_lite.util import worker as child

_log = logging.getLogger(__name__)

# A model predicts what it wrote itself, with which a sample ends, far better than chance; weights
# in disorder do not.
_CHANCE = 0.75
_READ, _OWN, _WRITE = 512, 8, 8  # tokens


def check_whole(folder: Path, sample: Sequence[int], device: str) -> None:
    """Load the checkpoint `folder` by GPTQModel, read `sample` and let it write a little.

    Raises:
        ModelError: it does not load, or computes no numbers.
    """
    arguments = {"folder": str(folder), "ids": list(sample[-_READ:]), "device": device}
    found = next(iter(child.run(__name__, arguments, "GPTQModel")))
    if found["surprise"] > _CHANCE * math.log(found["size"]):
        _log.warning(
            "the quantized model predicts the end of a sample hardly better than chance "
            "(%.1f nats a token, chance is %.1f): the model was never trained, or the text is not "
            "of its kind",
            found["surprise"],
            math.log(found["size"]),
        )


def _work(send: Callable[[dict[str, Any]], None], folder: str, ids: list[int], device: str) -> None:
    prepare()
    import torch
    from gptqmodel import GPTQModel

    try:
        model = GPTQModel.load(folder, device=device)
        read = torch.tensor([ids], device=device)
        with torch.inference_mode():
            logits = model.model(read).logits[0].float()
            surprise = torch.nn.functional.cross_entropy(
                logits[:-1][-_OWN:], read[0, 1:][-_OWN:]
            ).item()
            written = model.model.generate(
                read, attention_mask=torch.ones_like(read), do_sample=False, max_new_tokens=_WRITE
            )
    except Exception as error:
        said = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"the quantized checkpoint does not run: {type(error).__name__}: {said[0]}"
        ) from error
    if not math.isfinite(surprise) or written.shape[1] <= len(ids):
        raise ModelError(
            "the quantized model computes no numbers, so the checkpoint or its calibration is "
            "damaged; nothing was kept"
        )
    send({"surprise": surprise, "size": logits.shape[-1]})


if __name__ == "__main__":
    child.serve(_work)
