"""Rearank: the order of a window of documents, after reasoning; windows move to the first.

Messages, reading and driver are those of lezhang7/Rearank, `rank_gpt.py` and `agent.py`, at commit
abb4bd0 (code Apache-2.0). Sentences without a space between them are its own.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from erank_lite.families.base import Family, Thinking, no_instruction
from erank_lite.families.lists import read_order, windows
from erank_lite.families.listwise import ListQuery, Listwise
from erank_lite.models.text import ModelText

SYSTEM = """\
You are DeepRerank, an intelligent assistant that can rank passages based on their relevancy to \
the search query. You first thinks about the reasoning process in the mind and then provides the \
user with the answer."""
ASKED = """\
I will provide you with passages, each indicated by number identifier []. Rank the passages \
based on their relevance to the search query.Search Query: {query}.\x20
Rank the {num} passages above based on their relevance to the search query.The passages should be \
listed in descending order using identifiers. The most relevant passages should be listed first. \
The output format should be <answer> [] > [] </answer>, e.g., <answer> [1] > [2] </answer>."""
ACCEPTED = "Okay, please provide the passages."
SHOWN, RECEIVED = "[{number}] {{doc{number}}}", "Received passage [{number}]."
LAST = """\
Please rank these passages according to their relevance to the search query: "{query}"
            Follow these steps exactly:
            1. First, within <think> tags, analyze EACH passage individually:
            - Evaluate how well it addresses the query
            - Note specific relevant information or keywords

            2. Then, within <answer> tags, provide ONLY the final ranking in descending order of \
relevance using the format: [X] > [Y] > [Z]"""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_SIZE, _STEP = 20, 10
_CHARACTERS = 400  # of a document
_LIMIT = 2048


class Rearank(Listwise):
    """Asks for the order of a window. See `erank_lite.families.listwise.Listwise`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model; see `erank_lite.families.listwise.Listwise`."""
        super().__init__(text, context_length, thinking, _LIMIT)

    def messages(self, count: int) -> list[tuple[str, str]]:
        """Return the messages for so many documents."""
        asked = ASKED.replace("{num}", str(count))
        messages = [("system", SYSTEM), ("user", asked), ("assistant", ACCEPTED)]
        for number in range(1, count + 1):
            messages.append(("user", SHOWN.format(number=number)))
            messages.append(("assistant", RECEIVED.format(number=number)))
        return [*messages, ("user", LAST)]

    def shown(self, text: str) -> str:
        """Return a document as it is shown: its first characters, white space as one space."""
        return " ".join(text.split())[:_CHARACTERS]

    def order(self, query: ListQuery) -> Generator[Sequence[int], str | None, list[int]]:
        """Return how documents are compared."""
        moving = windows(query.count, _SIZE, _STEP)
        order = None
        while True:
            try:
                places = moving.send(order)  # type: ignore[arg-type]
            except StopIteration as end:
                found: list[int] = end.value
                return found
            said = read_answer((yield places), len(places))
            query.unread += said is None
            order = list(range(len(places))) if said is None else said


def read_answer(text: str | None, count: int) -> list[int] | None:
    """Return the order that a completion ends in, as places from 0; None where there is none.

    That is what stands in `<answer>`; without one, after `</think>`.

    Example:
        >>> read_answer("<think>[1] is off.</think><answer>[2] > [1]</answer>", 2)
        [1, 0]
    """
    if text is None:
        return None
    found = _ANSWER.search(text)
    return read_order(found[1] if found else text.partition("</think>")[2], count)


FAMILY = Family(
    name="rearank",
    models=("le723z/Rearank-7B",),
    unit="a window of 20",
    make=Rearank,
    source="lezhang7/Rearank abb4bd0",
    licence="not known (code Apache-2.0)",
    verified="messages, reading and driver, from the authors' code; no weights run",
    instruction_text=no_instruction("rearank"),
    together=True,
    pattern=re.compile(r"(?<![a-z])rearank", re.IGNORECASE),
)
