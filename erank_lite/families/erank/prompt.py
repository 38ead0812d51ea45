"""The prompt core: what the model reads, as token ids. No engine applies a template.

The message, its instructions and the truncation are ERank's (model cards of Alibaba-NLP/ERank-4B,
-14B and -32B; arXiv 2509.00520).
"""

from __future__ import annotations

import difflib

from erank_lite.errors import InputError
from erank_lite.families.prompts import QueryPrompts, Template, checked_query
from erank_lite.text.tokenizer import Tokenizer, clean

MESSAGE = """\
Given a query and a document, please give a relevance score of 0~10.
The goal or relevance definition is: {instruction}

Here is the query:
{query}

Here is the document:
{doc}

After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].
- 0 represents completely not related
- 10 means perfectly related.

Desired output format:
<think>put your thinking here</think><answer>Only allows an integer here</answer>

Your output:"""

_BRIGHT = (
    "A document is relevant if it contains information that helps answer or address the query. "
    "A document is not relevant if it doesn't contain information that helps answer the query, "
    "even if it mentions similar topics."
)
_THEOREMS = (
    "We want to find a document which uses the same mathematical process as the query. "
    "A document is relevant if it uses the same mathematical process as the query."
)
_PASSAGES = "Given a query, retrieval relevant passage."

INSTRUCTIONS = {
    "beir": _PASSAGES,
    "trec-dl": _PASSAGES,
    "followir": "Retrieval the relevant passage for the given query. Be careful about the extra "
    "requirements about relevance in the query.",
    "bright": _BRIGHT,
    "bright/aops": "We want to find different but similar math problems to the query. A document "
    "is relevant if it uses the same class of functions and shares any overlapping techniques.",
    "bright/biology": _BRIGHT,
    "bright/earth-science": _BRIGHT,
    "bright/economics": _BRIGHT,
    "bright/leetcode": "I am looking to find different problems that share similar data structures "
    "(of any kind) or algorithms (e.g. DFS, DP, sorting, traversals, etc.). I am looking for "
    "problems that share one or both of these similarities to the query. Does the passage below "
    "share any similarities? e.g. if there was a textbook on leetcode problems, this would be in "
    "the same book even though it could be in a different chapter.",
    "bright/pony": "I will use the programming language pony. But to solve the problem above, I "
    "need to know things about pony. A passage is relevant if it contains docs that match any part "
    "(even basic parts) of the code I will have to write for the above program.",
    "bright/psychology": _BRIGHT,
    "bright/robotics": _BRIGHT,
    "bright/stackoverflow": _BRIGHT,
    "bright/sustainable-living": _BRIGHT,
    "bright/theoremqa-q": _THEOREMS,
    "bright/theoremqa-t": _THEOREMS,
}
DEFAULT_INSTRUCTION = "beir"


def instruction_text(instruction: str | None) -> str:
    """Return the text of a named instruction, or `instruction` itself where it is free text.

    Raises:
        InputError: it looks like a name and is none.

    Example:
        >>> instruction_text(None) == instruction_text("BEIR")
        True
        >>> instruction_text("Find recipes without nuts.")
        'Find recipes without nuts.'
    """
    text = instruction or DEFAULT_INSTRUCTION
    key = text.strip().lower().replace("_", "-")
    if key in INSTRUCTIONS:
        return INSTRUCTIONS[key]
    # A single word is hardly a definition of relevance: close to a name, it is a slip of the pen.
    if " " not in key:
        known = {part: name for name in INSTRUCTIONS for part in (name, name.split("/")[-1])}
        close = {known[m]: 0 for m in difflib.get_close_matches(key, known, 3)}
        if close or key.startswith("bright/"):
            raise InputError(
                f"there is no instruction named {text!r}",
                f"did you mean {' or '.join(close)}?" if close else f"names are {', '.join(known)}",
            )
    return text


class PromptBuilder:
    """Makes prompts for one model."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str) -> None:
        """Render the template once, around the slots, so that it never sees foreign text.

        Args:
            tokenizer: the model's.
            chat_template: the checkpoint's own, in jinja2; treated as untrusted code.

        Raises:
            ModelError: the template fails, or does not carry a message through unchanged.
        """
        self._tokenizer = tokenizer
        self._template = Template.of_messages(
            tokenizer, chat_template, [("user", MESSAGE)], ("instruction", "query", "doc")
        )

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPrompts:
        """Return the maker of prompts for the documents of one query.

        Args:
            query: the query's text.
            instruction: a name from `INSTRUCTIONS` or free text; None means the BEIR one.
            truncate_length: cut the query and each document to this many tokens; None cuts nothing.

        Raises:
            InputError: an empty query, an unknown instruction, a length below 1.
        """
        query, length = checked_query(self._tokenizer, query, instruction, truncate_length)
        values = {"instruction": clean(instruction_text(instruction)), "query": query}
        return QueryPrompts(self._template, values, length)
