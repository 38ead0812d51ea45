"""Draws a token where a family does not take the most probable."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from erank_lite.types import Sampling


def draw(
    logits: npt.NDArray[np.float32], sampling: Sampling, prompt: Sequence[int], place: int
) -> int:
    """Return the token that is drawn at a place of a completion.

    The temperature comes first, then the nucleus (top-p), as in Transformers and vLLM. The draw
    depends on the seed, the prompt and the place alone: what shares the batch, and a document that
    is started again, change nothing.

    Args:
        logits: of the vocabulary, of one place.
        sampling: how.
        prompt: ids of the prompt.
        place: tokens that were generated before.

    Example:
        >>> logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
        >>> drawn = [draw(logits, Sampling(1.0, 0.75), [7], place) for place in range(1000)]
        >>> 550 < drawn.count(0) < 700, drawn.count(2)
        (True, 0)
    """
    scaled = logits.astype(np.float64) / sampling.temperature
    mass = np.exp(scaled - scaled.max())
    mass /= mass.sum()
    order = np.argsort(-mass, kind="stable")
    reached = np.cumsum(mass[order])
    # The token that reaches the limit is the last of the nucleus.
    kept = int(np.searchsorted(reached, sampling.top_p)) + 1
    below = reached[:kept]
    return int(order[np.searchsorted(below, _uniform(sampling.seed, prompt, place) * below[-1])])


def _uniform(seed: int, prompt: Sequence[int], place: int) -> float:
    """Return a number from 0 to below 1."""
    state = hashlib.blake2b(f"{seed},{place},".encode(), digest_size=8)
    state.update(array("I", prompt).tobytes())
    return (int.from_bytes(state.digest(), "little") >> 11) / 2**53
