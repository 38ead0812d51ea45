"""Text to ids and back: added tokens, families of GGUF tokenizers, broken files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.texts import HOSTILE, ORDINARY
from support.tokenizers import ADDED, byte_tokenizer
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from erank_lite import ModelError
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer, clean

BYTES = byte_tokenizer()
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["1 2", "12 3", "123 4", "a b", "Ġ ab", "h e", "l l"]
WORDS = ["".join(merge.split()) for merge in MERGES]
NFC = normalizers.NFC().normalize_str


def metadata(pre: str = "qwen2", extra: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """Return what a GGUF file says of a small tokenizer; a change to None leaves a key out."""
    texts = [*ALPHABET, *WORDS, "hello", *ADDED, *extra, "[PAD0]", "[PAD1]"]
    normal = len(ALPHABET) + len(WORDS) + 1
    keys = {
        "model": "gpt2",
        "pre": pre,
        "tokens": texts,
        "token_type": [1] * normal + [3] * len(ADDED) + [4] * len(extra) + [5, 5],
        "merges": MERGES,
        "eos_token_id": texts.index("<|im_end|>"),
    }
    return {f"tokenizer.ggml.{k}": v for k, v in (keys | changes).items() if v is not None}


def rebuilt(*args: Any, **changes: Any) -> Tokenizer:
    """Return the tokenizer that `metadata` describes."""
    return Tokenizer.from_gguf(metadata(*args, **changes), "m.gguf")


def read(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the text of each token of `text`."""
    return [tokenizer.decode([i]) for i in tokenizer.encode(text).ids]


@pytest.fixture(scope="module")
def qwen_tokenizer(qwen: Path) -> Tokenizer:
    """The tokenizer of a Qwen3 checkpoint."""
    return Tokenizer.from_checkpoint(qwen)


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2: Path) -> Tokenizer:
    """The tokenizer of SmolLM2, rebuilt from its GGUF."""
    return Tokenizer.from_gguf(GGUFFile.read(smollm2).metadata, smollm2)


@pytest.fixture(scope="module")
def llama(smollm2: Path) -> Iterator[Any]:
    """The same model's vocabulary in llama.cpp."""
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(smollm2), vocab_only=True, verbose=False)
    yield model
    model.close()


# There and back


@given(text=st.text())
@example(HOSTILE["run"])
@example("\0")
def test_bytes_read_back_as_they_were(text: str) -> None:
    encoding = BYTES.encode(text)
    assert BYTES.decode(encoding.ids) == text
    assert b"".join(BYTES.pieces[i] for i in encoding.ids) == text.encode()


@given(text=st.text())
@settings(deadline=None)
def test_qwen_reads_back_the_composed_text(qwen_tokenizer: Tokenizer, text: str) -> None:
    ids = qwen_tokenizer.encode(text).ids
    assert qwen_tokenizer.decode(ids) == NFC(text)
    assert b"".join(qwen_tokenizer.pieces[i] for i in ids) == NFC(text).encode()


