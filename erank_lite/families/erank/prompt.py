"""The prompt core: what the model reads, as token ids. No engine applies a template.

The message, its instructions and the truncation are ERank's (model cards of Alibaba-NLP/ERank-4B,
-14B and -32B; arXiv 2509.00520).
"""

from __future__ import annotations

import difflib
import operator
import re
from dataclasses import dataclass
from typing import Any

from erank_lite.errors import InputError, ModelError
from erank_lite.text.chat_template import render
from erank_lite.text.tokenizer import Tokenizer, clean
from erank_lite.types import Prompt

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

_SLOTS = re.compile(r"\{(instruction|query|doc)\}")
# Stand-ins for the slots while the template is rendered: private-use characters, so that no
# template can mean anything by them, around the slot's name.
_MARK = "\ue0ea{}\ue0eb"
_MARKS = re.compile("\ue0ea(instruction|query|doc)\ue0eb")
# A document can influence no token before the end of this line's words: every byte-level BPE here
# splits words from what follows before it merges anything.
_BEFORE_DOCUMENT = "Here is the document"


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
        message = _SLOTS.sub(lambda slot: _MARK.format(slot[1]), MESSAGE)
        rendered = render(chat_template, [{"role": "user", "content": message}], tokenizer.specials)
        if message not in rendered or len(_MARKS.findall(rendered)) != 3:
            raise ModelError(
                "the chat template does not carry the user's message through once and unchanged, "
                "so ERank's prompt cannot be made with it"
            )
        parts = _MARKS.split(rendered)
        self._fixed = parts[0::2]
        opened = re.search(r"<think>(\s*)\Z", rendered)
        self._think_prefix = opened[1] if opened else None

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> QueryPromptBuilder:
        """Return the maker of prompts for the documents of one query.

        Args:
            query: the query's text.
            instruction: a name from `INSTRUCTIONS` or free text; None means the BEIR one.
            truncate_length: cut the query and each document to this many tokens; None cuts nothing.

        Raises:
            InputError: an empty query, an unknown instruction, a length below 1.
        """
        if not isinstance(query, str) or not isinstance(instruction, str | None):
            raise InputError("the query and the instruction must be strings")
        query = clean(query)
        if not query.strip():
            raise InputError("the query is empty", "give the words to look for")
        truncate_length = _checked_length(truncate_length)
        text = query if truncate_length is None else self._tokenizer.cut(query, truncate_length)
        head, between, before, after = self._fixed
        return QueryPromptBuilder(
            self._tokenizer,
            (head, between, before, after),
            (clean(instruction_text(instruction)), text),
            truncate_length,
            self._think_prefix,
        )


def _checked_length(length: Any) -> int | None:
    if length is None:
        return None
    try:
        number = operator.index(length)  # numpy's integers too
    except TypeError:
        number = 0
    if number < 1 or isinstance(length, bool):
        raise InputError(f"truncate_length must be an integer from 1 up, not {length!r}")
    return number


@dataclass(frozen=True)
class QueryPromptBuilder:
    """Prompts of one query; see `PromptBuilder.query`."""

    _tokenizer: Tokenizer
    _fixed: tuple[str, str, str, str]
    _filled: tuple[str, str]
    _truncate_length: int | None
    _think_prefix: str | None

    def document(self, doc: str, room: int | None = None) -> Prompt:
        """Return the prompt for one document.

        Args:
            doc: the document's text, which may hold anything.
            room: the most tokens the prompt may have; a longer one is cut in the document.

        Raises:
            InputError: not even an empty document leaves a prompt that fits.
        """
        doc = clean(doc)
        cut = (
            doc
            if self._truncate_length is None
            else self._tokenizer.cut(doc, self._truncate_length)
        )
        ids, shared = self._encode(cut)
        if room is not None and len(ids) > room:
            cut, ids, shared = self._fit(cut, len(ids), room)
        return Prompt(tuple(ids), shared, self._think_prefix, truncated=cut != doc)

    def _fit(self, doc: str, length: int, room: int) -> tuple[str, list[int], int]:
        """Cut `doc` until the prompt, now of `length` tokens, has at most `room`."""
        tokens = self._tokenizer.encode(doc).ids
        keep = len(tokens)
        while True:
            keep = max(0, min(keep - 1, keep - (length - room)))
            text = self._tokenizer.decode(tokens[:keep])
            ids, shared = self._encode(text)
            length = len(ids)
            if length <= room:
                return text, ids, shared
            if keep == 0:
                raise InputError(
                    f"the query and instruction take {length} tokens before any document, "
                    f"but only {room} fit the context",
                    "shorten them, lower truncate_length or the thinking budget, or use a model "
                    "with a longer context",
                )

    def _encode(self, doc: str) -> tuple[list[int], int]:
        """Return the prompt's ids and how many of them no document can change."""
        texts: list[str] = []
        trusted: list[tuple[int, int]] = []
        at = 0
        for fixed, filled in zip(self._fixed, (*self._filled, doc, ""), strict=True):
            trusted.append((at, at + len(fixed)))
            texts += [fixed, filled]
            at += len(fixed) + len(filled)
        encoding = self._tokenizer.encode("".join(texts), trusted)
        start, _ = trusted[2]
        border = start + self._fixed[2].rindex(_BEFORE_DOCUMENT) + len(_BEFORE_DOCUMENT)
        shared = next((i for i, end in enumerate(encoding.ends) if end > border), 0)
        return encoding.ids, shared
