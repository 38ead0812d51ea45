"""How fast the machine could be at best, by its compute and its bandwidth: a roofline.

Reading costs two operations for each weight of each token, and attention. A step of decoding takes
the longer of two times: to fetch all weights, and the keys and values of every document being
decoded, from memory; or to compute a row for each document. No program can be faster unless it
computes less than the model asks for, overlaps one phase's computing with the other's fetching
(here one comes after the other), or finds weights in the CPU's cache, which only small models fit
into. So the roofline is the outer limit: real kernels also convert quantized weights, take sums and
softmaxes, and wait for each other. The practical ceiling (`batched_bench`) is what llama.cpp's own
kernels reach on such shapes with nothing around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from erank_lite.benchmarks.speed.workload import Workload
from erank_lite.models.gguf import GGUFFile


@dataclass(frozen=True)
class Costs:
    """What a model asks of a machine, by its file's shapes.

    Attributes:
        token: floating-point operations of a token in all layers, attention apart.
        output: of the logits of one token.
        pair: of a token's attention to one token (itself or one before it), in all layers.
        weights: bytes that a step of decoding reads, however many rows it has.
        cell: bytes of a token's keys and values.
    """

    token: int
    output: int
    pair: int
    weights: int
    cell: int

    @classmethod
    def from_gguf(cls, gguf: GGUFFile) -> Costs:
        """Return the costs of a file with dense layers, its keys and values in 16 bits."""
        shape = gguf.shape()
        shapes = {t.name: t.shape for t in gguf.tensors}
        matrices = [s for n, s in shapes.items() if n.startswith("blk.") and len(s) > 1]
        output = shapes.get("output.weight", shapes.get("token_embd.weight", (0,)))
        return cls(
            token=2 * sum(map(prod, matrices)),
            output=2 * prod(output),
            pair=4 * shape.layers * shape.heads * shape.head_size,
            weights=sum(shape.layer_sizes) + shape.output_size,
            cell=shape.cache_size,
        )

    def reading(self, workload: Workload) -> int:
        """Return the operations that reading takes: what is shared once, the rest per document."""
        tokens = workload.shared + workload.documents * workload.own
        # A token looks at itself and at all before it.
        shared = workload.shared * (workload.shared + 1) // 2
        own = workload.own * workload.shared + workload.own * (workload.own + 1) // 2
        pairs = shared + workload.documents * own
        return tokens * self.token + pairs * self.pair + workload.documents * self.output

    def row(self, past: float) -> float:
        """Return the operations of a token that is decoded after `past` others."""
        return self.token + self.output + (past + 1) * self.pair


@dataclass(frozen=True)
class Roofline:
    """The least time of a workload, in seconds."""

    reading: float
    decoding: float

    def rate(self, workload: Workload) -> float:
        """Return the documents per second."""
        return workload.documents / (self.reading + self.decoding)


def roofline(
    costs: Costs, workload: Workload, gflops: float, gigabytes_per_second: float
) -> Roofline:
    """Return the least time that `workload` takes on a machine with these rates.

    The first token comes from reading; each further one takes a step. All steps are as wide as
    the workload allows.
    """
    compute, bandwidth = gflops * 1e9, gigabytes_per_second * 1e9
    past = workload.shared + workload.own + (workload.tokens - 1) / 2  # on average
    fetch = (costs.weights + workload.concurrent * past * costs.cell) / bandwidth
    step = max(fetch, workload.concurrent * costs.row(past) / compute)
    steps = workload.documents * (workload.tokens - 1) / workload.concurrent
    return Roofline(costs.reading(workload) / compute, steps * step)
