"""erank-tiny's tokenizer: SmolLM2's with fewer merges, and ERank's template as single tokens.

The template's fixed parts are added tokens, as `<think>` is in Qwen3: a prompt then costs 15 tokens
more than its instruction, query and document, where 130 are spent otherwise. The text
that the prompt core makes stays ERank's, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.families.erank.prompt import MESSAGE
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer

END, OPEN, CLOSE = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_SLOT = ("{instruction}", "{query}", "{doc}")
SIZE = 23_552

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def template_parts() -> list[str]:
    """Return the four fixed parts of ERank's message, in their order."""
    rest, parts = MESSAGE, []
    for slot in _SLOT:
        part, rest = rest.split(slot)
        parts.append(part)
    return [*parts, rest]


class NewTokenizer(NamedTuple):
    backend: HFTokenizer
    sources: list[list[int]]
    """For each id, the ids of the old vocabulary whose mean its embedding begins as."""


def make_tokenizer(old: GGUFFile, size: int = SIZE) -> NewTokenizer:
    texts: list[str] = old.metadata["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in old.metadata["tokenizer.ggml.merges"]]
    ids = {text: i for i, text in enumerate(texts)}
    old_tokenizer = Tokenizer.from_gguf(old.metadata, old.path)
    specials, added = [END, OPEN, CLOSE], [*TAGS, *template_parts()]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = size - len(specials) - len(added) - len(symbols)
    kept = merges[:room]
    plain = [*symbols, *("".join(pair) for pair in kept)]
    vocabulary = {t: i for i, t in enumerate([*specials, *plain, *added])}
    backend = HFTokenizer(models.BPE(vocabulary, kept))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in specials])
    backend.add_tokens([AddedToken(t, normalized=False, special=False) for t in added])
    sources = [
        [ids[t]] if t in ids else old_tokenizer.encode(t).ids if t in added else []
        for t in vocabulary
    ]
    return NewTokenizer(backend, sources)


def save_tokenizer(backend: HFTokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json."""
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": CLOSE,
        "model_max_length": 4096,
        "pad_token": END,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    generation = {
        "do_sample": False,
        "eos_token_id": [backend.token_to_id(CLOSE), backend.token_to_id(END)],
        "max_new_tokens": 256,
        "pad_token_id": backend.token_to_id(END),
    }
    for name, value in (("tokenizer_config", config), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", "utf-8")
