"""Graded queries as token ids, with the answer that is to be learnt."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.families.erank.prompt import INSTRUCTIONS
from training.pairs import read_graded
from training.sets import PLAIN
from training.texts import read_rows
from training.tokenizer import template_parts

Vector = npt.NDArray[np.float16]

HELD_OUT = 300  # graded queries, the last ones, that are never trained on
_HELD_OUT_SETS = 60
_LONG_WORDS = (200, 500)  # of a document within others
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
    form: tuple[int, int]
    """The places whose next tokens lead from the prompt to the answer: an empty reasoning."""
    query_place: tuple[int, int]
    """The places of the query's tokens."""
    document_place: tuple[int, int]
    score: float
    """The teacher's grade, 0 to 10."""
    query: int
    """Number of the group that it belongs to."""
    document: str
    """The document's id."""


class Groups:
    """The queries of a folder, each with its documents: graded by teachers, and written sets."""

    def __init__(self, work: Path, tokenizer: HFTokenizer, short_prompt: bool = False) -> None:
        """Read WORK; `short_prompt` asks in few words of its own, not in ERank's prompt."""
        self._tokenizer = tokenizer
        graded, sets = read_graded(work / "graded.jsonl"), read_graded(work / "sets.jsonl")
        self.groups = [*graded, *sets]
        self._texts = {
            d["id"]: d["text"]
            for name in ("documents", "set-documents")
            for d in read_rows(work / f"{name}.jsonl")
        }
        self._ids_of_texts = list(self._texts)
        count, end = len(graded) - HELD_OUT, len(self.groups) - _HELD_OUT_SETS
        self.graded, self.sets = range(count), range(len(graded), end)
        self.plain_sets = [n for n in self.sets if self.groups[n].form == PLAIN]
        self.held_out = [*range(count, len(graded)), *range(end, len(self.groups))]
        head, query, document, tail = template_parts()
        self._head = self._ids("<|im_start|>user\n" + head)
        self._query, self._document = self._ids(query), self._ids(document)
        self._tail = self._ids(tail + "<|im_end|>\n<|im_start|>assistant\n")
        self._short_prompt = (
            [self._ids(t) for t in ("Query: ", "\nDocument: ", "\nRelevance (0-10): ")]
            if short_prompt else None
        )  # fmt: skip
        self._instructions = [self._ids(text) for text, _ in _PROMPTS]
        self._weights = [weight for _, weight in _PROMPTS]
        self._form = self._ids("<think>\n\n</think>\n\n<answer>")
        self._close = self._ids("</answer>")

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def text(self, identifier: str) -> str:
        """Return a document's text; of a long one its pieces' in their order."""
        return "\n".join(self._texts[i] for i in identifier.split("+"))

    def _within_others(self, text: str, chance: random.Random) -> str:
        words = chance.randint(*_LONG_WORDS) - len(text.split())
        around: list[str] = []
        while words > 0:
            around.append(self._texts[chance.choice(self._ids_of_texts)])
            words -= len(around[-1].split())
        place = chance.randint(0, len(around))
        return "\n".join([*around[:place], text, *around[place:]])

    def examples(
        self, number: int, longest: int, chance: random.Random | None = None, long: float = 0.0
    ) -> list[Example]:
        """Return one example a document, cut so that it has at most `longest` tokens.

        The instruction is one of several, by `chance`; BEIR's without it. A share `long` of the
        documents stands within others, by `chance` too.
        """
        group = self.groups[number]
        instruction = self._instructions[0]
        if chance:
            instruction = chance.choices(self._instructions, self._weights)[0]
        if self._short_prompt:
            before, between, tail = self._short_prompt
        else:
            before, between = [*self._head, *instruction, *self._query], self._document
            tail = self._tail
        query = self._ids(group.query)
        asked = (len(before), len(before) + len(query))
        start = [*before, *query, *between]
        made = []
        for identifier, score in group.documents:
            text = self.text(identifier)
            if chance and chance.random() < long:
                text = self._within_others(text, chance)
            end = [] if self._short_prompt else self._form
            answer = [*self._ids(str(round(score))), *self._close]
            room = longest - len(start) - len(tail) - len(end) - len(answer)
            document = self._ids(text)[: max(room, 8)]
            ids = [*start, *document, *tail, *end, *answer][:longest]
            place = (len(start), len(start) + len(document))
            at = place[1] + len(tail) + len(end) - 1
            made.append(
                Example(ids, at, (at - len(end), at), asked, place, score, number, identifier)
            )
        return made


class Vectors:
    """The first teacher's vectors of the queries and documents that are learnt from."""

    def __init__(self, work: Path, groups: Groups) -> None:
        self._groups = groups

        def vectors(name: str, key: str) -> dict[str, Vector]:
            rows = read_rows(work / f"{name}.jsonl")
            return dict(zip((r[key] for r in rows), np.load(work / f"{name}.npy"), strict=True))

        self._of_queries = vectors("queries", "text") | vectors("sets", "query")
        self._of_documents = vectors("documents", "id") | vectors("set-documents", "id")
        self.width = len(next(iter(self._of_queries.values())))

    def query(self, number: int) -> Vector:
        """Return (width,) of a group's query."""
        return self._of_queries[self._groups.groups[number].query]

    def document(self, identifier: str) -> Vector | None:
        """Return (width,) of a document; nothing of a long one, which is joined from others."""
        return self._of_documents.get(identifier)
