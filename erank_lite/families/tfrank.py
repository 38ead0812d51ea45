"""TFRank: yes or no, and a grade from 0 to 4 in parentheses, with or without reasoning.

Prompt and reading are those of JOHNNY-fans/TFRank, `evaluation/run_eval.py` and its training
sample, at commit 1876596 (code Apache-2.0; the weights' licence is not known).
"""

from __future__ import annotations

import re

from erank_lite.families.base import Family, Thinking, no_instruction
from erank_lite.families.labels import LabelReading, Labels
from erank_lite.families.pointwise import Labelled
from erank_lite.families.prompts import QueryPrompts, Template, checked_query
from erank_lite.models.text import ModelText

SYSTEM = (
    "Based on the relevance of the Documents to the Query and the Instruct provided to complete "
    "the task."
)
USER = """\
<Instruct>: Please judge the relevance strength between the query and the document, and directly \
output the relevance judgment (yes or no), followed by the relevance score in parentheses, e.g., \
yes(score) or no(score).


- Relevance scores are represented by numbers from 0 to 4, with the following meanings:
0 means completely irrelevant,
1 means weakly relevant,
2 means moderately relevant,
3 means strongly relevant,
4 means completely relevant.

- For binary relevance judgment (yes or no), the rule is:
Scores 0 and 1 are considered irrelevant and represented as "no",
Scores 2, 3, and 4 are considered relevant and represented as "yes".


<Query>: {query}


<Document>: {doc}"""
NO_THINKING, THINKING = " /no think", " /think"
_BEGUN = "<think>\n\n</think>\n\n"


class TFRank(Labelled):
    """Asks for a grade from 0 to 4. See `erank_lite.families.base.Pointwise`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model; see `erank_lite.families.pointwise.Labelled`.

        Raises:
            ModelError: the chat template does not carry the messages, or a digit is no token.
        """
        self._labels = Labels.read(text.tokenizer, {str(grade): grade for grade in range(5)})
        self._end_ids = text.end_ids
        self.tokenizer = text.tokenizer
        super().__init__(
            text, context_length, thinking, self.reading_in(thinking), max_new_tokens=1024
        )
        self._templates = {
            reasons: Template.of_messages(
                text.tokenizer, text.chat_template,
                [("system", SYSTEM), ("user", USER + (THINKING if reasons else NO_THINKING))],
                ("query", "doc"), begun="" if reasons else _BEGUN,
            )
            for reasons in (True, False)
        }  # fmt: skip

    def reading_in(self, thinking: Thinking) -> LabelReading:
        """Return how the grade is reached in a mode of thinking."""
        reasons = thinking != "none"
        return LabelReading(
            self.tokenizer, self._end_ids, self._labels, reasons, marks=(b"yes(", b"no(")
        )

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPrompts:
        """Return what makes the prompts of a query; see `erank_lite.families.base.Pointwise`."""
        text, length = checked_query(self.tokenizer, query, instruction, truncate_length)
        template = self._templates[self.thinking != "none"]
        return QueryPrompts(template, {"query": text}, length)


FAMILY = Family(
    name="tfrank",
    models=tuple(f"Johnnyfans/TFRank-GRPO-Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B")),
    unit="a document",
    make=TFRank,
    source="JOHNNY-fans/TFRank 1876596",
    licence="not known",
    verified="prompt (of its training sample) and reading, from the authors' code; no weights run",
    instruction_text=no_instruction("tfrank"),
    pattern=re.compile(r"(?<![a-z])tfrank", re.IGNORECASE),
    best=4.0,
)
