"""What a model's text is made of, for every engine: tokens, template, and what ends a turn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erank_lite.errors import ModelError
from erank_lite.models.checkpoint import TOKENIZER, Checkpoint
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer

# What llama.cpp takes for the end of a turn by its text (`special_eog_ids` in llama-vocab.cpp), for
# GGUF files of other converters, which name one end token at most.
_TURN_ENDS = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
))  # fmt: skip


@dataclass(frozen=True)
class ModelText:
    """What a model's text is made of.

    Attributes:
        tokenizer: the model's.
        chat_template: the checkpoint's own, in jinja2.
        end_ids: every token that ends the model's turn.
        max_new_tokens: the checkpoint's own limit of new tokens, or None where it names none.
    """

    tokenizer: Tokenizer
    chat_template: str
    end_ids: frozenset[int]
    max_new_tokens: int | None

    @classmethod
    def read(cls, path: Path) -> ModelText:
        """Read a checkpoint folder, its tokenizer.json, or a GGUF file.

        Raises:
            ModelError: there is none, or it lacks something.
        """
        if path.is_dir() or path.name == TOKENIZER:
            return cls.from_checkpoint(Checkpoint.open(path if path.is_dir() else path.parent))
        return cls.from_gguf(GGUFFile.read(path))

    @classmethod
    def from_checkpoint(cls, folder: Checkpoint, tokenizer: Path | None = None) -> ModelText:
        """Read it from a checkpoint, whatever its weights are kept in.

        Args:
            folder: the checkpoint.
            tokenizer: a tokenizer.json to use instead of its own, or None.

        Raises:
            ModelError: the checkpoint lacks something, or there is no such tokenizer.
        """
        loaded = Tokenizer.from_checkpoint(tokenizer) if tokenizer else folder.tokenizer()
        return cls(loaded, folder.chat_template(), folder.end_ids(loaded), folder.max_new_tokens)

    @classmethod
    def from_gguf(cls, gguf: GGUFFile, tokenizer: Path | None = None) -> ModelText:
        """Read it from the header of a GGUF file.

        The end tokens are those that the checkpoint named, where our converter wrote them down; of
        another's file, those that llama.cpp would stop at.

        Args:
            gguf: the file.
            tokenizer: a tokenizer.json to use instead of its own, which may be of a family that
                cannot be rebuilt; or None.

        Raises:
            ModelError: the file lacks something, or there is no such tokenizer.
        """
        loaded = (
            Tokenizer.from_checkpoint(tokenizer)
            if tokenizer
            else Tokenizer.from_gguf(gguf.metadata, gguf.path)
        )
        ends = gguf.end_ids
        if not ends:
            named = (
                gguf.metadata.get(f"tokenizer.ggml.{n}_token_id") for n in ("eos", "eot", "eom")
            )
            known = (i for i, text in loaded.added.items() if text in _TURN_ENDS)
            ends = frozenset(i for i in (*named, *known) if type(i) is int)
        if not ends:
            raise ModelError(f"`{gguf.path}` names no end token", "convert it again")
        return cls(loaded, gguf.chat_template, ends, gguf.max_new_tokens)
