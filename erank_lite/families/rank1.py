"""Rank1 (arXiv 2502.18418): is the passage relevant, true or false, after reasoning.

Prompt, query templates and reading are those of orionw/rank1, `rank1.py` and `prompts.py`, at
commit 30585c2 (MIT). The model is a base model: its prompt has no chat template. There, text in
queries and passages that spells an added token becomes one; here it stays text.
"""

from __future__ import annotations

import difflib
import re

from erank_lite.errors import InputError
from erank_lite.families.base import Family, Thinking
from erank_lite.families.labels import LabelReading, Labels
from erank_lite.families.pointwise import Labelled
from erank_lite.families.prompts import QueryPrompts, Template, checked_query
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import clean

PROMPT = """\
Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.
Query: {query}
Passage: {doc}
<think>"""

_FILL = "FILL_QUERY_HERE"
TEMPLATES = {
    "beir/scifact": (
        "Claim: FILL_QUERY_HERE\n\nA relevant passage would provide evidence that either "
        "**supports** or **refutes** this claim. A passage with any information on any related "
        "subpart should be relevant."
    ),
    "beir/climate-fever": (
        "I am looking to write an essay for and need to find evidence the supports or "
        "contradict this statement:\n\nFILL_QUERY_HERE\n\nIf the passage provides information "
        "that supports or contradicts it in any way it is relevant so I can cite it.\n\n"
    ),
    "beir/trec-covid": (
        "FILL_QUERY_HERE If the article answers any part of the question it is relevant."
    ),
    "beir/arguana": (
        "I am looking to write an essay and need to find counterarguments against this "
        "statement:\n\nFILL_QUERY_HERE\n\nDoes this passage have any counterargument or "
        "evidence that could be used to help me?\n\n"
    ),
    "beir/dbpedia-entity": (
        "I am looking to write an essay on this topic and need as much related background "
        "information to help me. The topic is:\n\nFILL_QUERY_HERE\n\nIf the passage provides "
        "any background information that could be connected it is relevant.\n\n"
    ),
    "beir/fiqa": ("FILL_QUERY_HERE Find a passage that would be a good answer from StackExchange."),
    "beir/nfcorpus": (
        "Topic: FILL_QUERY_HERE\n\nGiven the above topic, I need to learn about all aspects of "
        "it. It does not need to be directly relevant, only tangentially informational. Please "
        "mark as relevant any passages with even weak connections. I need to learn fast for my "
        "job, which means I need to understand each part individually.\n\nAgain remember, any "
        "connection means relevant even if indirect. So if it is not addressed, that is okay "
        "-- it does not need to be explicitly. \n\nFind me passages with any type of "
        "connection, including weak connections!!!!"
    ),
    "beir/touche-2020": (
        "I am looking to write an essay and need to find arguments for or against this "
        "statement:\n\nFILL_QUERY_HERE\n\nDoes this passage have any argument or evidence that "
        "could be used to help me?\n\n"
    ),
    "beir/scidocs": (
        "papers that could be cited in FILL_QUERY_HERE. Anything with even indirect relevance "
        "should be relevant. This includes papers in the same broader field of science"
    ),
    "bright": (
        "Can you find background information about the concepts used to answer the "
        "question:\n\nFILL_QUERY_HERE\n\nA passage is relevant if it contains background "
        "information about a **sub-concept** that someone might cite/link to when answering "
        "the above question."
    ),
    "bright/aops": (
        "Find different but similar math problems to FILL_QUERY_HERE\n\nA document is relevant "
        "if it uses the same class of functions and shares **any** overlapping techniques."
    ),
    "bright/theoremqa-q": (
        "Find a passage which uses the same mathematical process as this one: FILL_QUERY_HERE"
    ),
    "bright/leetcode": (
        "I am looking to find different problems that share similar data structures (of any "
        "kind) or algorithms (e.g. DFS, DP, sorting, traversals, etc.). I am looking for "
        "problems that share one or both of these similarities to this:\n    "
        "\nFILL_QUERY_HERE\n\nDoes this passage share any similarities? e.g. if there was a "
        "textbook on leetcode problems, this would be in the same book even though it could be "
        "in a different chapter. \n\n\n"
    ),
    "bright/pony": (
        "I will use the programming language pony. Problem: FILL_QUERY_HERE\n\nBut to solve "
        "the problem above, I need to know things about pony. A passage is relevant if it "
        "contains docs that match **any** part (even basic parts) of the code I will have to "
        "write for the above program."
    ),
    "bright/theoremqa-t": (
        "Find a passage which uses the same mathematical process as this one: FILL_QUERY_HERE"
    ),
}
"""How a query is put in the benchmarks that have a form of their own, `FILL_QUERY_HERE` in it."""


def _template(instruction: str) -> str | None:
    """Return the template that a benchmark's name means; those of BRIGHT without one share one."""
    key = instruction.strip().lower().replace("_", "-")
    if key.startswith("bright/"):
        return TEMPLATES.get(key, TEMPLATES["bright"])
    return TEMPLATES.get(key)


def instruction_text(instruction: str | None) -> str | None:
    """Return the query's template by name, or free text, which follows the query.

    Raises:
        InputError: it looks like a name and is none.

    Example:
        >>> instruction_text("beir/trec-covid")
        'FILL_QUERY_HERE If the article answers any part of the question it is relevant.'
    """
    if instruction is None or not instruction.strip():
        return None
    key = instruction.strip().lower()
    if " " in key or _template(instruction):
        return _template(instruction) or instruction
    if key not in ("beir", "trec-dl", "followir"):  # asked without any
        close = difflib.get_close_matches(key, TEMPLATES, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"names: {', '.join(TEMPLATES)}"
        raise InputError(f"rank1 has no template named {instruction!r}", hint)
    return None


class Rank1(Labelled):
    """Asks whether a passage is relevant. See `erank_lite.families.base.Pointwise`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model; see `erank_lite.families.pointwise.Labelled`.

        Raises:
            ModelError: ` true` or ` false` is no single token of the model's.
        """
        labels = Labels.read(text.tokenizer, {" true": 1, " false": 0})
        reading = LabelReading(text.tokenizer, text.end_ids, labels, reasons=True, cut_back=True)
        super().__init__(text, context_length, thinking, reading, max_new_tokens=8192)
        self._template = Template(text.tokenizer, PROMPT, ("query", "doc"))

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPrompts:
        """Return what makes the prompts of a query; see `erank_lite.families.base.Pointwise`."""
        text, length = checked_query(self.tokenizer, query, instruction, truncate_length)
        asked = instruction_text(instruction)
        if asked is not None:
            asked = clean(asked)
            text = asked.replace(_FILL, text) if _FILL in asked else f"{text} {asked}".strip()
        return QueryPrompts(self._template, {"query": text}, length)


FAMILY = Family(
    name="rank1",
    models=tuple(f"jhu-clsp/rank1-{size}" for size in ("0.5b", "1.5b", "3b", "7b", "14b", "32b")),
    unit="a document",
    make=Rank1,
    source="orionw/rank1 30585c2",
    licence="MIT",
    verified="prompt, query templates and reading, from the authors' code; no weights run",
    instruction_text=instruction_text,
    pattern=re.compile(r"(?<![a-z])rank1(?![0-9])", re.IGNORECASE),
)