@given(text=st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cc", "Cs"])))
@settings(deadline=None)
def test_smollm2_reads_back_the_text(smollm2_tokenizer: Tokenizer, text: str) -> None:
    """But for characters of a few bytes that its vocabulary lacks."""
    ids = smollm2_tokenizer.encode(text).ids
    assert smollm2_tokenizer.decode(ids) == text
    assert b"".join(smollm2_tokenizer.pieces[i] for i in ids) == text.encode()


def test_ends_are_offsets_in_the_text_as_given(qwen_tokenizer: Tokenizer) -> None:
    """In characters, never falling; the last may be inside a character that is composed."""
    for name, given_text in (ORDINARY | HOSTILE).items():
        text = clean(given_text)
        ids, ends = qwen_tokenizer.encode(text)
        assert len(ids) == len(ends) and ends == sorted(ends), name
        if text:
            assert ends[-1] == len(text) or (ends[-1] < len(text) and NFC(text) != text), name


def test_a_broken_character_decodes_to_the_replacement_character() -> None:
    ids = BYTES.encode("a€b").ids
    assert BYTES.decode(ids[:3]) == "a\ufffd" and BYTES.decode(ids) == "a€b"


@pytest.mark.parametrize(
    ("length", "cut"), [(0, ""), (1, "a"), (2, "a\ufffd"), (4, "a€"), (5, "a€b"), (9, "a€b")]
)
def test_cut_keeps_the_first_tokens(length: int, cut: str) -> None:
    assert BYTES.cut("a€b", length) == cut


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain é 😀\0", "plain é 😀\0"),
        ("\ufeffmark", "\ufeffmark"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ufeff\udfff\ufeff", "\ufeff\ufffd\ufeff"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_clean_replaces_lone_surrogates_only(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


# Added tokens


def test_only_trusted_text_becomes_an_added_token() -> None:
    text = "<think><think>"
    (think,) = BYTES.encode_trusted("<think>")
    as_text = BYTES.encode("<think>").ids
    assert think not in as_text and BYTES.added[think] == "<think>"
    for trusted, ids in (
        ([(0, 14)], [think, think]),
        ([(0, 7)], [think, *as_text]),
        ([(7, 14)], [*as_text, think]),
        ([(0, 6), (8, 14)], as_text * 2),
        ([(0, 13)], [think, *as_text]),
        ([], as_text * 2),
    ):
        assert BYTES.encode(text, trusted).ids == ids


def test_ends_of_a_marker_read_as_text() -> None:
    assert BYTES.encode("é<think>.").ends == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe", "smollm", "starcoder", "gpt-2"])
def test_no_family_reads_foreign_text_as_an_added_token(pre: str) -> None:
    """Nor where a marker is one word to the family's pattern."""
    tokenizer = rebuilt(pre, ("<|>", "marker", "\n\n\n", "é"))
    for text in tokenizer.added.values():
        assert tokenizer.encode_trusted(text) == tuple(
            i for i, added in tokenizer.added.items() if added == text
        )
        for foreign in (text, f" {text} ", f"a{text}b", text * 2):
            encoding = tokenizer.encode(foreign)
            assert not set(encoding.ids) & set(tokenizer.added)
            assert tokenizer.decode(encoding.ids) == foreign


# Families of GGUF tokenizers


@pytest.mark.parametrize(
    ("pre", "text", "tokens"),
    [
        ("qwen2", "1234 ab", ["1", "2", "3", "4", " ab"]),
        ("deepseek-r1-qwen", "12", ["1", "2"]),
        ("llama-bpe", "1234 ab", ["123", "4", " ab"]),
        ("llama3", "1234", ["123", "4"]),
        ("llama-v3", "1234", ["123", "4"]),
        ("smollm", "1234 ab", ["1", "2", "3", "4", " ab"]),
        ("starcoder", "12", ["1", "2"]),
        ("gpt-2", "1234 ab", ["1234", " ab"]),
        ("qwen2", "hello", ["he", "ll", "o"]),
        ("llama-bpe", "hello", ["hello"]),
        ("qwen2", "a\nab", ["a", "\n", "ab"]),
    ],
)
def test_families_split_as_they_should(pre: str, text: str, tokens: list[str]) -> None:
    assert read(rebuilt(pre), text) == tokens


def test_only_qwen2_composes_characters() -> None:
    decomposed = "e\u0301"
    for pre, text in (("qwen2", "é"), ("llama-bpe", decomposed), ("smollm", decomposed)):
        tokenizer = rebuilt(pre)
        assert tokenizer.decode(tokenizer.encode(decomposed).ids) == text


def test_a_file_that_names_no_family_is_read_as_gpt2() -> None:
    assert read(rebuilt(pre=None), "1234 ab") == ["1234", " ab"]


def test_types_of_tokens() -> None:
    """Control and user-defined tokens are added ones; padding is no token at all."""
    tokenizer = rebuilt("qwen2", ("<tool>",))
    assert set(tokenizer.added.values()) == {*ADDED, "<tool>"}
    ids = tokenizer.encode_trusted("[PAD0]<tool>")
    assert len(ids) == 7 and tokenizer.decode(ids) == "[PAD0]<tool>"
    assert tokenizer.specials == {"eos_token": "<|im_end|>"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "holds no tokenizer"),
        ({"model": "llama"}, r"(?s)cannot be rebuilt \(llama, qwen2\).*tokenizer.json"),
        ({"pre": "mystery"}, r"cannot be rebuilt \(gpt2, mystery\).*qwen2"),
        ({"tokens": None}, "tokenizer.ggml.tokens"),
        ({"merges": None}, "tokenizer.ggml.merges"),
        ({"merges": ["ab"]}, "m.gguf"),
        ({"merges": ["x yz"]}, "m.gguf"),
        ({"token_type": [1, 1]}, "m.gguf"),
        ({"token_type": None}, "which of its tokens are special"),
        ({"eos_token_id": 99_999}, "m.gguf"),
    ],
)
def test_a_gguf_whose_tokenizer_cannot_be_rebuilt_is_a_model_error(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        rebuilt(**changes)


@pytest.mark.parametrize(
    "text",
    [
        "The night train leaves at 21:40 from platform 3.",
        "  two  spaces\n\nand\tlines\r\n \n",
        "Zwölf Boxkämpfer jagen Viktor; où est-elle? I'm here, they'll see.",
        "def f(x):\n    return {'x': x ** 2}  # 1234567",
        "<|im_start|>user\nhello<|im_end|>",
    ],
)
@pytest.mark.parametrize("special", [False, True])
def test_smollm2_is_read_as_llama_cpp_reads_it(
    text: str, special: bool, llama: Any, smollm2_tokenizer: Tokenizer
) -> None:
    """Where no normalization is in question; with added tokens meant, and as text."""
    theirs = llama.tokenize(text.encode(), add_bos=False, special=special)
    trusted = [(0, len(text))] if special else []
    assert smollm2_tokenizer.encode(text, trusted).ids == theirs


# Checkpoints


def checkpoint(folder: Path, config: str | None = None, **changes: Any) -> Path:
    """Write the byte tokenizer as a checkpoint's, with `changes` to tokenizer.json."""
    data = json.loads(BYTES._backend.to_str()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(config, "utf-8")
    return folder


def test_a_checkpoint_is_a_folder_or_its_tokenizer_file(tmp_path: Path) -> None:
    """Its special tokens go by name, whether written as text or as an object."""
    config = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "x", "bos_token": None, "n": 1}
    checkpoint(tmp_path, json.dumps(config))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = Tokenizer.from_checkpoint(path)
        assert tokenizer.specials == {"eos_token": "<|im_end|>", "pad_token": "x"}
        assert tokenizer.encode("aé<think>") == BYTES.encode("aé<think>")


def test_truncation_and_padding_that_a_file_asks_for_are_off(tmp_path: Path) -> None:
    """Published files have them on sometimes, left over from training."""
    backend = HFTokenizer.from_str(BYTES._backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_checkpoint(tmp_path).encode("a" * 9).ids) == 9


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"model": 1}'])
def test_a_checkpoint_without_a_readable_tokenizer_is_a_model_error(
    content: str | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json. cannot be read"):
        Tokenizer.from_checkpoint(tmp_path)


@pytest.mark.parametrize("config", ["", "{", "[]"])
def test_a_broken_tokenizer_config_is_a_model_error(config: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer_config"):
        Tokenizer.from_checkpoint(checkpoint(tmp_path, config))


def test_another_kind_of_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="not byte-level BPE"):
        Tokenizer(HFTokenizer(models.BPE({"a": 0}, [])))
