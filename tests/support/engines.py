"""Engines that write what a test wants."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.engines.fake import FakeEngine
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Prompt
from support.tokenizers import CHAT_TEMPLATE, byte_tokenizer

TWO_TOKENS = byte_tokenizer()
ONE_TOKEN = byte_tokenizer(["10"])
END = "<|im_end|>"


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of `text`, with 10 as one token where the vocabulary has it."""
    ids = list(tokenizer.encode_trusted(text))
    ten = next((i for i, p in enumerate(tokenizer.pieces) if p == b"10"), None)
    if ten is not None:
        one, zero = tokenizer.encode_trusted("1")[0], tokenizer.encode_trusted("0")[0]
        while (pair := [one, zero]) and any(ids[i : i + 2] == pair for i in range(len(ids))):
            at = next(i for i in range(len(ids)) if ids[i : i + 2] == pair)
            ids[at : at + 2] = [ten]
    return ids


def engine_writing(
    text: str,
    tokenizer: Tokenizer = TWO_TOKENS,
    probability: float = 0.5,
    after_force: str = "3</answer>",
    template: str = CHAT_TEMPLATE,
    **options: int,
) -> FakeEngine:
    """Return an engine that writes `text`, then ends its turn.

    A prefix that it did not write itself (something was forced) is followed by `after_force`.
    Every token has `probability`; the digits 0 and 1, where not written, have 0.1 each.
    """
    end = tokenizer.encode_trusted(END)[0]
    wanted = [*ids_of(tokenizer, text), end]
    tail = [*ids_of(tokenizer, after_force), end]
    zero, one = (tokenizer.encode_trusted(d)[0] for d in "01")
    asked = tokenizer.encode_trusted("<answer>")

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        written = list(ids)
        if written == wanted[: len(written)] and len(written) < len(wanted):
            token = wanted[len(written)]
        else:
            at = max(
                i for i in range(len(written) + 1) if tuple(written[i - len(asked) : i]) == asked
            )
            after = written[at:]
            token = tail[len(after)] if after == tail[: len(after)] else end
        others = [(i, 0.1) for i in (zero, one) if i != token]
        return [(token, probability), *others]

    return FakeEngine(tokenizer, script, template, [end], **options)
