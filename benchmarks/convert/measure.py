"""Time and memory of conversions, beside the time that copying the checkpoint takes.

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
    report = {
        "command": " ".join(["python", *sys.argv]),
        "erank_lite": erank_lite.__version__,
        "machine": f"{processor()}, {psutil.cpu_count(logical=False)} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "checkpoint_bytes": sum(s.stat().st_size for s in shards),
        "conversions": [],
    }
    before = _copy(shards, arguments.scratch)
    for kind in arguments.types:
        entry = _convert(arguments.checkpoint, arguments.scratch / "out.gguf", kind)
        after = _copy(shards, arguments.scratch)
        entry["copy_seconds"] = min(before, after)
        entry["writing_over_copying"] = entry["stages"]["writing"] / entry["copy_seconds"]
        report["conversions"].append(entry)
        before = after
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def processor() -> str:
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


_CHILD = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
from erank_lite.convert.gguf.convert import convert_gguf
needs, begun = {}, {}
def note(stage, done, total):
    begun.setdefault(stage, time.perf_counter())
start = time.perf_counter()
convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], force=True,
             announce=lambda n: needs.update(asdict(n)), progress=note)
end = time.perf_counter()
marks = [*begun.items(), ("", end)]
stages = {a: t2 - t1 for (a, t1), (_, t2) in zip(marks, marks[1:])}
entry = {"type": sys.argv[3], "seconds": end - start, "stages": stages, "announced": needs}
print(json.dumps(entry))
"""


def _convert(checkpoint: Path, out: Path, kind: str) -> dict:
    command = [sys.executable, "-c", _CHILD, str(checkpoint), str(out), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        most = max(most, anonymous(process.pid))
        time.sleep(0.2)
    entry = json.loads(process.stdout.read())
    entry |= {"peak_memory": most, "bytes": out.stat().st_size}
    out.unlink()
    return entry


def anonymous(pid: int) -> int:
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
