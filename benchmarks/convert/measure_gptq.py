"""Time and memory of GPTQ, on calibration text of random ids.

    python benchmarks/convert/measure_gptq.py CHECKPOINT SCRATCH --samples 32 --length 512

Memory is measured as in `measure.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
from measure import anonymous, processor

import erank_lite

_CHILD = """
import json, random, sys, time
from dataclasses import asdict
from pathlib import Path
from erank_lite.convert.gptq.convert import convert_gptq
source, out, count, length, device = sys.argv[1:]
size = json.loads((Path(source) / "config.json").read_text())["vocab_size"]
draw = random.Random(0)
samples = [draw.choices(range(size), k=int(length)) for _ in range(int(count))]
needs, begun = {}, {}
def note(stage, done, total):
    begun.setdefault(stage, time.perf_counter())
start = time.perf_counter()
convert_gptq(Path(source), Path(out), samples=samples, device=device, force=True,
             announce=lambda n: needs.update(asdict(n)), progress=note)
marks = [*begun.items(), ("", time.perf_counter())]
stages = {a: t2 - t1 for (a, t1), (_, t2) in zip(marks, marks[1:])}
print(json.dumps({"seconds": marks[-1][1] - start, "stages": stages, "announced": needs}))
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
    options = [str(arguments.samples), str(arguments.length), arguments.device]
    target = arguments.scratch / "gptq"
    command = [sys.executable, "-c", _CHILD, str(arguments.checkpoint), str(target), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        most = max(most, anonymous(process.pid))
        time.sleep(0.2)
    report = {
        "command": " ".join(["python", *sys.argv]),
        "erank_lite": erank_lite.__version__,
        "machine": f"{processor()}, {psutil.cpu_count(logical=False)} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "ffn": config["intermediate_size"],
        "checkpoint_bytes": sum(
            s.stat().st_size for s in arguments.checkpoint.glob("*.safetensors")
        ),
        "peak_memory": most,
        **json.loads(process.stdout.read()),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
