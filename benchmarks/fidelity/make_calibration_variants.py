"""Quantize a checkpoint twice over, to see what calibration on the model's own text buys.

    python -m erank_lite.benchmarks.fidelity.make_calibration_variants MODEL OUT --types Q4_K_M Q2_K --gptq

"own" is calibrated as `erank-lite convert` does it: ERank's prompts of the set that comes along,
each followed by the model's own reasoning and answer. "generic" is calibrated on running text: the
documents of the same set, without prompts or answers, joined and cut into as many samples of as
many tokens. Everything else is the same. OUT gets NAME-TYPE+own.gguf and NAME-TYPE+generic.gguf of
each type, the two importance matrices, and with --gptq the folders NAME-GPTQ+own and
NAME-GPTQ+generic (4 bits, groups of 128);
`erank-lite compare` takes them from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from erank_lite.convert.calibration import DEFAULT, SelfGeneratedCalibration, read_examples
from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.convert.gptq.convert import convert_gptq
from erank_lite.convert.imatrix.collect import collect
from erank_lite.convert.source import open_source
from erank_lite.errors import ErankLiteError
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.prepare import BUNDLED_MODEL, checkpoint_folder, model_file


def texts(folder: Path) -> dict[str, list[Sequence[int]]]:
    """Return the samples of both calibrations, as token ids."""
    checkpoint, _ = open_source(folder)
    triples = read_examples(DEFAULT)
    own: list[Sequence[int]] = [*SelfGeneratedCalibration(checkpoint, triples).samples()]
    running = checkpoint.tokenizer().encode("\n\n".join(t.document for t in triples)).ids
    wanted = sum(map(len, own))
    running = (running * (wanted // len(running) + 1))[:wanted]
    generic: list[Sequence[int]] = []
    at = 0
    for sample in own:
        generic.append(running[at : at + len(sample)])
        at += len(sample)
    return {"own": own, "generic": generic}


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--types", nargs="*", default=[])
    parser.add_argument("--gptq", action="store_true")
    arguments = parser.parse_args()
    try:
        folder = checkpoint_folder(arguments.model)
        name = Path(arguments.model).name
        arguments.out.mkdir(parents=True, exist_ok=True)
        for which, samples in texts(folder).items():
            matrix = arguments.out / f"{name}+{which}.imatrix.gguf"
            if arguments.types:
                whole = model_file(f"{arguments.model}:BF16")
                collect(whole, samples, threads=usable_cores()).write(matrix)
            for kind in arguments.types:
                convert_gguf(
                    folder,
                    arguments.out / f"{name}-{kind}+{which}.gguf",
                    kind,
                    force=True,
                    check_perplexity=arguments.model != BUNDLED_MODEL,
                    imatrix=matrix,
                )
            if arguments.gptq:
                place = arguments.out / f"{name}-GPTQ+{which}"
                convert_gptq(folder, place, samples=samples, force=True)
    except ErankLiteError as error:
        sys.exit(f"calibrated: {error}")


if __name__ == "__main__":
    main()
