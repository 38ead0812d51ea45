"""The plain loop that llama-cpp-python's users write: `create_completion`, one document at a time.

It keeps of the document before what the next one begins with, as it does by itself.
"""

from __future__ import annotations

import time
from typing import Any

from erank_lite.benchmarks.speed.job import Job, Outcome
from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.errors import ModelError


def run(job: Job) -> Outcome:
    """Run the loop."""
    import llama_cpp

    layers = -1 if llama_cpp.llama_supports_gpu_offload() else 0
    try:
        llama = llama_cpp.Llama(
            job.path,
            n_ctx=job.work.cells,
            n_threads=job.threads,
            n_threads_batch=job.threads,
            n_gpu_layers=layers,
            verbose=False,
        )
    except ValueError as error:  # what it makes of a file that llama.cpp refuses
        raise ModelError(f"llama-cpp-python cannot load the model: {error}") from None
    _complete(llama, job.warm_up()[0], 1, job)
    marks, tokens = [], 0
    start = time.perf_counter()
    for ids in job.prompts():
        tokens += _complete(llama, ids, job.work.tokens, job)
        marks.append(time.perf_counter() - start)
    version = llama_cpp.__version__
    what = f"llama-cpp-python {version}: Llama.create_completion, one document after the other"
    return Outcome(what, marks[0], marks[-1], tokens, peak_memory())


def _complete(llama: Any, ids: tuple[int, ...], tokens: int, job: Job) -> int:
    """Write exactly `tokens` after `ids`, and return how many were written.

    Where the text ends early, an ordinary token takes the end's place and the text goes on: the
    cache holds all before it, so that each token still costs one step. Where it stands within a
    character after the last token, the library would write on until the character is whole: it is
    stopped, which costs it one step more.
    """
    prompt, written = list(ids), 0
    most = len(ids) + tokens
    while True:
        answer = llama.create_completion(
            prompt,
            max_tokens=tokens - written,
            temperature=0.0,
            stopping_criteria=lambda ids, logits: len(ids) >= most,
        )
        written += int(answer["usage"]["completion_tokens"])
        if written >= tokens:
            return written
        written += 1
        if written == tokens:
            return written
        prompt = [*llama.input_ids[: llama.n_tokens].tolist(), job.ordinary[0]]
