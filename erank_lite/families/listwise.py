"""What families share that look at several documents together and say which are the best."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from erank_lite.families.base import Ask, InRounds, Rounds, Thinking, Verdict
from erank_lite.families.prompts import Template, checked_query, cut_text
from erank_lite.families.reading import without_tags
from erank_lite.families.text import TextGuide, TextReading
from erank_lite.models.text import ModelText
from erank_lite.text.tokenizer import clean
from erank_lite.types import Completion, Guide, Score


class Listwise(InRounds):
    """Asks about several documents at once. See `erank_lite.families.base.InRounds`."""

    def __init__(
        self, text: ModelText, context_length: int, thinking: Thinking, max_new_tokens: int
    ) -> None:
        """Take a model.

        Args:
            text: the model's.
            context_length: tokens that prompt and completion may have together.
            thinking: the mode; these models always reason, so that "none" is as "full".
            max_new_tokens: the published limit.
        """
        self.text = text
        self.thinking = thinking
        # A short context keeps at least half of its room for the prompt.
        self.max_new_tokens = min(max_new_tokens, context_length // 2)
        self._templates: dict[int, Template] = {}

    @abstractmethod
    def messages(self, count: int) -> list[tuple[str, str]]:
        """Return (role, content) with slots for the query and so many documents."""

    @abstractmethod
    def order(self, query: ListQuery) -> Generator[Sequence[int], str | None, list[int]]:
        """Return how documents are compared: yields the places of those that are shown together,
        in the order in which they are, and is sent the completion, or None where there is none.
        """

    @abstractmethod
    def shown(self, text: str) -> str:
        """Return a document as it is shown."""

    @property
    def reading(self) -> TextReading:
        """How far completions are written."""
        budget = self.thinking if isinstance(self.thinking, int) else self.max_new_tokens
        ask = "\n</think>\n<answer>[" if isinstance(self.thinking, int) else None
        return TextReading(self.text.tokenizer, self.text.end_ids, budget, "</answer>", ask)

    def template(self, count: int) -> Template:
        """Return the template for so many documents.

        Raises:
            ModelError: the chat template does not carry the messages.
        """
        if count not in self._templates:
            self._templates[count] = Template.of_messages(
                self.text.tokenizer,
                self.text.chat_template,
                self.messages(count),
                ("query", "doc"),
            )
        return self._templates[count]

    def query(
        self, query: str, instruction: str | None = None, truncate_length: int | None = None
    ) -> ListQuery:
        """Return what asks about a query's documents; see `erank_lite.families.base.InRounds`."""
        text, length = checked_query(self.text.tokenizer, query, instruction, truncate_length)
        return ListQuery(self, text, length)

    def max_tokens(self, think_prefix: str | None = None) -> int:
        """Return the most ids that a completion can hold at any moment."""
        return self.reading.max_tokens()

    def with_thinking(self, thinking: Thinking) -> Listwise:
        """Return the same in another mode of thinking."""
        other = copy.copy(self)
        other.thinking = thinking
        return other


@dataclass
class ListQuery:
    """One query's documents, compared with each other.

    Attributes:
        family: how.
        query: as it is read.
        truncate_length: cut each document to this many tokens.
        count: of the documents.
        unread: completions whose answer could not be read.
    """

    family: Listwise
    query: str
    truncate_length: int | None
    count: int = 0
    unread: int = 0

    def rounds(self, docs: Sequence[str], room: int) -> Rounds:
        """Return the rounds; see `erank_lite.families.base.QueryRounds`."""
        family, reading = self.family, self.family.reading
        self.count, self.unread = len(docs), 0
        some = family.template(1)
        texts = [family.shown(cut_text(some, clean(doc), self.truncate_length)) for doc in docs]
        truncated = [text != doc for text, doc in zip(texts, docs, strict=True)]
        # Of the completion in which each document was looked at last.
        last: dict[int, tuple[str, bool]] = {}
        asked = 0
        driver, answer = family.order(self), None
        shown: Sequence[int] = ()
        order: list[int] | None = None
        while order is None:
            before = self.unread
            try:
                places = driver.send(answer)
            except StopIteration as end:
                order = end.value
            if self.unread > before:  # their places are not the model's own
                last |= {place: (last[place][0], True) for place in shown}
            if order is not None:
                break
            shown = places
            values = {f"doc{i}": texts[place] for i, place in enumerate(places, 1)}
            template = family.template(len(places))
            prompt = template.prompt({"query": self.query, **values}, room)
            for place in places:
                truncated[place] |= prompt.truncated
            asked += 1
            (done,) = yield [Ask(prompt, lambda: TextGuide(reading), reading.max_tokens())]
            answer = _text(done, template.think_prefix)
            forced = isinstance(done.guide, TextGuide) and done.guide.forced
            last |= {place: (answer or "", forced) for place in places}
        assert order is not None
        return Verdict(self._scores(order, last, asked), truncated, self.unread)

    def _scores(
        self, order: Sequence[int], last: Mapping[int, tuple[str, bool]], asked: int
    ) -> list[Score]:
        """Return the scores: 1 for the best, and less by the same for each place further down."""
        failure = None
        if asked and self.unread == asked:
            failure = "no answer of the model could be read"
        ranks = {place: rank for rank, place in enumerate(order)}
        scores = []
        for place in range(len(order)):
            text, forced = last.get(place, ("", False))
            value = None if failure else 1 - ranks[place] / len(order)
            scores.append(
                Score(None, None, None, without_tags(text), forced, failure, text, value=value)
            )
        return scores


def _text(done: Completion[Guide], think_prefix: str | None) -> str | None:
    """Return what was written, with the `<think>` that a template may have opened."""
    guide = done.guide
    assert isinstance(guide, TextGuide)
    if done.failure is not None or guide.failure is not None:
        return None
    return guide.text if think_prefix is None else f"<think>{think_prefix}{guide.text}"
