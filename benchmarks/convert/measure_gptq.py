"""Time and memory of GPTQ, on calibration text of random ids.

    python benchmarks/convert/measure_gptq.py CHECKPOINT SCRATCH --samples 32 --length 512

Memory is measured as in `measure.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import psutil
from measure import cpu, run_child

import erank_lite

_CHILD = """
import random
from erank_lite.convert.gptq.convert import convert_gptq
source, out, count, length, device = sys.argv[1:]
size = json.loads((Path(source) / "config.json").read_text())["vocab_size"]
draw = random.Random(0)
samples = [draw.choices(range(size), k=int(length)) for _ in range(int(count))]
start = time.perf_counter()
print_entry(convert_gptq(Path(source), Path(out), samples=samples, device=device, force=True,
                         reporter=reporter))
"""


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scratch", type=Path, help="folder for the result, which is left there")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    config = json.loads((arguments.checkpoint / "config.json").read_text())
    entry = run_child(
        _CHILD,
        arguments.checkpoint,
        arguments.scratch / "gptq",
        arguments.samples,
        arguments.length,
        arguments.device,
    )
    report = {
        "command": " ".join(["python", *sys.argv]),
        "erank_lite": erank_lite.__version__,
        "machine": f"{cpu()}, {psutil.cpu_count(logical=False)} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "ffn": config["intermediate_size"],
        "checkpoint_bytes": sum(
            s.stat().st_size for s in arguments.checkpoint.glob("*.safetensors")
        ),
        **entry,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
