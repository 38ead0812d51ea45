"""Time and memory of conversions, compared with the time that copying the checkpoint takes.

    python benchmarks/convert/measure.py CHECKPOINT SCRATCH --types BF16 Q8_0 Q4_K_M

Copying is timed before and after each conversion, both to the end of fsync; the better counts.
Memory is the sum over the process and its children, sampled five times a second, without the pages
of mapped files (RssAnon), which the system takes back whenever it wants them. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import erank_lite


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scratch", type=Path, help="folder for the copies and results")
    parser.add_argument("--types", nargs="+", default=["BF16", "Q8_0", "Q4_K_M"])
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    shards = sorted(arguments.checkpoint.glob("*.safetensors"))
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "erank_lite": erank_lite.__version__,
        "machine": f"{cpu()}, {psutil.cpu_count(logical=False)} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "checkpoint_bytes": sum(s.stat().st_size for s in shards),
        "conversions": [],
    }
    before = _copy(shards, arguments.scratch)
    for quant_type in arguments.types:
        entry = _convert(arguments.checkpoint, arguments.scratch / "out.gguf", quant_type)
        after = _copy(shards, arguments.scratch)
        entry["copy_seconds"] = min(before, after)
        entry["writing_over_copying"] = entry["stages"]["writing"] / entry["copy_seconds"]
        report["conversions"].append(entry)
        before = after
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def cpu() -> str:
    """Return the name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _copy(files: list[Path], scratch: Path) -> float:
    target = scratch / "copy"
    seconds = 0.0
    for file in files:
        start = time.perf_counter()
        with file.open("rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 8 << 20)
            out.flush()
            os.fsync(out.fileno())
        seconds += time.perf_counter() - start
        target.unlink()
    return seconds


# What the measured processes share; `stages` are seconds, from the first report of one to the next.
STAGES = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
from erank_lite.util.reporter import Reporter

class Stages(Reporter):
    begun = {}
    def progress(self, stage, done, total, unit="B"):
        self.begun.setdefault(stage, time.perf_counter())

start, reporter = time.perf_counter(), Stages()

def print_entry(estimate):
    marks = [*reporter.begun.items(), ("", time.perf_counter())]
    stages = {a: t2 - t1 for (a, t1), (_, t2) in zip(marks, marks[1:])}
    seconds = marks[-1][1] - start
    print(json.dumps({"seconds": seconds, "stages": stages, "announced": asdict(estimate)}))
"""
_CHILD = """
from erank_lite.convert.gguf.convert import convert_gguf
source, out, quant_type = sys.argv[1:]
start = time.perf_counter()
print_entry(convert_gguf(Path(source), Path(out), quant_type, force=True, reporter=reporter))
"""


def _convert(checkpoint: Path, out: Path, quant_type: str) -> dict[str, Any]:
    entry = {"type": quant_type} | run_child(_CHILD, checkpoint, out, quant_type)
    entry["bytes"] = out.stat().st_size
    out.unlink()
    return entry


def run_child(code: str, *arguments: object) -> dict[str, Any]:
    """Run Python code behind `STAGES`; return what it prints, and its peak of memory."""
    command = [sys.executable, "-c", STAGES + code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.2)
    assert process.stdout is not None
    entry: dict[str, Any] = json.loads(process.stdout.read())
    return entry | {"peak_memory": peak}


def anonymous(pid: int) -> int:
    """Return the bytes of a process and its children that are not pages of files."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += 1024 * int(line.split()[1])
    except (OSError, psutil.Error):  # one of them just ended
        pass
    return total


if __name__ == "__main__":
    main()
