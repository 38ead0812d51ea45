"""Quantize a checkpoint twice over, to see what calibration on the model's own text buys.

    python -m erank_lite.benchmarks.fidelity.make_calibration_variants MODEL OUT --types Q2_K --gptq

"own" is calibrated as `erank-lite convert` does it: the prompts of the calibration set in this
package, each followed by the model's own reasoning and answer. "generic" is calibrated on running
text: the documents of the same set, without prompts or answers, joined and cut into as many samples
of as many tokens. Everything else is the same. OUT gets NAME-TYPE+own.gguf and
NAME-TYPE+generic.gguf of each type, the two importance matrices, and with --gptq the folders
NAME-GPTQ+own and NAME-GPTQ+generic (4 bits, groups of 128), for `erank-lite compare` to use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from erank_lite.convert.calibration import DEFAULT, SelfGeneratedCalibration, read_examples
from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.convert.gptq.convert import convert_gptq
from erank_lite.convert.imatrix.collect import collect
from erank_lite.errors import ErankLiteError
from erank_lite.load import engine_for_calibration
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.architecture import open_unquantized
from erank_lite.models.prepare import checkpoint_folder, gguf_file
from erank_lite.models.ref import ModelRef


def calibration_samples(folder: Path) -> dict[str, list[Sequence[int]]]:
    """Return the samples of both calibrations, as token ids."""
    checkpoint, _ = open_unquantized(folder)
    examples = read_examples(DEFAULT)
    calibration = SelfGeneratedCalibration(checkpoint, examples, engine_for_calibration)
    own: list[Sequence[int]] = [*calibration.samples()]
    running = checkpoint.tokenizer().encode("\n\n".join(e.document for e in examples)).ids
    wanted = sum(map(len, own))
    running = (running * (wanted // len(running) + 1))[:wanted]
    ends = [*accumulate(map(len, own), initial=0)]
    generic: list[Sequence[int]] = [running[a:b] for a, b in pairwise(ends)]
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
        model = ModelRef.parse(arguments.model)
        folder = checkpoint_folder(model)
        name = Path(arguments.model).name
        arguments.out.mkdir(parents=True, exist_ok=True)
        for which, samples in calibration_samples(folder).items():
            matrix = arguments.out / f"{name}+{which}.imatrix.gguf"
            if arguments.types:
                unquantized = gguf_file(model, "BF16")
                collect(unquantized, samples, threads=usable_cores()).write(matrix)
            for quant_type in arguments.types:
                convert_gguf(
                    folder,
                    arguments.out / f"{name}-{quant_type}+{which}.gguf",
                    quant_type,
                    force=True,
                    imatrix=matrix,
                )
            if arguments.gptq:
                path = arguments.out / f"{name}-GPTQ+{which}"
                convert_gptq(folder, path, samples=samples, force=True)
    except ErankLiteError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
