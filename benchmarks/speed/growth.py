"""Time and memory per document as the list grows: both should stay flat.

python benchmarks/speed/growth.py MODEL.gguf --documents 250 500 1000
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import psutil
from compare import Workload, cpu_name, run_engine

from erank_lite.engines.llama_cpp import LlamaCppEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--documents", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--shared", type=int, default=61)
    parser.add_argument("--own", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    process = psutil.Process()
    rows = []
    print(cpu_name())
    with LlamaCppEngine(options.model, sequences=options.sequences) as engine:
        for count in (32, *options.documents):
            work = Workload(count, options.shared, options.own, options.tokens, options.sequences)
            prompts = work.prompts(len(engine.tokenizer.pieces))
            start = time.perf_counter()
            run_engine(engine, work, prompts)
            seconds = time.perf_counter() - start
            row = {
                "documents": count,
                "ms_per_document": 1000 * seconds / count,
                "resident_mib": process.memory_info().rss / 2**20,
            }
            rows.append(row)
            print(*(f"{k} {v:.1f}" for k, v in row.items()), sep="   ", flush=True)
    if options.json:
        record = {"work": vars(options), "cpu": cpu_name(), "rows": rows}
        options.json.write_text(json.dumps(record, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
