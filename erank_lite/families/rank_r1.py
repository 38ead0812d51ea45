"""Rank-R1: which document of a set is the most relevant, after reasoning; heap sort makes an order.

Prompts, reading and driver are those of ielab/llm-rankers, `Rank-R1/prompts` and
`Rank-R1/run_setwise.py`, at commit b36517b (Apache-2.0). The line of a document is, in v0.1, that
of its README and model card, which it was trained on; the script there has a colon more. The
documents of a set are shuffled with the seed of the script, here anew for each query, so that a
query's result does not depend on those before it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator, Sequence

from erank_lite.families.base import Family, Thinking, no_instruction
from erank_lite.families.lists import heap_sort
from erank_lite.families.listwise import ListQuery, Listwise
from erank_lite.models.text import ModelText

SYSTEM_1 = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves \
it. The assistant first thinks about the reasoning process in the mind and then provides the \
user with the answer. The reasoning process and answer are enclosed within <think> </think> and \
<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> \
answer here </answer>."""
USER_1 = """\
Given the query: "{query}", which of the following documents is most relevant?
{docs}
After completing the reasoning process, please provide only the label of the most relevant \
document to the query, enclosed in square brackets, within the answer tags. For example, if the \
third document is the most relevant, the answer should be: <think> reasoning process here \
</think> <answer>[3]</answer>."""
SYSTEM_2 = """\
You are RankLLM, an intelligent assistant capable of evaluating the relevancy of passages to a \
given query."""
USER_2 = """\
You will be presented with a query, and a set of documents.

Your task consists of the following step:

1. Analyze the query: Carefully read the query and identify the core problem or question being \
asked.

2. Analyze the documents: Thoroughly examine each document and briefly explain how each document \
is relevant or not relevant to the query.

3. Find the most relevant document: Based on your analysis, select the most relevant document to \
the query from the set and briefly explain why.

Important: Provide your analysis within the <think> </think> tags and answer only the label of \
the most relevant document, enclosed in square brackets, within the <answer> </answer> tags. For \
example, if the third document is the most relevant, your response should be:
<think> Your analysis here </think>
<answer>[3]</answer>

Here is the query: {query}

Here are the documents:
{docs}"""
_ANSWER = re.compile(r"<think>.*?</think>\s*<answer>(.*?)</answer>", re.DOTALL)
_SEED = 929
_FIRST = 10  # documents that are put in order


class RankR1(Listwise):
    """Asks for the best of a set. See `erank_lite.families.listwise.Listwise`."""

    system, user = SYSTEM_2, USER_2
    line, between = "[{number}]: {{doc{number}}}", "\n\n"
    children = 9
    limit = 8000

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model; see `erank_lite.families.listwise.Listwise`."""
        super().__init__(text, context_length, thinking, self.limit)

    def messages(self, count: int) -> list[tuple[str, str]]:
        """Return the messages for so many documents."""
        lines = (self.line.format(number=number) for number in range(1, count + 1))
        user = self.user.replace("{docs}", self.between.join(lines))
        return [("system", self.system), ("user", user)]

    def shown(self, text: str) -> str:
        """Return a document as it is shown."""
        return text

    def order(self, query: ListQuery) -> Generator[Sequence[int], str | None, list[int]]:
        """Return how documents are compared."""
        draw = random.Random(_SEED)
        sort = heap_sort(query.count, self.children, _FIRST)
        best = None
        while True:
            try:
                members = sort.send(best)  # type: ignore[arg-type]
            except StopIteration as end:
                order: list[int] = end.value
                return order
            shuffled = draw.sample(range(len(members)), len(members))
            said = read_label((yield [members[i] for i in shuffled]), len(members))
            query.unread += said is None
            best = 0 if said is None else shuffled[said]  # the root stays where nothing was said


def read_label(text: str | None, count: int) -> int | None:
    """Return the place from 0 of the document that a completion names; None where it names none.

    Example:
        >>> read_label("<think>The second.</think> <answer> [2] </answer>", 3)
        1
    """
    found = _ANSWER.search((text or "").lower())
    label = found[1].strip() if found else ""
    return next((i for i in range(count) if label == f"[{i + 1}]"), None)


class RankR1First(RankR1):
    """The first version, which was trained with sets of 20."""

    system, user = SYSTEM_1, USER_1
    line, between = "[{number}] {{doc{number}}}", "\n"
    children = 19
    limit = 2048


_VERIFIED = "prompt, reading and driver, from the authors' code; no weights run"

FAMILY = Family(
    name="rank-r1",
    models=("ielabgroup/Rank-R1-32B-v0.2",),
    unit="a set of 10",
    make=RankR1,
    source="ielab/llm-rankers b36517b",
    licence="not known (code Apache-2.0)",
    verified=_VERIFIED,
    instruction_text=no_instruction("rank-r1"),
    together=True,
    pattern=re.compile(r"rank[-_]r1(?!.*v0\.1)", re.IGNORECASE),
    truncate_length=1024,
)
FIRST = Family(
    name="rank-r1-v0.1",
    models=("ielabgroup/Rank-R1-7B-v0.1",),
    unit="a set of 20",
    make=RankR1First,
    source="ielab/llm-rankers b36517b",
    licence="Apache-2.0",
    verified=_VERIFIED,
    instruction_text=no_instruction("rank-r1-v0.1"),
    together=True,
    pattern=re.compile(r"rank[-_]r1.*v0\.1", re.IGNORECASE),
)
