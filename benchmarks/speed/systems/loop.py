"""The plain loop that llama-cpp-python's users write: `create_completion`, one document at a time.

It keeps of the document before what the next one begins with, as it does by itself.
"""

from __future__ import annotations

import time
from typing import Any

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.errors import ModelError


def run(trial: Trial) -> Measurement:
    """Run the loop."""
    import llama_cpp

    layers = -1 if llama_cpp.llama_supports_gpu_offload() else 0
    try:
        llama = llama_cpp.Llama(
            trial.path,
            n_ctx=trial.workload.context_length,
            n_threads=trial.threads,
            n_threads_batch=trial.threads,
            n_gpu_layers=layers,
            verbose=False,
        )
    except ValueError as error:  # what it makes of a file that llama.cpp refuses
        raise ModelError(f"llama-cpp-python cannot load the model: {error}") from None
    _complete(llama, trial.warm_up()[0], 1, trial)
    marks, tokens = [], 0
    start = time.perf_counter()
    for ids in trial.prompts():
        tokens += _complete(llama, ids, trial.workload.tokens, trial)
        marks.append(time.perf_counter() - start)
    version = llama_cpp.__version__
    what = f"llama-cpp-python {version}: Llama.create_completion, one document after the other"
    return Measurement(what, marks[0], marks[-1], tokens, peak_memory())


def _complete(llama: Any, ids: tuple[int, ...], tokens: int, trial: Trial) -> int:
    """Generate exactly `tokens` after `ids`, and return how many were generated.

    Where the text ends early, an ordinary token takes the end's place and the text goes on: the
    cache holds all before it, so that each token still costs one step. Where it stands within a
    character after the last token, the library would go on until the character is whole: it is
    stopped, which costs it one step more.
    """
    prompt, generated = list(ids), 0
    max_length = len(ids) + tokens
    while True:
        answer = llama.create_completion(
            prompt,
            max_tokens=tokens - generated,
            temperature=0.0,
            stopping_criteria=lambda ids, logits: len(ids) >= max_length,
        )
        generated += int(answer["usage"]["completion_tokens"])
        if generated >= tokens:
            return generated
        generated += 1
        if generated == tokens:
            return generated
        prompt = [*llama.input_ids[: llama.n_tokens].tolist(), trial.ordinary[0]]
