"""One tokenizer for every engine: Hugging Face `tokenizers`, from a checkpoint or from a GGUF.

llama.cpp's own tokenizer is not used: it does not normalize, so composed and decomposed Unicode
would be read differently from the published model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.errors import ModelError

# Token kinds of the GGUF format (`tokenizer.ggml.token_type`).
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class Encoding(NamedTuple):
    """Token ids and, for each, the character offset where it ends in the text."""

    ids: list[int]
    ends: list[int]


class _Family(NamedTuple):
    """How a family of byte-level BPE tokenizers prepares text, by its name in GGUF files."""

    pattern: str | None
    nfc: bool = False
    single_digits: bool = False
    whole_words: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_FAMILIES = {
    "qwen2": _Family(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}", nfc=True),
    "llama-bpe": _Family(
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}", whole_words=True
    ),
    "smollm": _Family(None, single_digits=True),
    "starcoder": _Family(None, single_digits=True),
    "gpt-2": _Family(None),
}
_FAMILIES["deepseek-r1-qwen"] = _FAMILIES["qwen2"]
_FAMILIES["llama3"] = _FAMILIES["llama-v3"] = _FAMILIES["llama-bpe"]


def _byte_of_symbol() -> dict[str, int]:
    """Return the inverse of GPT-2's table from bytes to printable characters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    others = (b for b in range(256) if b not in set(printable))
    return table | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_of_symbol()


