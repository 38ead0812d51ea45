"""Graded queries as token ids, with the answer that is to be learnt."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

import Stemmer
from bm25s.stopwords import STOPWORDS_EN_PLUS
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.families.erank.prompt import INSTRUCTIONS
from training.pairs import read_graded
from training.texts import read_rows
from training.tokenizer import template_parts

HELD_OUT = 300  # queries, the last ones, that are never trained on
_STOP = frozenset(STOPWORDS_EN_PLUS) | {"tell", "know", "find", "show", "give", "information"}
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_STEMMER = Stemmer.Stemmer("english")
_MOST_NAMED = 3
_PROMPTS = (
    (INSTRUCTIONS["beir"], 12),
    ("Retrieve relevant documents for the query.", 3),
    ("Find the documents that answer the query.", 1),
    ("Given a web search query, retrieve relevant passages that answer the query.", 1),
    ("Given an entity name or description, retrieve the matching entries.", 1),
    (INSTRUCTIONS["followir"], 1),
    (INSTRUCTIONS["bright"], 1),
)


class Example(NamedTuple):
    ids: list[int]
    answer: int
    """Where the first token of the answer is predicted: the place of `<answer>`."""
    reasoning: tuple[int, int]
    """The places whose next tokens are the reasoning in its tags; empty where there is none."""
    query_end: int
    document_end: int
    score: float
    """The teacher's grade, 0 to 10."""
    query: int
    """Number of the group that it belongs to."""


def _stem(word: str) -> str:
    return str(_STEMMER.stemWord(word.lower()))


def _terms(query: str) -> list[str]:
    words = [w for w in _WORD.findall(query) if len(w) > 1 and w.lower() not in _STOP]
    return list(dict.fromkeys(w.lower() for w in words))


def _held(document: str) -> set[str]:
    held = {_stem(w) for w in _WORD.findall(document)}
    return held | {part for w in held if "-" in w for part in w.split("-")}


def reasoning(query: str, document: str) -> str:
    """Return which of the query's terms the document holds, by their stems: its first three.

    Example:
        >>> reasoning("how do plants make food", "A plant makes its own food.")
        'Found: plants, make, food.'
    """
    held = _held(document)
    found = [w for w in _terms(query) if _stem(w) in held]
    return f"Found: {', '.join(found[:_MOST_NAMED])}." if found else "Found none of the terms."


def is_true(said: str, query: str, document: str) -> bool:
    """Return whether all terms named are in query and document, and `none` only where it is so."""
    held, terms = _held(document), _terms(query)
    if said == "Found none of the terms.":
        return not any(_stem(w) in held for w in terms)
    named = re.fullmatch(r"Found: (.+)\.", said)
    return bool(named) and all(
        w in terms and _stem(w) in held for w in (named[1].split(", ") if named else [])
    )


class Groups:
    """The graded queries of a folder, each with its documents."""

    def __init__(self, work: Path, tokenizer: HFTokenizer, plain: bool = False) -> None:
        """Read WORK; `plain` asks in few words of its own, not in ERank's prompt."""
        self._tokenizer = tokenizer
        self.groups = read_graded(work / "graded.jsonl")
        self._texts = {d["id"]: d["text"] for d in read_rows(work / "documents.jsonl")}
        count = len(self.groups) - HELD_OUT
        self.train, self.held_out = range(count), range(count, len(self.groups))
        head, query, document, tail = template_parts()
        self._head = self._ids("<|im_start|>user\n" + head)
        self._query, self._document = self._ids(query), self._ids(document)
        self._tail = self._ids(tail + "<|im_end|>\n<|im_start|>assistant\n")
        self._plain = (
            [self._ids(t) for t in ("Query: ", "\nDocument: ", "\nRelevance (0-10): ")]
            if plain else None
        )  # fmt: skip
        self._instructions = [self._ids(text) for text, _ in _PROMPTS]
        self._weights = [weight for _, weight in _PROMPTS]
        self._no_thinking = self._ids("<think>\n\n</think>\n\n<answer>")
        self._think, self._asked = self._ids("<think>"), self._ids("</think><answer>")
        self._close = self._ids("</answer>")

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def text(self, identifier: str) -> str:
        """Return a document's text; of a long one its pieces' in their order."""
        return "\n".join(self._texts[i] for i in identifier.split("+"))

    def examples(
        self, number: int, thinking: bool, longest: int, chance: random.Random | None = None
    ) -> list[Example]:
        """Return one example a document, cut so that it has at most `longest` tokens.

        The instruction is one of several, by `chance`; BEIR's without it.
        """
        group = self.groups[number]
        instruction = self._instructions[0]
        if chance:
            instruction = chance.choices(self._instructions, self._weights)[0]
        if self._plain:
            before, between, tail = self._plain
            start = [*before, *self._ids(group.query), *between]
        else:
            start = [*self._head, *instruction, *self._query]
            start += [*self._ids(group.query), *self._document]
            tail = self._tail
        made = []
        for identifier, score in group.documents:
            text, thought = self.text(identifier), []
            end = [] if self._plain else self._no_thinking
            if thinking:
                thought = self._ids(reasoning(group.query, text))
                end = [*self._think, *thought, *self._asked]
            answer = [*self._ids(str(round(score))), *self._close]
            room = longest - len(start) - len(tail) - len(end) - len(answer)
            document = self._ids(text)[: max(room, 8)]
            ids = [*start, *document, *tail, *end, *answer][:longest]
            document_end = len(start) + len(document)
            at = document_end + len(tail) + len(end) - 1
            span = (at - len(end), at) if thought else (0, 0)
            made.append(Example(ids, at, span, len(start) - 1, document_end, score, number))
        return made
