"""A Hugging Face checkpoint folder: its configuration, tokenizer, template, ends and tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.errors import ModelError
from erank_lite.models.safetensors import DTYPES, StoredTensor, read_header, stored_tensors
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.util.files import read_json, refuse_pointer

BUNDLED_MODEL = "erank-tiny"
BUNDLED_FOLDER = Path(__file__).parents[1] / BUNDLED_MODEL
"""The small model in this package, a checkpoint like any other."""

TOKENIZER = "tokenizer.json"
_GPTQ_BITS = (4, 8)
_GPTQ_FORMATS = ("gptq", "", None)  # AutoGPTQ itself names none


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as Transformers 4 and 5 write it, quantized or not.

    Opening it reads JSON only; `tensors` reads the headers of the weights.

    Attributes:
        path: of the folder.
        config: config.json.
        generation: generation_config.json, empty where there is none.
        tokenizer_config: tokenizer_config.json, empty where there is none.
    """

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer_config: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read the files of the folder `path`.

        Raises:
            ModelError: it is not a checkpoint, or a file is damaged.
        """
        if path.is_file():
            raise ModelError(
                f"`{path}` is a file, not a checkpoint",
                "give the folder with config.json, tokenizer.json and *.safetensors",
            )
        if not path.is_dir():
            raise ModelError(f"there is no folder `{path}`")
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                raise ModelError(
                    f"`{path}` is a LoRA adapter, not a checkpoint", "merge it into its base model"
                )
            raise ModelError(f"`{path}` is not a checkpoint: it has no config.json")
        return cls(
            path,
            read_json(path / "config.json"),
            read_json(path / "generation_config.json", optional=True),
            read_json(path / "tokenizer_config.json", optional=True),
        )

    @functools.cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Where each tensor lies, by its name: of all shards, checked against their index.

        Raises:
            ModelError: a file is missing, cut short, damaged or pickled, or the weights are of a
                type that such a checkpoint does not have.
        """
        if not self.quantization:
            return stored_tensors(self.path)
        dtypes = DTYPES | {"I32": 4}
        # AutoGPTQ itself named the file after bits and group size.
        old = sorted(self.path.glob("gptq_model-*.safetensors"))
        return read_header(old[0], dtypes) if old else stored_tensors(self.path, dtypes)

    @property
    def is_bundled(self) -> bool:
        """Whether it is the model in this package."""
        return self.path.resolve() == BUNDLED_FOLDER

    @property
    def quantization(self) -> dict[str, Any]:
        """How the weights were quantized, with `quant_method`; empty where they were not.

        AutoGPTQ wrote quantize_config.json alone.
        """
        found = self.config.get("quantization_config")
        old = self.path / "quantize_config.json"
        if not found and old.is_file():
            return {"quant_method": "gptq"} | read_json(old)
        return found if isinstance(found, dict) else {"quant_method": str(found)} if found else {}

    def check_not_quantized(self) -> None:
        """Refuse weights that are quantized already.

        Raises:
            ModelError: they are.
        """
        if self.quantization:
            method = self.quantization.get("quant_method", "?")
            raise ModelError(
                f"`{self.path}` is quantized already ({method}): quantizing twice loses quality",
                "give the BF16 checkpoint that it was made from",
            )

    def check_gptq(self) -> None:
        """Check that it is GPTQ as AutoGPTQ wrote it (format v1), of 4 or 8 bits.

        Raises:
            ModelError: it is something else.
        """
        how = self.quantization
        method = how.get("quant_method")
        format_ = how.get("checkpoint_format", how.get("format"))
        if not how:
            raise ModelError(
                f"`{self.path}` is not quantized", "erank-lite convert gptq makes GPTQ of it"
            )
        if method != "gptq" or format_ in ("gemm", "gemv"):
            raise ModelError(
                f"`{self.path}` is quantized with {method} ({format_}), not with GPTQ",
                "get a GPTQ one, or serve it with a program that reads it (vLLM) and take the "
                "remote engine",
            )
        if format_ not in _GPTQ_FORMATS:
            raise ModelError(
                f"`{self.path}` has the GPTQ format {format_!r}; the kernels here read 'gptq' "
                "(version 1)",
                "quantize the BF16 checkpoint by erank-lite convert gptq",
            )
        if how.get("bits") not in _GPTQ_BITS:
            raise ModelError(
                f"`{self.path}` is GPTQ of {how.get('bits')!r} bits; the kernels here read 4 and 8"
            )

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer.

        Raises:
            ModelError: there is none, or it cannot be used.
        """
        if not (self.path / TOKENIZER).is_file():
            raise ModelError(
                f"`{self.path}` has no {TOKENIZER}",
                "download it, or make one with Transformers: "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
        refuse_pointer(self.path / TOKENIZER)
        return Tokenizer.from_checkpoint(self.path)

    def chat_templates(self) -> str | list[dict[str, str]]:
        """Return the chat template, or several with their names.

        As in Transformers, chat_template.jinja goes before what tokenizer_config.json has.

        Raises:
            ModelError: there is none.
        """
        file = self.path / "chat_template.jinja"
        template: Any = self.tokenizer_config.get("chat_template")
        if template is None:
            template = read_json(self.path / "chat_template.json", optional=True).get(
                "chat_template"
            )
        if file.is_file() and not isinstance(template, list):
            try:
                template = file.read_text("utf-8")
            except (OSError, ValueError) as error:
                raise ModelError(f"`{file}` cannot be read: {error}") from None
        named = template if isinstance(template, list) else []
        if not isinstance(template, str | list) or not all(
            isinstance(t, dict) and {type(t.get("name")), type(t.get("template"))} == {str}
            for t in named
        ):
            template = None
        if not template:
            raise ModelError(
                f"`{self.path}` has no chat template (chat_template.jinja, or chat_template in "
                "tokenizer_config.json), and ERank's prompt needs one"
            )
        found: str | list[dict[str, str]] = template
        return found

    def chat_template(self) -> str:
        """Return the chat template, the default one where there are several.

        Raises:
            ModelError: there is none.
        """
        found = self.chat_templates()
        if isinstance(found, str):
            return found
        by_name = {t["name"]: t["template"] for t in found}
        if "default" not in by_name:
            names = ", ".join(sorted(by_name))
            raise ModelError(f"`{self.path}` has no default chat template; it has {names}")
        return by_name["default"]

    def end_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return every token that the checkpoint itself calls an end, in any of its files.

        Raises:
            ModelError: there is none, or it is not a token.
        """
        rows = self.config.get("vocab_size")
        size = max(rows if type(rows) is int else 0, len(tokenizer.pieces))
        ends: set[int] = set()
        for source, name in (
            (self.generation, "generation_config.json"),
            (self.config, "config.json"),
        ):
            value = source.get("eos_token_id")
            for i in value if isinstance(value, list) else [] if value is None else [value]:
                if type(i) is not int or not 0 <= i < size:
                    raise ModelError(
                        f"`{self.path / name}`: eos_token_id {i!r} is not a token of the vocabulary"
                    )
                ends.add(i)
        text = self.tokenizer_config.get("eos_token")
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str):
            ends.update(i for i, p in enumerate(tokenizer.pieces) if p == text.encode())
        if not ends:
            raise ModelError(
                f"`{self.path}` names no end token (eos_token_id in generation_config.json or "
                "config.json): a model that cannot end cannot be used"
            )
        return frozenset(ends)

    @property
    def max_new_tokens(self) -> int | None:
        """The checkpoint's own limit of new tokens, or None where it names none."""
        limit = self.generation.get("max_new_tokens")
        return limit if type(limit) is int and 0 < limit < 2**31 else None