class Tokenizer:
    """Text to token ids and back, with control over which text may become an added token."""

    def __init__(self, backend: HFTokenizer, specials: dict[str, str] | None = None) -> None:
        """Wrap `backend`.

        Args:
            backend: a byte-level BPE tokenizer.
            specials: names a chat template may use, such as `bos_token`, to their text.

        Raises:
            ModelError: the tokenizer is not byte-level BPE.
        """
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        self.specials = specials or {}
        self.added = {i: t.content for i, t in backend.get_added_tokens_decoder().items()}
        if not isinstance(backend.decoder, decoders.ByteLevel):
            raise ModelError(
                "this tokenizer is not byte-level BPE; ERank models are Qwen3 models, which are"
            )

    @classmethod
    def from_checkpoint(cls, path: Path) -> Tokenizer:
        """Load `tokenizer.json`, from that file or from the folder that holds it.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            backend = HFTokenizer.from_file(str(file))
        except Exception as error:  # `tokenizers` raises nothing narrower
            raise ModelError(f"`{file}` cannot be read as a tokenizer: {error}") from None
        specials = {}
        config = file.with_name("tokenizer_config.json")
        if config.is_file():
            try:
                entries = json.loads(config.read_text("utf-8")).items()
            except (OSError, ValueError, AttributeError) as error:
                raise ModelError(f"`{config}` cannot be read: {error}") from None
            for name, value in entries:
                text = value.get("content") if isinstance(value, dict) else value
                if name.endswith("_token") and isinstance(text, str):
                    specials[name] = text
        return cls(backend, specials)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], name: object) -> Tokenizer:
        """Rebuild the tokenizer of a GGUF file from its metadata.

        Args:
            metadata: key → value, from the file's header.
            name: of the file, for messages.

        Raises:
            ModelError: the file has none, or one of a family that is not known here.
        """
        model = metadata.get("tokenizer.ggml.model")
        pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
        if model is None:
            raise ModelError(f"`{name}` holds no tokenizer")
        if model != "gpt2" or pre not in _FAMILIES:
            raise ModelError(
                f"`{name}` has a tokenizer that cannot be rebuilt ({model}, {pre}); known are "
                f"byte-level BPE of {', '.join(sorted(_FAMILIES))}",
                "give the checkpoint's tokenizer.json instead (--tokenizer)",
            )
        if "tokenizer.ggml.token_type" not in metadata:
            raise ModelError(
                f"`{name}` does not say which of its tokens are special "
                "(tokenizer.ggml.token_type), and the prompt cannot be made without that",
                "convert it again, or give the checkpoint's tokenizer.json (--tokenizer)",
            )
        try:
            return cls(*_rebuild(metadata, _FAMILIES[pre]))
        # A file may hold anything, and `tokenizers` raises nothing narrower.
        except Exception as error:
            raise ModelError(
                f"`{name}` has a damaged tokenizer ({type(error).__name__}: {error})",
                "download or convert it again",
            ) from None

    def encode(self, text: str, trusted: Sequence[tuple[int, int]] = ()) -> Encoding:
        """Encode `text`; only within the `trusted` spans may it become an added token.

        Where any other stretch spells an added token, that stretch alone is encoded as plain
        text, by the same BPE without added tokens.

        Args:
            text: any text without lone surrogates (see `clean`).
            trusted: (start, end) in characters.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, ends = [], []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self.added and not any(a <= start and end <= b for a, b in trusted):
                plain = self._plain.encode(text[start:end], add_special_tokens=False)
                ids += plain.ids
                ends += [start + e for _, e in plain.offsets]
            else:
                ids.append(token)
                ends.append(end)
        return Encoding(ids, ends)

    def encode_trusted(self, text: str) -> tuple[int, ...]:
        """Encode text of our own, in which added tokens are meant."""
        return tuple(self.encode(text, [(0, len(text))]).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, added tokens included; a broken character gives U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def cut(self, text: str, length: int) -> str:
        """Return the text of the first `length` tokens of `text`, or all if it has no more."""
        ids = self.encode(clean(text)).ids
        return text if len(ids) <= length else self.decode(ids[:length])

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token, by id; an id that the vocabulary lacks is empty."""
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        pieces = [b""] * (1 + max([*vocabulary.values(), *self.added], default=-1))
        for text, i in vocabulary.items():
            pieces[i] = bytes(_BYTES[c] for c in text) if all(c in _BYTES for c in text) else b""
        for i, text in self.added.items():
            pieces[i] = text.encode()
        return pieces

    @cached_property
    def _plain(self) -> HFTokenizer:
        """The same BPE without added tokens."""
        description: dict[str, Any] = json.loads(self._backend.to_str())
        description["added_tokens"] = []
        # A family that looks whole words up first would find them in the vocabulary too.
        vocabulary: dict[str, int] = description["model"]["vocab"]
        description["model"]["vocab"] = {
            text: i for text, i in vocabulary.items() if i not in self.added
        }
        return HFTokenizer.from_str(json.dumps(description))


def family_of(description: Mapping[str, Any]) -> str:
    """Return the name by which GGUF files know how a tokenizer prepares text.

    Args:
        description: a tokenizer.json, as `tokenizers` writes it.

    Raises:
        ModelError: it is not byte-level BPE, or prepares text as no family known here does.
    """
    model = description["model"]
    plain = not any(
        model.get(key)
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    if model["type"] != "BPE" or not plain:
        raise ModelError("it is not byte-level BPE; ERank models are Qwen3 models, which are")
    normalizer = description["normalizer"]
    found = (
        _without_offsets(description["pre_tokenizer"]),
        normalizer if normalizer is None else normalizer["type"],
        model.get("ignore_merges", False),
    )
    for name, family in _FAMILIES.items():
        backend = HFTokenizer(models.BPE())
        backend.pre_tokenizer = _pre_tokenizer(family)
        steps = _without_offsets(json.loads(backend.to_str())["pre_tokenizer"])
        if found == (steps, "NFC" if family.nfc else None, family.whole_words):
            return name
    raise ModelError(
        "it prepares text in a way that is not known here; known are those of "
        f"{', '.join(sorted(_FAMILIES))}"
    )


def _without_offsets(steps: Any) -> Any:
    """Leave out of a pre-tokenizer's description what changes no token."""
    if isinstance(steps, dict):
        return {k: _without_offsets(v) for k, v in steps.items() if k != "trim_offsets"}
    return [_without_offsets(s) for s in steps] if isinstance(steps, list) else steps


def clean(text: str) -> str:
    """Return `text` with each lone surrogate, which is no character, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _rebuild(meta: Mapping[str, Any], family: _Family) -> tuple[HFTokenizer, dict[str, str]]:
    """Return the tokenizer of a GGUF's metadata, and the names of its special tokens."""
    texts: list[str] = meta["tokenizer.ggml.tokens"]
    first, second = zip(*(m.split(" ", 1) for m in meta["tokenizer.ggml.merges"]), strict=True)
    kinds: list[int] = meta["tokenizer.ggml.token_type"]
    # Added tokens stand in the vocabulary too, which is what fixes their ids; no merge leads to
    # them. Padding that fills the embedding up (kind 5) is left out.
    vocabulary = {
        text: i
        for i, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (_NORMAL, _CONTROL, _USER_DEFINED)
    }
    merges = list(zip(first, second, strict=True))
    backend = HFTokenizer(models.BPE(vocabulary, merges, ignore_merges=family.whole_words))
    if family.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(family)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(
        [
            AddedToken(text, normalized=False, special=kind == _CONTROL)
            for text, kind in zip(texts, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {short: meta.get(f"tokenizer.ggml.{long}_token_id") for long, short in names.items()}
    return backend, {f"{name}_token": texts[i] for name, i in ids.items() if i is not None}


def _pre_tokenizer(family: _Family) -> pre_tokenizers.PreTokenizer:
    if family.pattern is not None:
        split = pre_tokenizers.Split(Regex(family.pattern), "isolated")
        return pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if family.single_digits:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    return words
