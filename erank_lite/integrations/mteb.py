"""A cross-encoder for MTEB.

Example:
    import mteb
    from erank_lite.integrations.mteb import ERankCrossEncoder

    mteb.evaluate(ERankCrossEncoder("erank-tiny"), task.convert_to_reranking(first_stage, 100))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mteb.models.model_meta import ModelMeta

from erank_lite.integrations.ranking import Model, ranker


class ERankCrossEncoder:
    """Scores pairs of queries and documents, as `mteb.models.CrossEncoderProtocol` has it."""

    def __init__(
        self, model_name: Model = "erank-tiny", revision: str | None = None,
        device: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Take a model's name, the address of `erank-lite serve`, or a `Reranker`."""
        self._name = str(model_name)
        self._ranker = ranker(model_name, **options)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What MTEB keeps of a model."""
        return ModelMeta(
            loader=ERankCrossEncoder, name=f"erank-lite/{self._name.replace('/', '__')}",
            revision=None, release_date=None, languages=["eng-Latn"], n_parameters=None,
            memory_usage_mb=None, max_tokens=4096, embed_dim=None, license=None, open_weights=True,
            public_training_code=None, public_training_data=None, framework=[],
            similarity_fn_name=None, use_instructions=True, training_datasets=None,
            model_type=["cross-encoder"], modalities=["text"],
        )  # fmt: skip

    def predict(
        self, inputs1: Any, inputs2: Any, *, task_metadata: Any, hf_split: str, hf_subset: str,
        prompt_type: Any = None, **_: Any,
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        """Return the relevance of each pair, from 0 to 1."""
        queries = [row for batch in inputs1 for row in _rows(batch)]
        documents = [row for batch in inputs2 for row in _rows(batch)]
        default = _instruction(task_metadata.name)
        groups: dict[tuple[str, str | None], list[int]] = {}
        for place, row in enumerate(queries):
            query = row.get("query") or row["text"]
            groups.setdefault((query, row.get("instruction") or default), []).append(place)
        scores = np.zeros(len(queries), np.float32)
        for (query, instruction), places in groups.items():
            texts = [documents[place]["text"] for place in places]
            for ranked in self._ranker.rank(query, texts, instruction):
                scores[places[ranked.index]] = ranked.relevance
        return scores


def _rows(batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the rows of a batch, which is a list of values for each key."""
    names = [name for name in ("text", "query", "instruction") if name in batch]
    columns = [batch[name] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _instruction(task: str) -> str | None:
    """Return the name of the instruction of a task's benchmark, where there is one."""
    return next((name for name in ("bright", "followir") if name in task.lower()), None)
