"""What all adapters have in common: texts in, numbers from 0 to 1 out, here or by a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.reranker import Reranker
from erank_lite.serve.relevance import relevance

Model = str | Path | Engine | Reranker
_TIMEOUT = 600.0  # seconds: a model that reasons on a CPU takes its time


@dataclass(frozen=True)
class Ranked:
    """A text with its place.

    Attributes:
        index: of the text given, from 0.
        relevance: from 0 to 1; see `erank_lite.serve.relevance`.
        result: all that is known of it.
    """

    index: int
    relevance: float
    result: dict[str, Any]


class Ranker(Protocol):
    """Ranks texts for a query."""

    def rank(
        self, query: str, texts: Sequence[str], instruction: str | None = None
    ) -> list[Ranked]:
        """Return every text, best first.

        Raises:
            InputError: the query or a text cannot be used.
            ModelError: the model, or the server, cannot go on.
        """

    def close(self) -> None:
        """Free the model, if it is this one's."""


def ranker(model: Model, *, api_key: str | None = None, **options: Any) -> Ranker:
    """Return what ranks with a model; nothing is loaded before its first use.

    Args:
        model: what `Reranker` takes, a `Reranker`, or the address of `erank-lite serve`.
        api_key: of the server; None means ERANK_LITE_API_KEY.
        options: of `Reranker`, such as `thinking`.

    Example:
        >>> tiny = ranker("erank-tiny", thinking="none")
        >>> texts = ["Dogs bark at strangers.", "The lion is the only cat that lives in groups."]
        >>> [ranked.index for ranked in tiny.rank("which cat lives in groups", texts)]
        [1, 0]
        >>> tiny.close()
    """
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        return _Served(model, api_key, options)
    return _Here(model, options)


def pair_scores(
    of: Ranker, pairs: Sequence[tuple[str, str]], instruction: str | None = None
) -> list[float]:
    """Return the relevance of each pair; pairs of one query are ranked together."""
    scores = [0.0] * len(pairs)
    by_query: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        by_query.setdefault(query, []).append(place)
    for query, places in by_query.items():
        for ranked in of.rank(query, [pairs[place][1] for place in places], instruction):
            scores[places[ranked.index]] = ranked.relevance
    return scores


class _Here:
    """Ranks with a model in this process."""

    def __init__(self, model: Model, options: dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._lock = threading.Lock()
        self._reranker = model if isinstance(model, Reranker) else None
        if self._reranker is not None and options:
            raise InputError(f"{', '.join(options)}: options belong to the Reranker given")

    def rank(
        self, query: str, texts: Sequence[str], instruction: str | None = None
    ) -> list[Ranked]:
        with self._lock:
            if self._reranker is None:
                assert not isinstance(self._model, Reranker)
                self._reranker = Reranker(self._model, **self._options)
        results = self._reranker.rerank(query, list(texts), instruction)
        numbers = relevance(results, self._reranker.family.best)
        return [Ranked(r["index"], n, r) for r, n in zip(results, numbers, strict=True)]

    def close(self) -> None:
        if self._reranker is not None and self._reranker is not self._model:
            self._reranker.close()


class _Served:
    """Ranks by a server, as `erank-lite serve` answers."""

    def __init__(self, address: str, api_key: str | None, options: dict[str, Any]) -> None:
        self._address = address.rstrip("/").removesuffix("/v1").removesuffix("/rerank")
        self._key = api_key or os.environ.get("ERANK_LITE_API_KEY")
        self._timeout = float(options.pop("timeout", _TIMEOUT))
        self._options = options

    def rank(
        self, query: str, texts: Sequence[str], instruction: str | None = None
    ) -> list[Ranked]:
        import httpx

        if not texts:
            return []
        body = {
            "query": query, "documents": list(texts), "instruction": instruction,
            "return_documents": False, "return_reasoning": True, **self._options,
        }  # fmt: skip
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            answer = httpx.post(
                f"{self._address}/v1/rerank", json=body, headers=headers, timeout=self._timeout
            )
        except httpx.HTTPError as error:
            raise ModelError(
                f"{self._address} does not answer: {error}", "start erank-lite serve there"
            ) from None
        try:
            found = answer.json()
        except ValueError:
            found = {}
        if answer.status_code != 200:
            message = found.get("message") or f"status {answer.status_code}"
            kind = InputError if answer.status_code in (400, 413) else ModelError
            raise kind(f"{self._address}: {message}")
        return [Ranked(r["index"], r["relevance_score"], r) for r in found["results"]]

    def close(self) -> None:
        """Nothing is held."""
