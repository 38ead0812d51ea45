"""Prompts as token ids, in the three shapes that models are trained with. No engine makes them.

A template is fixed text around slots: the fixed text may hold added tokens, what fills a slot stays
text whatever it spells.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from erank_lite.errors import InputError, ModelError
from erank_lite.text.chat_template import render
from erank_lite.text.tokenizer import Tokenizer, clean
from erank_lite.types import Prompt

_SLOT = re.compile(r"\{([a-z]+)([0-9]*)\}")
# Stand-ins for the slots while a chat template is rendered: private-use characters, so that no
# template can mean anything by them, around the slot's name.
_MARK = "\ue0ea{}\ue0eb"
_MARKS = re.compile("\ue0ea([a-z0-9]+)\ue0eb")


class Template:
    """A prompt with slots, such as `{query}` and `{doc}`, or `{doc1}`, `{doc2}`, … for several.

    Attributes:
        tokenizer: the model's.
        slots: names of the slots, in their order; one may come more than once.
        think_prefix: see `erank_lite.types.Prompt`.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, slots: Sequence[str]) -> None:
        """Take text that is read as it stands, without a chat template.

        Args:
            tokenizer: the model's.
            text: with slots in braces; other braces are text.
            slots: names of the slots, digits after them apart; that of documents is `doc`.
        """
        self.tokenizer = tokenizer
        parts = _MARKS.split(_marked(text, slots))
        self._fixed, self.slots = parts[0::2], tuple(parts[1::2])
        self._documents = [name for name in self.slots if name.startswith("doc")]
        self._first = self.slots.index(self._documents[0]) if self._documents else 0
        self._border = _last_word(self._fixed[self._first]) if self._documents else 0
        opened = re.search(r"<think>(\s*)\Z", self._fixed[-1])
        self.think_prefix = opened[1] if opened else None

    @classmethod
    def of_messages(
        cls,
        tokenizer: Tokenizer,
        chat_template: str,
        messages: Sequence[tuple[str, str]],
        slots: Sequence[str],
        begun: str = "",
    ) -> Template:
        """Render a chat template once, around the slots, so that it never sees foreign text.

        Args:
            tokenizer: the model's.
            chat_template: the checkpoint's own, in jinja2; treated as untrusted code.
            messages: (role, content with slots).
            slots: as above.
            begun: how the answer begins; it is read, not written.

        Raises:
            ModelError: the template fails, or does not carry the messages through unchanged.
        """
        marked = [{"role": role, "content": _marked(text, slots)} for role, text in messages]
        rendered = render(chat_template, marked, tokenizer.specials)
        at = 0
        for message in marked:
            found = rendered.find(message["content"], at)
            if found < 0:
                break
            at = found + len(message["content"])
        else:
            found = len(_MARKS.findall(rendered))
            if found == sum(len(_MARKS.findall(message["content"])) for message in marked):
                return cls._of_marked(tokenizer, rendered + begun)
        raise ModelError(
            "the chat template does not carry the messages through once and unchanged, so this "
            "family's prompt cannot be made with it"
        )

    @classmethod
    def _of_marked(cls, tokenizer: Tokenizer, text: str) -> Template:
        made = cls.__new__(cls)
        # Braces of the template itself are text: only marks are slots by now.
        cls.__init__(made, tokenizer, text, ())
        return made

    def prompt(self, values: Mapping[str, str], room: int | None = None) -> Prompt:
        """Return the prompt that these values make.

        Args:
            values: text without lone surrogates (`erank_lite.text.tokenizer.clean`), by slot.
            room: the most tokens the prompt may have; a longer one is cut in the documents, the
                longest first.

        Raises:
            InputError: not even empty documents leave a prompt that fits.
        """
        ids, shared = self._encode(values)
        if room is None or len(ids) <= room:
            return Prompt(tuple(ids), shared, self.think_prefix)
        documents = {name: self.tokenizer.encode(values[name]).ids for name in self._documents}
        keep = max(map(len, documents.values()), default=0)
        while True:
            keep = _shorter([len(tokens) for tokens in documents.values()], keep, len(ids) - room)
            cut = {
                name: self.tokenizer.decode(tokens[:keep]) if len(tokens) > keep else values[name]
                for name, tokens in documents.items()
            }
            ids, shared = self._encode({**values, **cut})
            if len(ids) <= room:
                return Prompt(tuple(ids), shared, self.think_prefix, truncated=True)
            if keep == 0:
                raise InputError(
                    f"the query and instruction take {len(ids)} tokens before any document, "
                    f"but only {room} fit the context",
                    "shorten them, lower truncate_length or the thinking budget, or use a model "
                    "with a longer context",
                )

    def _encode(self, values: Mapping[str, str]) -> tuple[list[int], int]:
        """Return the prompt's ids and how many of them no document can change."""
        texts: list[str] = []
        trusted: list[tuple[int, int]] = []
        at = 0
        for fixed, filled in zip(
            self._fixed, (*(values[name] for name in self.slots), ""), strict=True
        ):
            trusted.append((at, at + len(fixed)))
            texts += [fixed, filled]
            at += len(fixed) + len(filled)
        encoding = self.tokenizer.encode("".join(texts), trusted)
        border = trusted[self._first][0] + self._border
        shared = next((i for i, end in enumerate(encoding.ends) if end > border), 0)
        return encoding.ids, shared


