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
        has_config = (path / "config.json").is_file()
        if (path / "adapter_config.json").is_file():
            # Transformers would add it to the weights beside it, or not, by whether PEFT is there.
            what = "has a LoRA adapter in it (adapter_config.json)"
            raise ModelError(
                f"`{path}` {what if has_config else 'is a LoRA adapter, not a checkpoint'}",
                "merge the adapter into its base model (merge_and_unload of PEFT), and save that",
            )
        if not has_config:
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

        Names are those of the whole model: where the model below its output was saved alone, its
        own lack `model.`, which is put before them, as Transformers does.

        Raises:
            ModelError: a file is missing, cut short, damaged or pickled, or the weights are of a
                type that such a checkpoint does not have.
        """
        if not self.quantization:
            return _of_whole_model(stored_tensors(self.path))
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

        AutoGPTQ wrote quantize_config.json alone. As GPTQModel reads it, the method may be in any
        case, and is GPTQ where only settings of GPTQ are given.
        """
        found = self.config.get("quantization_config")
        old = self.path / "quantize_config.json"
        if not found and old.is_file():
            found = {"quant_method": "gptq"} | read_json(old)
        if not isinstance(found, dict):
            return {"quant_method": str(found)} if found else {}
        if not found:
            return {}
        method = found.get("quant_method") or ("gptq" if "desc_act" in found else "unknown")
        return found | {"quant_method": str(method).lower()}

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

    def chat_templates(self) -> dict[str, str]:
        """Return the chat templates by their names; one alone is the "default".

        As in Transformers, those in files of their own go before those of tokenizer_config.json.

        Raises:
            ModelError: there is none, or none is the default.
        """
        found = self._template_files()
        if not found:
            template: Any = self.tokenizer_config.get("chat_template")
            if template is None:
                template = read_json(self.path / "chat_template.json", optional=True).get(
                    "chat_template"
                )
            found = _by_name(template)
        if not any(found.values()):
            raise ModelError(
                f"`{self.path}` has no chat template (chat_template.jinja, or chat_template in "
                "tokenizer_config.json), and ERank's prompt needs one"
            )
        if "default" not in found:
            raise ModelError(
                f"`{self.path}` has several chat templates ({', '.join(sorted(found))}), and none "
                "is the default",
                "save the one that the model was trained with as chat_template.jinja",
            )
        return found

    def _template_files(self) -> dict[str, str]:
        files = {"default": self.path / "chat_template.jinja"}
        more = sorted((self.path / "additional_chat_templates").glob("*.jinja"))
        files |= {file.stem: file for file in more}
        found = {}
        for name, file in files.items():
            if file.is_file():
                try:
                    found[name] = file.read_text("utf-8")
                except (OSError, ValueError) as error:
                    raise ModelError(f"`{file}` cannot be read: {error}") from None
        return found

    def chat_template(self) -> str:
        """Return the chat template, the default one where there are several.

        Raises:
            ModelError: there is none.
        """
        return self.chat_templates()["default"]

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
                if i == -1:  # a token that never comes: none, in Transformers and llama.cpp
                    continue
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


def _by_name(templates: Any) -> dict[str, str]:
    """Return chat templates as tokenizer_config.json has them: one text, or a list with names."""
    if isinstance(templates, str):
        return {"default": templates}
    found = {}
    for entry in templates if isinstance(templates, list) else []:
        name, text = (
            (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (0, 0)
        )
        if not isinstance(name, str) or not isinstance(text, str):
            return {}
        found[name] = text
    return found


def _of_whole_model(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    if "embed_tokens.weight" not in tensors or any(n.startswith("model.") for n in tensors):
        return tensors
    return {n if n.startswith("lm_head.") else f"model.{n}": t for n, t in tensors.items()}
