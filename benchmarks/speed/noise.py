"""How much a document's tokens and probabilities differ, decoded with others and decoded alone.

    python -m erank_lite.benchmarks.speed.noise MODEL --sequences 16

Sums of floating-point numbers depend on their order, and the order on what is decoded together.
Texts are compared up to the first token at which they part.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import command_line, record, write_json
from erank_lite.benchmarks.speed.model import Model
from erank_lite.engines.llama_cpp.engine import LlamaCppEngine
from erank_lite.errors import ErankLiteError, ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.types import Request, Step

THINGS = ("river", "loaf", "game", "volcano", "violin", "tide", "beehive", "glacier")
VERBS = ("describes", "praises", "doubts", "explains")


class Recorder:
    """Generates `tokens` tokens and keeps them with their log-probabilities."""

    def __init__(self, tokens: int) -> None:
        self.max_tokens = tokens + 1
        self.left = tokens
        self.written: list[tuple[int, float]] = []

    def begin(self) -> Step:
        return Step(logprobs_for=())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        assert logprobs is not None
        self.written.append((token, logprobs[token]))
        self.left -= 1
        return Step(logprobs_for=(), done=not self.left)


def write(
    model: Path, tokens: int, strict: bool, sequences: int, flash: bool | None
) -> dict[int, list[tuple[int, float]]]:
    """Return what is written for each of 32 documents: tokens and their log-probabilities.

    Raises:
        ModelError: a document failed.
    """
    with LlamaCppEngine(model, strict=strict, sequences=sequences, flash_attention=flash) as engine:
        query = PromptBuilder(engine.tokenizer, engine.chat_template).query("What is it about?")
        texts = [f"A note that {verb} a {thing}." for verb in VERBS for thing in THINGS]
        requests = [
            Request(i, query.document(text), lambda: Recorder(tokens))
            for i, text in enumerate(texts)
        ]
        written = {}
        for completion in engine.run(requests):
            if completion.failure or not isinstance(completion.guide, Recorder):
                raise ModelError(f"a document failed: {completion.failure}")
            written[completion.key] = completion.guide.written
        return written


def measure_noise(
    model: str | Path,
    tokens: int = 64,
    sequences: int = 16,
    flash_attention: bool = False,
    command: str = "erank_lite.benchmarks.speed.noise",
) -> dict[str, Any]:
    """Compare documents decoded together with the same decoded alone, and return the record.

    Args:
        model: its name, as `erank_lite.models.prepare.model_file` takes it.
        tokens: written for each document.
        sequences: documents decoded together.
        flash_attention: in both runs.
        command: what was typed, for the record.
    """
    subject = Model.find(model)
    flash = flash_attention or None
    alone = write(subject.gguf, tokens, True, 1, flash)
    together = write(subject.gguf, tokens, False, sequences, flash)
    differences, parted = [], 0
    for key, written in alone.items():
        for (a, p), (b, q) in zip(written, together[key], strict=True):
            if a != b:
                parted += 1
                break
            differences.append(abs(p - q))
    return record(
        "noise",
        command,
        model=subject.name,
        documents=len(alone),
        tokens=tokens,
        sequences=sequences,
        flash_attention=flash_attention,
        documents_that_part=parted,
        mean_difference_of_log_probability=sum(differences) / max(1, len(differences)),
        largest_difference_of_log_probability=max(differences, default=0.0),
    )


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.speed.noise",
        description=(__doc__ or "").split(".")[0],
    )
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--flash-attention", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        found = measure_noise(
            options.model,
            options.tokens,
            options.sequences,
            options.flash_attention,
            command_line(["python", "-m", "erank_lite.benchmarks.speed.noise", *sys.argv[1:]]),
        )
        print(json.dumps(found, indent=1))
        if options.json:
            write_json(options.json, found)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
