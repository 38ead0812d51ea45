"""Write the mean of checkpoints' weights.

    python -m training.mean END FOLDER:PART...

Checkpoints of one training that went on over other data each keep what the later ones lose, and
their mean has both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.model import load_checkpoint, save_as


def mean(end: Path, parts: list[tuple[Path, float]]) -> None:
    """Write to `end` the sum of checkpoints, each times its part."""
    (first, part), *others = parts
    shape, state = load_checkpoint(first)
    total = {name: tensor.float() * part for name, tensor in state.items()}
    for folder, part in others:
        for name, tensor in load_checkpoint(folder)[1].items():
            total[name] += tensor.float() * part
    save_as(end, shape, total, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", type=Path)
    parser.add_argument("parts", nargs="+", metavar="FOLDER:PART", help="the parts' sum is 1")
    arguments = parser.parse_args()
    parts = []
    for text in arguments.parts:
        folder, part = text.rsplit(":", 1)
        parts.append((Path(folder), float(part)))
    if abs(sum(part for _, part in parts) - 1) > 1e-6:
        parser.error(f"the parts make {sum(part for _, part in parts):g}, not 1")
    mean(arguments.end, parts)


if __name__ == "__main__":
    main()
