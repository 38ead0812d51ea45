"""Tokenizers: one of bytes, made on the spot, and Qwen3's, cut down and where it is there whole."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.text.tokenizer import Tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")

QWEN_SMALL = Path(__file__).with_name("qwen_small")
"""The folder of Qwen3's tokenizer, cut down by `cut_tokenizer` to what the tests' texts need."""


def real_qwen3() -> Path | None:
    """Return the folder of the whole tokenizer, if the environment names one."""
    shared = os.environ.get("ERANK_LITE_SHARED")
    return Path(shared) / "tokenizers" / "qwen3" if shared else None


def config_of(folder: Path) -> dict[str, Any]:
    """Return the tokenizer_config.json in `folder`."""
    config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    return config


def byte_tokenizer(extra: Sequence[str] = ()) -> Tokenizer:
    """Return a byte-level tokenizer of 256 bytes, the words in `extra`, and the added tokens.

    The words are reached by no merge; `ids_of` in the tests names them.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*symbols, *(_symbols(word) for word in extra), *ADDED]
    backend = HFTokenizer(models.BPE({t: i for i, t in enumerate(texts)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(t, normalized=False, special=True) for t in ADDED])
    return Tokenizer(backend)


def _symbols(word: str) -> str:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in level.pre_tokenize_str(word))
