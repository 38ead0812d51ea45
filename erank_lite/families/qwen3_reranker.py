"""Qwen3-Reranker: does the document meet the requirements, yes or no, without reasoning.

Prompt and reading are those of its model cards (the Transformers variant) and of
QwenLM/Qwen3-Embedding, `examples/qwen3_reranker_transformers.py`, at commit f4ad0c4 (Apache-2.0).
The repository's vLLM example has other bytes, which the models were not trained with.
"""

from __future__ import annotations

import re

from erank_lite.families.base import Family, Thinking
from erank_lite.families.benchmarks import is_benchmark
from erank_lite.families.labels import LabelReading, Labels
from erank_lite.families.pointwise import Labelled
from erank_lite.families.prompts import QueryPrompts, Template, checked_query
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import clean

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {doc}"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def instruction_text(instruction: str | None) -> str:
    """Return free text as it is; for a benchmark's name, or nothing, the model's own instruction.

    Example:
        >>> instruction_text("beir") == instruction_text(None) == INSTRUCTION
        True
    """
    if instruction is None or not instruction.strip() or is_benchmark(instruction):
        return INSTRUCTION
    return instruction


class Qwen3Reranker(Labelled):
    """Asks whether a document meets the requirements. See `erank_lite.families.base.Pointwise`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model; see `erank_lite.families.pointwise.Labelled`.

        Raises:
            ModelError: `yes` or `no` is no single token of the model's.
        """
        labels = Labels.read(text.tokenizer, {"yes": 1, "no": 0})
        reading = LabelReading(text.tokenizer, text.end_ids, labels)
        super().__init__(text, context_length, thinking, reading)
        self._template = Template(
            text.tokenizer, PREFIX + BODY + SUFFIX, ("instruction", "query", "doc")
        )

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPrompts:
        """Return what makes the prompts of a query; see `erank_lite.families.base.Pointwise`."""
        text, length = checked_query(self.tokenizer, query, instruction, truncate_length)
        values = {"instruction": clean(instruction_text(instruction)), "query": text}
        return QueryPrompts(self._template, values, length)


FAMILY = Family(
    name="qwen3-reranker",
    models=tuple(f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")),
    unit="a document",
    make=Qwen3Reranker,
    source="model cards; QwenLM/Qwen3-Embedding f4ad0c4",
    licence="Apache-2.0",
    verified="prompt and reading, from the authors' code; no weights run",
    instruction_text=instruction_text,
    pattern=re.compile(r"qwen3[-_. ]?reranker", re.IGNORECASE),
    thinks=False,
    truncate_length=8192,
)
