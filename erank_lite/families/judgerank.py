"""JudgeRank (arXiv 2411.00142), a reproduction: query and document are analysed, then judged.

The authors published no code. The three steps are those of the paper, in words of our own: what the
paper measured with its words is not claimed for these. Any instruction-tuned model can be asked.
The two analyses are drawn (temperature 0.6, top-p 0.9) with a fixed seed; the judgement is read.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erank_lite.families.base import Ask, Family, InRounds, Rounds, Thinking, Verdict
from erank_lite.families.benchmarks import is_benchmark
from erank_lite.families.labels import LabelGuide, LabelReading, Labels
from erank_lite.families.prompts import Template, checked_query, cut_text
from erank_lite.families.text import TextGuide, TextReading
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import clean
from erank_lite.types import Completion, Guide, Sampling, Score

ANALYSE_QUERY = """\
Here is what somebody is looking for:
{query}

What counts: {instruction}

Say in a few sentences what the problem behind it is, and what a document must tell to help with \
it. Do not solve it yourself."""
ANALYSE_DOCUMENT = """\
Here is what somebody is looking for:
{query}

What it is about:
{analysis}

Here is a document:
{doc}

Quote the sentences of the document that help, if there are any. Then say in a few sentences how \
far the document helps with what is looked for, and what it does not tell."""
JUDGE = """\
Here is what somebody is looking for:
{query}

What it is about:
{analysis}

Here is a document:
{doc}

What was found in it:
{findings}

Does the document help with what is looked for? Answer Yes or No, in one word."""
INSTRUCTION = "A document is relevant if it helps to answer the query."
_SLOTS = ("query", "instruction", "analysis", "doc", "findings")
_SAMPLING = Sampling(temperature=0.6, top_p=0.9, seed=0)
_LIMIT = 2048  # tokens of an analysis


def instruction_text(instruction: str | None) -> str:
    """Return free text as it is; for a benchmark's name, or nothing, the family's own."""
    if instruction is None or not instruction.strip() or is_benchmark(instruction):
        return INSTRUCTION
    return instruction


class JudgeRank(InRounds):
    """Asks in three steps. See `erank_lite.families.base.InRounds`."""

    def __init__(self, text: ModelText, context_length: int, thinking: Thinking) -> None:
        """Take a model.

        Args:
            text: the model's.
            context_length: tokens that prompt and completion may have together.
            thinking: a number of tokens limits each analysis; the other modes are alike.

        Raises:
            ModelError: the chat template does not carry the messages, or `Yes` is no token.
        """
        self.text, self.thinking = text, thinking
        # Both analyses stand in the last prompt, which keeps at least half of a short context.
        self.max_new_tokens = min(_LIMIT, context_length // 4)
        self._labels = LabelReading(
            text.tokenizer, text.end_ids, Labels.read(text.tokenizer, {"Yes": 1, "No": 0})
        )
        self._templates = {
            message: Template.of_messages(
                text.tokenizer, text.chat_template, [("user", message)], _SLOTS
            )
            for message in (ANALYSE_QUERY, ANALYSE_DOCUMENT, JUDGE)
        }

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> JudgedQuery:
        """Return what asks about a query's documents; see `erank_lite.families.base.InRounds`."""
        text, length = checked_query(self.text.tokenizer, query, instruction, truncate_length)
        values = {"query": text, "instruction": clean(instruction_text(instruction))}
        return JudgedQuery(self, values, length)

    @property
    def reading(self) -> TextReading:
        """How far an analysis is written."""
        budget = min(
            self.thinking if isinstance(self.thinking, int) else _LIMIT, self.max_new_tokens
        )
        return TextReading(self.text.tokenizer, self.text.end_ids, budget)

    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment."""
        return self.reading.max_tokens()

    def with_thinking(self, thinking: Thinking) -> JudgeRank:
        """Return the same in another mode of thinking."""
        other = copy.copy(self)
        other.thinking = thinking
        return other

    def analyse(self, message: str, values: Mapping[str, str], room: int) -> Ask:
        """Return what asks for an analysis."""
        reading = self.reading
        prompt = self._templates[message].prompt(values, room)
        return Ask(prompt, lambda: TextGuide(reading), reading.max_tokens(), _SAMPLING)

    def judge(self, values: Mapping[str, str], room: int) -> Ask:
        """Return what asks for the judgement."""
        prompt = self._templates[JUDGE].prompt(values, room)
        return Ask(prompt, lambda: LabelGuide(self._labels, prompt), 1)

    def cut(self, doc: str, length: int | None) -> str:
        """Return a document as it is shown."""
        return cut_text(self._templates[JUDGE], clean(doc), length)


@dataclass(frozen=True)
class JudgedQuery:
    """One query's documents, judged one by one.

    Attributes:
        family: how.
        values: the query and the instruction.
        truncate_length: cut each document to this many tokens.
    """

    family: JudgeRank
    values: Mapping[str, str]
    truncate_length: int | None

    def rounds(self, docs: Sequence[str], room: int) -> Rounds:
        """Return the rounds; see `erank_lite.families.base.QueryRounds`."""
        family = self.family
        (done,) = yield [family.analyse(ANALYSE_QUERY, self.values, room)]
        values = {**self.values, "analysis": _written(done)}
        shown = [family.cut(doc, self.truncate_length) for doc in docs]
        asks = [family.analyse(ANALYSE_DOCUMENT, {**values, "doc": text}, room) for text in shown]
        found = [_written(done) for done in (yield asks)]
        judged = [
            family.judge({**values, "doc": text, "findings": findings}, room)
            for text, findings in zip(shown, found, strict=True)
        ]
        scores = [
            _score(done, findings) for done, findings in zip((yield judged), found, strict=True)
        ]
        cut = [text != doc for text, doc in zip(shown, docs, strict=True)]
        truncated = [
            was or first.prompt.truncated or last.prompt.truncated
            for was, first, last in zip(cut, asks, judged, strict=True)
        ]
        return Verdict(scores, truncated, sum(s.failure is not None for s in scores))


def _written(done: Completion[Guide]) -> str:
    """Return an analysis; a model's own thinking before it does not count."""
    assert isinstance(done.guide, TextGuide)
    return done.guide.text.rpartition("</think>")[2].strip()


def _score(done: Completion[Guide], findings: str) -> Score:
    assert isinstance(done.guide, LabelGuide)
    score = done.guide.score()
    return Score(
        score.score, score.probability, score.expected_score, findings, score.forced,
        done.failure or score.failure, findings, value=score.value,
    )  # fmt: skip


FAMILY = Family(
    name="judgerank",
    models=("any instruction-tuned model",),
    unit="a document, in three steps",
    make=JudgeRank,
    source="arXiv 2411.00142, in words of our own",
    licence="the model's",
    verified="steps and score, from the paper; its words were never published",
    instruction_text=instruction_text,
    pattern=re.compile(r"(?<![a-z])judgerank", re.IGNORECASE),
)
