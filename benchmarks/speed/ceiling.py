"""The most that the machine could do of a work, by its compute and its bandwidth: a roofline.

Reading costs two operations for each weight of each token, and attention. A step of decoding takes
the longer of two times: to bring all weights, and the keys and values of every document under way,
from memory; or to compute a row of each document. No program can be faster unless it computes less
than the model asks for, overlaps one phase's computing with the other's bringing (the sum here is
of one after the other), or finds weights in the processor's cache, which only small models fit
into. So the roofline is the outer limit: real kernels also convert quantized weights, take sums
and softmaxes, and wait for each other. The practical ceiling (`batched_bench`) is what llama.cpp's
own kernels reach on such shapes with nothing around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from erank_lite.benchmarks.speed.work import Work
from erank_lite.machine.planning import ModelShape
from erank_lite.models.gguf import GGUFFile


@dataclass(frozen=True)
class Costs:
    """What a model asks of a machine, by its file's shapes.

    Attributes:
        token: floating-point operations of a token in all layers, attention apart.
        output: of the logits at one place.
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
    def of(cls, gguf: GGUFFile) -> Costs:
        """Return the costs of a file with dense layers, its keys and values in 16 bits."""
        facts = ModelShape.of(gguf, 0)
        shapes = {t.name: t.shape for t in gguf.tensors}
        matrices = [s for n, s in shapes.items() if n.startswith("blk.") and len(s) > 1]
        output = shapes.get("output.weight", shapes.get("token_embd.weight", (0,)))
        return cls(
            token=2 * sum(map(prod, matrices)),
            output=2 * prod(output),
            pair=4 * facts.layers * facts.heads * facts.head_size,
            weights=sum(facts.layer_sizes) + facts.output_size,
            cell=facts.cache_size,
        )

    def reading(self, work: Work) -> int:
        """Return the operations that reading takes: what is shared once, the rest per document."""
        tokens = work.shared + work.documents * work.own
        # A token looks at itself and at all before it.
        shared = work.shared * (work.shared + 1) // 2
        own = work.own * work.shared + work.own * (work.own + 1) // 2
        pairs = shared + work.documents * own
        return tokens * self.token + pairs * self.pair + work.documents * self.output

    def row(self, past: float) -> float:
        """Return the operations of a token that is decoded after `past` others."""
        return self.token + self.output + (past + 1) * self.pair


@dataclass(frozen=True)
class Roofline:
    """The least time of a work, in seconds."""

    reading: float
    decoding: float

    def rate(self, work: Work) -> float:
        """Return the documents per second."""
        return work.documents / (self.reading + self.decoding)


def roofline(costs: Costs, work: Work, gflops: float, gigabytes_per_second: float) -> Roofline:
    """Return the least time that `work` takes where the machine computes and reads at these rates.

    The first token comes from reading; each further one takes a step. All steps are as wide as
    the work allows.
    """
    compute, bandwidth = gflops * 1e9, gigabytes_per_second * 1e9
    past = work.shared + work.own + (work.tokens - 1) / 2  # in the mean
    bring = (costs.weights + work.together * past * costs.cell) / bandwidth
    step = max(bring, work.together * costs.row(past) / compute)
    steps = work.documents * (work.tokens - 1) / work.together
    return Roofline(costs.reading(work) / compute, steps * step)
