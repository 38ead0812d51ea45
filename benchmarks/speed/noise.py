"""How much a document's tokens and probabilities differ, decoded with others and decoded alone.

python benchmarks/speed/noise.py MODEL.gguf --sequences 16
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from compare import cpu_name

from erank_lite.engines.llama_cpp import LlamaCppEngine
from erank_lite.prompt import PromptCore
from erank_lite.types import Request, Step

THINGS = ("river", "loaf", "game", "volcano", "violin", "tide", "beehive", "glacier")
VERBS = ("describes", "praises", "doubts", "explains")


class Recorder:
    """Generates `tokens` tokens and keeps them with their log-probabilities."""

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens + 1
        self.left = tokens
        self.written: list[tuple[int, float]] = []

    def begin(self) -> Step:
        return Step(measure=())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        assert logprobs is not None
        self.written.append((token, logprobs[token]))
        self.left -= 1
        return Step(measure=(), done=not self.left)


def write(
    model: Path, tokens: int, strict: bool, sequences: int, flash: bool | None
) -> dict[int, Recorder]:
    """Return what is written for each of 32 documents."""
    with LlamaCppEngine(model, strict=strict, sequences=sequences, flash_attention=flash) as engine:
        query = PromptCore(engine.tokenizer, engine.chat_template).query("What is it about?")
        texts = [f"A note that {verb} a {thing}." for verb in VERBS for thing in THINGS]
        requests = [
            Request(i, query.document(text), lambda: Recorder(tokens))
            for i, text in enumerate(texts)
        ]
        return {c.key: c.reader for c in engine.run(requests) if isinstance(c.reader, Recorder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--flash-attention", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    flash = options.flash_attention or None
    alone = write(options.model, options.tokens, True, 1, flash)
    together = write(options.model, options.tokens, False, options.sequences, flash)
    differences, parted = [], 0
    for key, reader in alone.items():
        for (a, p), (b, q) in zip(reader.written, together[key].written, strict=True):
            if a != b:
                parted += 1
                break
            differences.append(abs(p - q))
    record = {
        "model": options.model.name,
        "cpu": cpu_name(),
        "documents": len(alone),
        "tokens": options.tokens,
        "sequences": options.sequences,
        "flash_attention": options.flash_attention,
        "documents_that_part": parted,
        "mean_difference_of_log_probability": sum(differences) / len(differences),
        "largest_difference_of_log_probability": max(differences),
    }
    print(json.dumps(record, indent=1))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
