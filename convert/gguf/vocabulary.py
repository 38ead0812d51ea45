"""A checkpoint's tokenizer as GGUF metadata.

Merges, special tokens and templates are read by the official `gguf` package; what is here is the
vocabulary, the types of its tokens, and the name of the pre-tokenizer, which is recognized by what
it does and not by a list of known models.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer as HFTokenizer

from erank_lite.errors import ModelError
from erank_lite.models.checkpoint import TOKENIZER, Checkpoint
from erank_lite.text.tokenizer import family_of

# llama.cpp's converter recognizes vocabularies of this size (Granite, SmolLM): no
# token is put in front, whatever the configuration says.
_NO_BOS_SIZE = 49152


class Vocabulary:
    """The tokenizer of a checkpoint, ready to be written."""

    def __init__(self, checkpoint: Checkpoint, size: int) -> None:
        """Read it.

        Args:
            checkpoint: whose folder holds tokenizer.json.
            size: rows of the embedding; the vocabulary is padded up to it.

        Raises:
            ModelError: there is none, it has no chat template, or GGUF cannot carry it.
        """
        self.tokenizer = checkpoint.tokenizer()
        file = checkpoint.path / TOKENIZER
        backend = HFTokenizer.from_file(str(file))
        description: dict[str, Any] = json.loads(backend.to_str())
        try:
            self.pre = family_of(description)
        except ModelError as error:
            raise ModelError(f"`{file}` cannot be converted: {error.message}", error.hint) from None
        _check_added(file, description["added_tokens"], checkpoint.tokenizer_config)
        self.tokens, self.types = _tokens(file, backend, size)
        self._special = _special(checkpoint.path, size)
        self._bos = checkpoint.config.get("vocab_size") != _NO_BOS_SIZE
        self._prefix_space = checkpoint.tokenizer_config.get("add_prefix_space")
        self.templates = checkpoint.chat_templates()
        self.end_ids = sorted(checkpoint.end_ids(self.tokenizer))

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys under `tokenizer.…` to a GGUF file."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        self._special.chat_template = [
            {"name": name, "template": template} for name, template in self.templates.items()
        ]
        if writer.arch == "llama":
            if isinstance(self._prefix_space, bool):
                writer.add_add_space_prefix(self._prefix_space)
            if not self._bos:
                self._special.add_special_token["bos"] = False
        self._special.add_to_gguf(writer, quiet=True)


def _check_added(file: Path, added: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Refuse added tokens that GGUF cannot express, or on which two files differ."""
    by_id = {token["id"]: token["content"] for token in added}
    for token in added:
        flags = [f for f in ("single_word", "lstrip", "rstrip") if token[f]]
        if flags:
            raise ModelError(
                f"`{file}` cannot be converted: its added token {token['content']!r} is "
                f"{flags[0]}, which GGUF cannot say"
            )
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ModelError("tokenizer_config.json: added_tokens_decoder must be an object")
    for key, entry in decoder.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not str(key).isdecimal() or by_id.get(int(key)) != content:
            raise ModelError(
                f"`{file}` and tokenizer_config.json disagree about token {key} ({content!r}): "
                "they are not of one checkpoint"
            )


def _tokens(file: Path, backend: HFTokenizer, size: int) -> tuple[list[str], list[int]]:
    """Return text and type (`tokenizer.ggml.token_type`) of each id, padded up to `size`."""
    by_id = {i: text for text, i in backend.get_vocab(with_added_tokens=True).items()}
    last = max(by_id, default=-1)
    if last >= size:
        raise ModelError(
            f"`{file}` has tokens up to id {last}, but the model's embedding only {size} rows: "
            "they are not of one checkpoint"
        )
    added = backend.get_added_tokens_decoder()
    tokens, types = [], []
    for i in range(size):
        tokens.append(by_id.get(i, f"[PAD{i}]"))
        if i not in by_id:
            token_type = gguf.TokenType.UNUSED
        elif i not in added:
            token_type = gguf.TokenType.NORMAL
        # llama.cpp treats as control what looks like it, whatever the checkpoint says.
        elif added[i].special or (tokens[i].startswith("<|") and tokens[i].endswith("|>")):
            token_type = gguf.TokenType.CONTROL
        else:
            token_type = gguf.TokenType.USER_DEFINED
        types.append(int(token_type))
    return tokens, types


class _SpecialVocab(gguf.SpecialVocab):
    """Leaves out special tokens of id -1, which checkpoints write for none."""

    def _set_special_token(self, typ: str, tid: Any) -> None:
        if tid != -1:
            super()._set_special_token(typ, tid)


def _special(path: Path, size: int) -> gguf.SpecialVocab:
    """Read merges and special tokens; the package's own remarks are of no use to the user."""
    logger = logging.getLogger("gguf.vocab")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        special = _SpecialVocab(path, load_merges=True, n_vocab=size)
    # Foreign JSON of any shape; the package checks little and raises whatever comes.
    except Exception as error:
        raise ModelError(f"the tokenizer's files in `{path}` cannot be read: {error}") from None
    finally:
        logger.setLevel(level)
    return special
