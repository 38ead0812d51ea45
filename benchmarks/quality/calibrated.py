"""Quantize a checkpoint to GPTQ twice, to see what calibration on the model's own text buys.

    python benchmarks/quality/calibrated.py MODEL OUT

OUT/own is calibrated as `erank-lite convert gptq` does by default: ERank's prompts of the set that
comes along, each followed by the model's own reasoning and answer. OUT/generic is calibrated on
running text: the documents of the same set, without prompts or answers, joined and cut into as many
samples of as many tokens. Everything else is the same: 4 bits, groups of 128.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from erank_lite.convert.calibration import DEFAULT, OwnText, read_triples
from erank_lite.convert.source import open_source
from erank_lite.convert.to_gptq import convert_gptq
from erank_lite.models import checkpoint_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = checkpoint_folder(arguments.model)
    checkpoint, _ = open_source(folder)
    triples = read_triples(DEFAULT)
    own = OwnText(checkpoint, triples).samples()
    convert_gptq(folder, arguments.out / "own", samples=own, force=True)
    running = checkpoint.tokenizer().encode("\n\n".join(t.document for t in triples)).ids
    wanted = sum(map(len, own))
    running = (running * (wanted // len(running) + 1))[:wanted]
    generic, at = [], 0
    for sample in own:
        generic.append(running[at : at + len(sample)])
        at += len(sample)
    convert_gptq(folder, arguments.out / "generic", samples=generic, force=True)
    print(f"{len(own)} samples of {wanted} tokens in all")


if __name__ == "__main__":
    main()
