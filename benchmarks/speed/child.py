"""The process of one job: `python -m …speed.child ANSWER`, with the job on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from erank_lite.benchmarks.speed.job import Job, answer
from erank_lite.benchmarks.speed.work import Work

if __name__ == "__main__":
    told = json.load(sys.stdin)
    told["work"] = Work(**told["work"])
    told["ordinary"] = tuple(told["ordinary"])
    answer(Job(**told), Path(sys.argv[1]))
