"""Cut Qwen3's tokenizer down to what the tests need, so that they need nothing from outside.

    PYTHONPATH=tests python -m support.cut_tokenizer FOLDER_OF_THE_TOKENIZER tests/support/qwen_small

Kept are all added tokens, the first merges, and every merge that the texts of the tests use. Merges
keep their order and tokens their ids, so these texts get the very ids that the whole tokenizer
gives them: one golden file holds for both.
"""

# ruff: noqa: E501, RUF001
from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from erank_lite.families import judgerank, qwen3_reranker, rank1, rank_r1, rearank, tfrank
from support.golden import filled
from support.texts import DOCUMENT, HOSTILE, ORDINARY, QUERY, placements

FIRST = 4_000  # merges that are kept whether a text uses them or not
LLAMA_CPP = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emoj"
    "is concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន"
    "់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''``````"
    "`\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I"
    "'ll make it, 'D you like some tea? We'Ve a'lL"
)
"""What llama.cpp's converter encodes to recognize a tokenizer by the ids (llama.cpp, MIT licence)."""


FAMILIES = (
    *(f"{begin}{label}" for label in ("yes", "no", "true", "false") for begin in ("", " ")),
    *("Yes", "No", " Yes", " No"), "yes(3)", "no(0)", rank1.PROMPT, *rank1.TEMPLATES.values(),
    qwen3_reranker.PREFIX + qwen3_reranker.BODY + qwen3_reranker.SUFFIX, tfrank.SYSTEM,
    tfrank.USER + tfrank.THINKING, tfrank.USER + tfrank.NO_THINKING, rank_r1.SYSTEM_1,
    rank_r1.USER_1, rank_r1.SYSTEM_2, rank_r1.USER_2, rearank.SYSTEM, rearank.ASKED, rearank.LAST,
    rearank.ACCEPTED, *(f"Received passage [{number}].\n\n[{number}]: x" for number in range(21)),
    judgerank.ANALYSE_QUERY, judgerank.ANALYSE_DOCUMENT, judgerank.JUDGE,
)  # fmt: skip
"""Prompts and labels of the families beside ERank."""


def texts() -> Iterator[str]:
    """Yield what the tokenizer must read as the whole one does."""
    for text in (ORDINARY | HOSTILE).values():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield text
        for slots in placements(text):
            yield f"<|im_start|>user\n{filled(*slots)}<|im_end|>\n<|im_start|>assistant\n"
    yield LLAMA_CPP
    for text in FAMILIES:
        yield text.replace("{num}", "3")
        filled_in = text.replace("{query}", QUERY).replace("{doc}", DOCUMENT)
        yield filled_in.replace("{instruction}", qwen3_reranker.INSTRUCTION).replace("{num}", "3")


def cut(whole: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """Return a tokenizer.json with the part of `whole` that reads `texts` as `whole` does.

    A token comes from one merge, the one of its rank, of two tokens that come from others: with all
    of them kept in their order, every step of the encoding is the same.
    """
    ids: dict[str, int] = whole["model"]["vocab"]
    merges: list[list[str]] = whole["model"]["merges"]
    made_by = {first + second: (first, second) for first, second in merges}
    bytes_ = len(ids) - len(merges)
    kept = {token for token, i in ids.items() if i < bytes_ + FIRST}
    # Added tokens are read as such, and, in foreign text, as what they are spelled with.
    for tokenizer in (whole, whole | {"added_tokens": []}):
        backend = Tokenizer.from_str(json.dumps(tokenizer))
        used = {token for text in texts for token in backend.encode(text).tokens}
        wanted = [token for token in used if token in ids]
        while wanted:
            if (token := wanted.pop()) not in kept:
                kept.add(token)
                wanted += made_by[token]
    # In the vocabulary, added tokens keep their ids where those between are left out.
    vocabulary = {token: i for token, i in ids.items() if token in kept}
    vocabulary |= {token["content"]: token["id"] for token in whole["added_tokens"]}
    merges = [[first, second] for first, second in merges if first + second in kept]
    return whole | {"model": whole["model"] | {"vocab": vocabulary, "merges": merges}}


def write(source: Path, folder: Path) -> None:
    """Write the tokenizer of `source`, cut down, into `folder`."""
    whole = json.loads((source / "tokenizer.json").read_text("utf-8"))
    text = json.dumps(cut(whole, [*texts()]), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(f"{text}\n", "utf-8")
    # Not the permissions of the source, which may be read-only.
    shutil.copyfile(source / "tokenizer_config.json", folder / "tokenizer_config.json")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
