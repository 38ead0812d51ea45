"""Graded pairs as token ids, with the answer that is to be learnt."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import Stemmer
from bm25s.stopwords import STOPWORDS_EN_PLUS
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.families.erank.prompt import INSTRUCTIONS
from training.pairs import grade
from training.tokenizer import template_parts

HELD_OUT = 1_000  # queries, the last ones, that are never trained on
_STOP = frozenset(STOPWORDS_EN_PLUS) | {"tell", "know", "find", "show", "give", "information"}
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_STEMMER = Stemmer.Stemmer("english")
_BEIR = INSTRUCTIONS["beir"]
_PROMPTS = (
    (_BEIR, 12),
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
    pair: int


def reasoning(query: str, document: str) -> str:
    """Return how many of the query's terms the document holds, by their stems, in words."""
    words = [w for w in _WORD.findall(query) if len(w) > 1 and w.lower() not in _STOP]
    terms = {_STEMMER.stemWord(w.lower()) for w in words}
    held = {_STEMMER.stemWord(w.lower()) for w in _WORD.findall(document)}
    held |= {part for w in held if "-" in w for part in w.split("-")}
    found = len(terms & held)
    if not found:
        return "No terms found."
    if found == len(terms):
        return "All terms found."
    return "Most terms found." if 2 * found >= len(terms) else "Few terms found."


class Pairs:
    """All graded pairs of a folder."""

    def __init__(self, work: Path, tokenizer: HFTokenizer, short: bool = False) -> None:
        """Read the pairs of `work`; `short` asks in few words of its own, not in ERank's prompt."""
        self._tokenizer = tokenizer
        stored = np.load(work / "pairs.npz")
        self.pairs: npt.NDArray[np.int32] = stored["pairs"]
        self.scores = 10 * grade(stored["cosines"])
        self.of_queries: npt.NDArray[np.float16] = stored["queries"]
        self.of_documents: npt.NDArray[np.float16] = stored["documents"]
        self.queries = [json.loads(s)["text"] for s in (work / "queries.jsonl").open()]
        self.documents = [json.loads(s)["text"] for s in (work / "documents.jsonl").open()]
        self._query_ids = [e.ids for e in tokenizer.encode_batch(self.queries)]
        self._document_ids = [e.ids for e in tokenizer.encode_batch(self.documents)]
        held_out = self.pairs[:, 0] >= len(self.queries) - HELD_OUT
        self.held_out = np.flatnonzero(held_out)
        self.train = np.flatnonzero(~held_out)
        head, query, document, tail = template_parts()
        self._head = self._ids("<|im_start|>user\n" + head)
        self._query, self._document = self._ids(query), self._ids(document)
        self._tail = self._ids(tail + "<|im_end|>\n<|im_start|>assistant\n")
        self._short = (
            [self._ids(t) for t in ("Query: ", "\nDocument: ", "\nRelevance (0-10): ")]
            if short else None
        )  # fmt: skip
        self._instructions = [self._ids(text) for text, _ in _PROMPTS]
        self._weights = [weight for _, weight in _PROMPTS]
        self._no_thinking = self._ids("<think>\n\n</think>\n\n<answer>")
        self._think, self._asked = self._ids("<think>"), self._ids("</think><answer>")
        self._close = self._ids("</answer>")

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def example(
        self, pair: int, thinking: bool, longest: int, chance: random.Random | None = None
    ) -> Example:
        """Return the example of one pair, its document cut so that it has `longest` tokens."""
        query, document = self.pairs[pair]
        thought: list[int] = []
        if self._short:
            before, between, tail = self._short
            start, end = [*before, *self._query_ids[query], *between], []
        else:
            which = chance.choices(self._instructions, self._weights)[0] if chance else None
            start = [*self._head, *(which or self._instructions[0]), *self._query]
            start += [*self._query_ids[query], *self._document]
            tail, end = self._tail, self._no_thinking
            if thinking:
                thought = self._ids(reasoning(self.queries[query], self.documents[document]))
                end = [*self._think, *thought, *self._asked]
        score = float(self.scores[pair])
        answer = [*self._ids(str(round(score))), *self._close]
        room = longest - len(start) - len(tail) - len(end) - len(answer)
        text = self._document_ids[document][: max(room, 8)]
        ids = [*start, *text, *tail, *end, *answer][:longest]
        document_end = len(start) + len(text)
        at = document_end + len(tail) + len(end) - 1
        span = (at - len(end), at) if thought else (0, 0)
        return Example(ids, at, span, len(start) - 1, document_end, score, pair)

    def batches(
        self, pairs: npt.NDArray[np.int64], thinking: float, sizes: dict[int, int], seed: int
    ) -> Iterator[tuple[int, list[Example]]]:
        """Yield a length and that many examples of no more tokens as `sizes` gives for it.

        Examples are made in portions, and put together by length, so that little is padding. What
        does not fill a batch waits for the next portion.
        """
        chance = random.Random(seed)
        waiting: dict[int, list[Example]] = {length: [] for length in sizes}
        for at in range(0, len(pairs), 2048):
            ready = []
            for pair in pairs[at : at + 2048]:
                example = self.example(int(pair), chance.random() < thinking, max(sizes), chance)
                length = next(n for n in sizes if n >= len(example.ids))
                waiting[length].append(example)
                if len(waiting[length]) == sizes[length]:
                    ready.append((length, waiting[length]))
                    waiting[length] = []
            chance.shuffle(ready)
            yield from ready
