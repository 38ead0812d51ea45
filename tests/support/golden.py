"""The published message, and the golden file: what Transformers makes of it for ordinary texts.

    PYTHONPATH=tests python -m support.golden FOLDER > tests/unit/golden_prompts.json

FOLDER holds Qwen3's whole tokenizer, or tests/support/qwen_small: both give the same file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.texts import ORDINARY, placements

PUBLISHED_MESSAGE = (
    "Given a query and a document, please give a relevance score of 0~10.\n"
    "The goal or relevance definition is: {instruction}\n"
    "\n"
    "Here is the query:\n"
    "{query}\n"
    "\n"
    "Here is the document:\n"
    "{doc}\n"
    "\n"
    "After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].\n"
    "- 0 represents completely not related\n"
    "- 10 means perfectly related.\n"
    "\n"
    "Desired output format:\n"
    "<think>put your thinking here</think><answer>Only allows an integer here</answer>\n"
    "\n"
    "Your output:"
)
Reference = Callable[[str, str, str], list[int]]


def filled(instruction: str, query: str, doc: str) -> str:
    """Return the published message, filled without looking into what it is filled with."""
    head, rest = PUBLISHED_MESSAGE.split("{instruction}")
    between, rest = rest.split("{query}")
    before, after = rest.split("{doc}")
    return "".join([head, instruction, between, query, before, doc, after])


def published(tokenizer: Any) -> Reference:
    """Return what makes ids of (instruction, query, document) with a tokenizer of Transformers."""

    def ids(instruction: str, query: str, doc: str) -> list[int]:
        chat = [{"role": "user", "content": filled(instruction, query, doc)}]
        read = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True)
        return list(read if isinstance(read, list) else read["input_ids"])

    return ids


def pin(prompts: Sequence[Sequence[int]]) -> list[int | str]:
    """Return the number of ids in the prompts of one text, and a short hash of them."""
    text = ";".join(",".join(map(str, ids)) for ids in prompts)
    return [sum(map(len, prompts)), hashlib.sha256(text.encode()).hexdigest()[:12]]


def golden(folder: Path) -> str:
    """Return the text of the golden file: for each text, what pins the ids of its prompts."""
    from transformers import AutoTokenizer

    ids = published(AutoTokenizer.from_pretrained(folder))
    lines = []
    for name, text in ORDINARY.items():
        pinned = pin([ids(*slots) for slots in placements(text)])
        lines.append(f"{json.dumps(name)}: {json.dumps(pinned)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(golden(Path(sys.argv[1])))
