"""The check of a GPTQ checkpoint before it gets its name: it loads, computes, and generates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from erank_lite.convert.gptq.quantize import prepare
from erank_lite.convert.verify import warn_of_chance
from erank_lite.errors import ModelError
from erank_lite.util import worker

_READ, _OWN, _WRITE = 512, 8, 8  # tokens


def check_whole(folder: Path, sample: Sequence[int], device: str) -> None:
    """Load the checkpoint `folder` by GPTQModel, read `sample` and let it generate a little.

    A sample ends with what the model wrote itself; warn where it predicts that no better than
    chance.

    Raises:
        ModelError: it does not load, or computes no numbers.
    """
    arguments = {"folder": str(folder), "ids": list(sample[-_READ:]), "device": device}
    mean_nll, size = worker.call(__name__, arguments, "GPTQModel")
    warn_of_chance(
        "the quantized model predicts the end of a sample",
        mean_nll,
        size,
        "the model was never trained, or the text is not of its kind",
    )


def _work(send: worker.Send, folder: str, ids: list[int], device: str) -> tuple[float, int]:
    """Return the mean negative log-likelihood of the last ids, and the size of the vocabulary."""
    prepare()
    import torch
    from gptqmodel import GPTQModel

    try:
        model = GPTQModel.load(folder, device=device)
        read = torch.tensor([ids], device=device)
        with torch.inference_mode():
            logits = model.model(read).logits[0].float()
            mean_nll: float = torch.nn.functional.cross_entropy(
                logits[:-1][-_OWN:], read[0, 1:][-_OWN:]
            ).item()
            written = model.model.generate(
                read, attention_mask=torch.ones_like(read), do_sample=False, max_new_tokens=_WRITE
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["it gave no reason"])[0]
        raise ModelError(
            f"the quantized checkpoint does not run: {type(error).__name__}: {reason}"
        ) from error
    if not math.isfinite(mean_nll) or written.shape[1] <= len(ids):
        raise ModelError(
            "the quantized model computes no numbers, so the checkpoint or its calibration is "
            "damaged; nothing was kept"
        )
    return mean_nll, logits.shape[-1]


if __name__ == "__main__":
    worker.serve(_work)
