"""The benchmarks that have instructions of their own, by name."""

from __future__ import annotations

NAMES = (
    "beir", "trec-dl", "followir", "bright", "bright/aops", "bright/biology",
    "bright/earth-science", "bright/economics", "bright/leetcode", "bright/pony",
    "bright/psychology", "bright/robotics", "bright/stackoverflow", "bright/sustainable-living",
    "bright/theoremqa-q", "bright/theoremqa-t",
)  # fmt: skip


def is_benchmark(instruction: str) -> bool:
    """Return whether an instruction is the name of a benchmark, rather than free text.

    Example:
        >>> is_benchmark("BRIGHT/theoremqa_q"), is_benchmark("physics")
        (True, False)
    """
    return instruction.strip().lower().replace("_", "-") in NAMES
