"""The interface of sentence-transformers' CrossEncoder, without torch: `predict` and `rank`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from erank_lite.errors import InputError
from erank_lite.integrations.ranking import Model, Ranked, pair_scores, ranker


class ERankCrossEncoder:
    """Scores pairs of query and text, and ranks texts.

    Example:
        >>> encoder = ERankCrossEncoder("erank-tiny", thinking="none")
        >>> lions = "The lion is the only cat that lives in groups."
        >>> scores = encoder.predict([("which cat lives in groups", lions),
        ...                           ("which cat lives in groups", "Dogs bark at strangers.")])
        >>> bool(scores[0] > scores[1]), scores.dtype.name
        (True, 'float32')
    """

    def __init__(self, model: Model = "erank-tiny", **options: Any) -> None:
        """Take a model's name, the address of `erank-lite serve`, or a `Reranker`."""
        self._ranker = ranker(model, **options)

    def predict(
        self,
        inputs: Sequence[Any] | None = None,
        prompt: str | None = None,
        *,
        sentences: Sequence[Any] | None = None,
        **_: Any,
    ) -> npt.NDArray[np.float32] | np.float32:
        """Return the relevance of each pair, from 0 to 1, in the order given.

        Args:
            inputs: (query, text) pairs, or one pair, which gets a number.
            prompt: what relevance means.
            sentences: the older name of `inputs`.

        Raises:
            InputError: these are no pairs.
        """
        pairs = sentences if inputs is None else inputs
        if pairs is None:
            raise InputError("there are no pairs", "give (query, text) pairs")
        single = len(pairs) == 2 and all(isinstance(part, str) for part in pairs)
        found = [tuple(pairs)] if single else [tuple(pair) for pair in pairs]
        if any(len(p) != 2 or not all(isinstance(t, str) for t in p) for p in found):
            raise InputError("each input must be a pair of texts", "give (query, text) pairs")
        scores = np.array(pair_scores(self._ranker, found, prompt), np.float32)
        return np.float32(scores[0]) if single else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt: str | None = None,
        **_: Any,
    ) -> list[dict[str, Any]]:
        """Return `corpus_id` and `score` of each text, best first; with its `text` if asked for."""
        ranked = self._ranker.rank(query, documents, prompt)[:top_k]
        return [_row(each, documents if return_documents else None) for each in ranked]


def _row(ranked: Ranked, documents: Sequence[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"corpus_id": ranked.index, "score": ranked.relevance}
    return row if documents is None else row | {"text": documents[ranked.index]}
