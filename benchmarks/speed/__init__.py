"""How fast each engine and its peers are here, and how near to what the machine can do.

`measure_speed` runs a grid of workloads and systems, `measure_scaling` follows systems along one
axis of it, and `measure_small` is a preset of minutes. `python -m erank_lite.benchmarks.speed
--help` does all of it.
"""

from erank_lite.benchmarks.speed.measure import (
    SpeedOptions,
    measure_scaling,
    measure_small,
    measure_speed,
)
from erank_lite.benchmarks.speed.systems import SYSTEMS, Peers
from erank_lite.benchmarks.speed.workload import AXES, Workload

__all__ = [
    "AXES", "SYSTEMS", "Peers", "SpeedOptions", "Workload", "measure_scaling", "measure_small",
    "measure_speed",
]  # fmt: skip
