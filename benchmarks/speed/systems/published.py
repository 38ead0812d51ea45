"""The published Transformers method: a reimplementation from its description.

ERank's model cards run the checkpoint in BF16 with Transformers: prompts padded on the left, a
batch at a time, greedy `generate`. A batch waits for its longest answer, and what a query's
documents share is read again for each. Here each text goes on for the number of tokens asked for,
and the probability of the answer, which the method also needs, is not computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.errors import ModelError


def run(trial: Trial) -> Measurement:
    """Run the checkpoint in the folder `trial.path`."""
    import torch
    import transformers

    logging.disable(logging.WARNING)
    torch.set_num_threads(trial.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            Path(trial.path), dtype=torch.bfloat16, local_files_only=True
        ).to(device)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"Transformers cannot load the checkpoint: {reason}") from None
    model.eval()
    _generate(model, trial.warm_up(), 1)
    prompts, marks, tokens = trial.prompts(), [], 0
    start = time.perf_counter()
    for i in range(0, len(prompts), trial.workload.sequences):
        batch = prompts[i : i + trial.workload.sequences]
        tokens += _generate(model, batch, trial.workload.tokens)
        marks += [time.perf_counter() - start] * len(batch)
    what = (
        f"a reimplementation from its description: Transformers {transformers.__version__}, "
        f"generate in BF16 on {device}, padded batches of {trial.workload.concurrent}"
    )
    return Measurement(what, marks[0], marks[-1], tokens, peak_memory())


def _generate(model: Any, prompts: Sequence[Sequence[int]], tokens: int) -> int:
    """Generate exactly `tokens` for each prompt of a batch, and return how many were generated."""
    import torch
    from transformers import GenerationConfig

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    # The model's own would end a text, at its end tokens.
    model.generation_config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    with torch.inference_mode():
        generated = model.generate(input_ids=ids, attention_mask=mask)
    return int(generated.shape[0] * (generated.shape[1] - longest))
