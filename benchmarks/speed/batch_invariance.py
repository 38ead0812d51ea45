"""Batch invariance: how much a document's tokens and probabilities depend on the batch it is in.

    python -m erank_lite.benchmarks.speed.batch_invariance MODEL --sequences 16

Sums of floating-point numbers depend on their order, and the order on what is decoded together.
Completions are compared up to the first token at which they part.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import Record, command_line, record
from erank_lite.benchmarks.speed.subject import find_subject
from erank_lite.errors import ErankLiteError, ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.load import load
from erank_lite.testing.guides import CountingGuide, counting_request

_THINGS = ("river", "loaf", "game", "volcano", "violin", "tide", "beehive", "glacier")
_VERBS = ("describes", "praises", "doubts", "explains")
NOTES = [f"A note that {verb} a {thing}." for verb in _VERBS for thing in _THINGS]
_LENGTH = 16  # notes in a document: some 130 tokens


def _texts() -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.sample(NOTES, _LENGTH)) for _ in NOTES]


def generate(model: Path, tokens: int, **options: Any) -> list[CountingGuide]:
    """Return what is generated for each of 32 documents.

    Args:
        model: a GGUF file.
        tokens: generated for each document.
        options: of the llama.cpp engine.

    Raises:
        ModelError: a document failed.
    """
    guides: dict[int, CountingGuide] = {}
    with load(model, "llama.cpp", options) as engine:
        query = PromptBuilder(engine.tokenizer, engine.chat_template).query("What is it about?")
        requests = [
            counting_request(i, query.document(text), tokens) for i, text in enumerate(_texts())
        ]
        for completion in engine.run(requests):
            if completion.failure:
                raise ModelError(f"a document failed: {completion.failure}")
            guides[completion.key] = completion.guide
    return [guides[i] for i in range(len(guides))]


def measure_batch_invariance(
    model: str | Path,
    tokens: int = 64,
    sequences: int = 16,
    flash_attention: bool | None = None,
    command: str = "erank_lite.benchmarks.speed.batch_invariance",
) -> Record:
    """Compare documents decoded together with the same ones decoded alone.

    Args:
        model: its name, as `erank_lite.load.load` takes it.
        tokens: generated for each document.
        sequences: documents decoded together.
        flash_attention: in both runs, or in neither; None means as the engine chooses, which reads
            some prompts with it where documents are decoded together.
        command: what was typed, for the record.

    Returns:
        A record of kind "noise".

    Raises:
        InputError: the name or an option cannot be used.
        ModelError: the model cannot.
    """
    subject = find_subject(model)
    options = {} if flash_attention is None else {"flash_attention": flash_attention}
    alone = generate(subject.path, tokens, strict=True, sequences=1, **options)
    together = generate(subject.path, tokens, sequences=sequences, **options)
    differences, parted = [], 0
    for a, b in zip(alone, together, strict=True):
        for x, y, p, q in zip(a.tokens, b.tokens, a.logprobs, b.logprobs, strict=True):
            if x != y:
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
    module = "erank_lite.benchmarks.speed.batch_invariance"
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--flash-attention", action=argparse.BooleanOptionalAction)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        found = measure_batch_invariance(
            arguments.model,
            arguments.tokens,
            arguments.sequences,
            arguments.flash_attention,
            command_line(["python", "-m", module, *sys.argv[1:]]),
        )
        print(json.dumps(found, indent=1))
        if arguments.json:
            write_json(arguments.json, found)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
