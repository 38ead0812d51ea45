"""Llama 3's tokenizer, rebuilt from what a GGUF file has of it, against Meta's own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from support.texts import DOCUMENT, HOSTILE, ORDINARY, QUERY

from erank_lite import Reranker
from erank_lite.engines.fake import FakeEngine
from erank_lite.families import judgerank
from erank_lite.text.tokenizer import Tokenizer, clean

pytestmark = pytest.mark.reference

# As Llama-3-8B-Instruct has it.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def reference() -> Any:
    """Meta's tokenizer, which reads the published file."""
    llama3 = pytest.importorskip(
        "llama_models.llama3.tokenizer", reason="pip install 'erank-lite[reference]'"
    )
    return llama3.Tokenizer.get_instance()


def merges_of(ranks: Mapping[bytes, int], symbols: Mapping[int, str]) -> list[str]:
    """Return the two parts that each token of several bytes is merged from, in their order.

    A token is made by the merges that come before it, from its bytes to two parts.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda pair: pair[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            place = min(range(len(pairs)), key=lambda i: pairs[i])
            if pairs[place] >= rank:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            merges.append(" ".join("".join(symbols[byte] for byte in part) for part in parts))
    return merges


@pytest.fixture(scope="module")
def llama3(reference: Any) -> Tokenizer:
    """The same vocabulary, as the metadata of a GGUF file has it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = bytes_to_unicode()
    ranks: dict[bytes, int] = reference.model._mergeable_ranks
    specials: dict[str, int] = reference.special_tokens
    written = {i: "".join(symbols[byte] for byte in token) for token, i in ranks.items()}
    tokens = [text for _, text in sorted((written | {i: t for t, i in specials.items()}).items())]
    keys = {
        "model": "gpt2",
        "pre": "llama-bpe",
        "tokens": tokens,
        "token_type": [1] * len(ranks) + [3] * len(specials),
        "merges": merges_of(ranks, symbols),
        "bos_token_id": specials["<|begin_of_text|>"],
        "eos_token_id": specials["<|eot_id|>"],
    }
    return Tokenizer.from_gguf({f"tokenizer.ggml.{k}": v for k, v in keys.items()}, "llama3")


def test_texts_become_the_same_ids(llama3: Tokenizer, reference: Any) -> None:
    texts = {name: clean(text) for name, text in (ORDINARY | HOSTILE).items()}
    differ = [
        name
        for name, text in texts.items()
        if list(llama3.encode(text).ids) != reference.encode(text, bos=False, eos=False)
    ]
    assert not differ


def test_judgeranks_prompts_are_those_of_metas_chat_format(
    llama3: Tokenizer, reference: Any
) -> None:
    chat_format = pytest.importorskip("llama_models.llama3.chat_format").ChatFormat(reference)
    message = pytest.importorskip("llama_models.datatypes").RawMessage
    end = llama3.encode_trusted("<|eot_id|>")[0]
    analysis = llama3.encode("A cause is wanted.").ids
    labels = [(llama3.encode(word).ids[0], p) for word, p in (("Yes", 0.6), ("No", 0.3))]
    written = [(i, 0.9) for i in analysis] + [(end, 0.9)]

    def script(prompt: Any, ids: Any) -> list[tuple[int, float]]:
        judges = "one word" in llama3.decode(prompt.ids)
        return labels if judges else [written[len(ids)]]

    engine = FakeEngine(llama3, script, CHAT_TEMPLATE, [end])
    Reranker(engine, family="judgerank").rerank(QUERY, [DOCUMENT])
    values = {
        "query": QUERY, "doc": DOCUMENT, "instruction": judgerank.INSTRUCTION,
        "analysis": "A cause is wanted.", "findings": "A cause is wanted.",
    }  # fmt: skip
    asked = [text.format(**values) for text in
             (judgerank.ANALYSE_QUERY, judgerank.ANALYSE_DOCUMENT, judgerank.JUDGE)]  # fmt: skip
    wanted = [
        chat_format.encode_dialog_prompt([message(role="user", content=text)]).tokens
        for text in asked
    ]
    assert [list(prompt.ids) for prompt in engine.prompts] == wanted
