"""What every engine offers. Engines are dumb and fast: they know tokens, not scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Completion, Request

_E = TypeVar("_E", bound="Engine")


class Engine(ABC):
    """Runs a model over many prompts together.

    Attributes:
        tokenizer: the model's.
        chat_template: the checkpoint's own, in jinja2.
        end_ids: every token that ends the model's turn.
        max_new_tokens: the checkpoint's own limit of new tokens, or None where it names none.
        context_length: the most tokens that prompt and completion may have together.
        tokens_generated: tokens generated so far, by all runs.
        description: what computes: the engine, its kernel where there is a choice, and the device.
    """

    tokenizer: Tokenizer
    chat_template: str
    end_ids: frozenset[int]
    max_new_tokens: int | None
    context_length: int
    tokens_generated: int
    description: str

    @abstractmethod
    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Complete every request and yield each as it finishes, in any order.

        `requests` is read as places become free, so it may be long or lazy. A request that cannot
        be completed comes back with its failure: as many come out as went in. Closing the iterator
        early gives up what is unfinished.

        Raises:
            ModelError: the engine itself cannot go on.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards."""

    def __enter__(self: _E) -> _E:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
