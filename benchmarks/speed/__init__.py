"""How fast each engine and its peers are here, and how near to what the machine can do.

`measure_speed` compares ways of reranking in one run, `measure_growth` follows one along the number
or length of documents, of reasoning, or of sequences, `sweep` goes over types and engines, and
`small` is a preset of minutes. `python -m erank_lite.benchmarks.speed --help` does all of it.
"""

from erank_lite.benchmarks.speed.compare import Settings, measure_speed
from erank_lite.benchmarks.speed.growth import AXES, measure_growth
from erank_lite.benchmarks.speed.sweep import small, sweep
from erank_lite.benchmarks.speed.ways import WAYS, Peers
from erank_lite.benchmarks.speed.work import Work

__all__ = [
    "AXES", "WAYS", "Peers", "Settings", "Work", "measure_growth", "measure_speed", "small",
    "sweep",
]  # fmt: skip