def _marked(text: str, slots: Sequence[str]) -> str:
    return _SLOT.sub(
        lambda found: _MARK.format(found[1] + found[2]) if found[1] in slots else found[0], text
    )


def _last_word(text: str) -> int:
    """Return where the last word ends that is followed by something else.

    What comes after `text` can influence no token before: every byte-level BPE here splits words
    from what follows before it merges anything.
    """
    return next(
        (i + 1 for i in reversed(range(len(text) - 1))
         if text[i].isalpha() and not text[i + 1].isalnum()), 0,
    )  # fmt: skip


def _shorter(lengths: Sequence[int], keep: int, over: int) -> int:
    """Return how many tokens each document may keep, so that all have `over` fewer together."""
    wanted = sum(min(length, keep) for length in lengths) - over
    keep -= 1
    while keep > 0 and sum(min(length, keep) for length in lengths) > wanted:
        keep -= 1
    return max(0, keep)


class QueryPrompts:
    """Prompts of one query, for a family that asks about each document alone."""

    def __init__(
        self, template: Template, values: Mapping[str, str], truncate_length: int | None
    ) -> None:
        """Take what all documents have in common.

        Args:
            template: with the slot `doc`.
            values: of its other slots.
            truncate_length: cut each document to this many tokens; None cuts nothing.
        """
        self._template, self._values, self._length = template, values, truncate_length

    def document(self, doc: str, room: int | None = None) -> Prompt:
        """Return the prompt for one document.

        Args:
            doc: the document's text, which may hold anything.
            room: the most tokens the prompt may have; a longer one is cut in the document.

        Raises:
            InputError: not even an empty document leaves a prompt that fits.
        """
        doc = clean(doc)
        cut = cut_text(self._template, doc, self._length)
        prompt = self._template.prompt({**self._values, "doc": cut}, room)
        return prompt if cut == doc else replace(prompt, truncated=True)


def cut_text(template: Template, text: str, length: int | None) -> str:
    """Return the first `length` tokens of `text`; all of it where there is no limit."""
    return text if length is None else template.tokenizer.cut(text, length)


def checked_query(
    tokenizer: Tokenizer, query: Any, instruction: Any, truncate_length: Any
) -> tuple[str, int | None]:
    """Return the query as it is read, cut where that is asked for, and the length for documents.

    Raises:
        InputError: an empty query, something that is no text, a length below 1.
    """
    if not isinstance(query, str) or not isinstance(instruction, str | None):
        raise InputError("the query and the instruction must be strings")
    query = clean(query)
    if not query.strip():
        raise InputError("the query is empty", "give the words to look for")
    length = _checked_length(truncate_length)
    return (query if length is None else tokenizer.cut(query, length)), length


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
