"""A transformer for PyTerrier: reranks the frame that a retriever gives.

Example:
    from erank_lite.integrations.pyterrier import ERankReranker

    pipeline = bm25 % 20 >> pt.text.get_text(dataset, "text") >> ERankReranker("erank-tiny")
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyterrier as pt

from erank_lite.integrations.ranking import Model, ranker


class ERankReranker(pt.Transformer):
    """Sets `score` to the relevance of each document, from 0 to 1, and ranks anew."""

    def __init__(self, model: Model = "erank-tiny", text_field: str = "text",
                 instruction: str | None = None, **options: Any) -> None:  # fmt: skip
        """Take a model's name, the address of `erank-lite serve`, or a `Reranker`.

        Args:
            model: that ranks.
            text_field: the column of the documents' texts.
            instruction: what relevance means.
            options: of `Reranker`, such as `thinking`.
        """
        super().__init__()
        self.text_field, self.instruction = text_field, instruction
        self._ranker = ranker(model, **options)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with new scores and ranks; other columns stay."""
        pt.validate.result_frame(inp, extra_columns=["query", self.text_field])
        frame = inp.assign(score=0.0)
        for _, rows in inp.groupby("qid", sort=False):
            texts = rows[self.text_field].tolist()
            ranked = self._ranker.rank(rows["query"].iloc[0], texts, self.instruction)
            for each in ranked:
                frame.loc[rows.index[each.index], "score"] = each.relevance
        return pt.model.add_ranks(frame)

    def __repr__(self) -> str:
        return "ERankReranker()"
