"""A model that reasons and answers as it is told, by the document's text."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite.engines.fake import FakeEngine
from erank_lite.types import Prompt
from support.tokenizers import CHAT_TEMPLATE, byte_tokenizer

TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode_trusted("<|im_end|>")[0]


def answering(answers: dict[str, int], thought: str = "") -> FakeEngine:
    """Return an engine that reasons and answers each document, by the document's text."""

    def script(prompt: Prompt, ids: Sequence[int]) -> list[tuple[int, float]]:
        text = TOKENIZER.decode(prompt.ids)
        answer = next((a for key, a in answers.items() if f"document:\n{key}\n" in text), 0)
        written = TOKENIZER.decode(ids)
        if "<answer>" in written:
            rest = f"{answer}</answer>".removeprefix(written.partition("<answer>")[2])
        else:
            rest = f"<think>{thought}</think><answer>"[len(written) :]
        follows = TOKENIZER.encode_trusted(rest) if rest else [END]
        return [(follows[0], 0.5)]

    return FakeEngine(TOKENIZER, script, CHAT_TEMPLATE, [END])
