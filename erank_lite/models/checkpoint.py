"""What a checkpoint folder says of itself, in JSON: its configuration, its template, its ends.

Weights are not looked at here, so that a folder of any type, quantized or not, can be read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.errors import ModelError
from erank_lite.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
_GPTQ_BITS = (4, 8)
_GPTQ_FORMATS = ("gptq", "", None)  # AutoGPTQ itself names none


@dataclass(frozen=True)
class CheckpointFolder:
    """The JSON files of a checkpoint, as Transformers 4 and 5 write them.

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
    def open(cls, path: Path) -> CheckpointFolder:
        """Read the files of the folder `path`.

        Raises:
            ModelError: it is no checkpoint, or a file is damaged.
        """
        if path.is_file():
            raise ModelError(
                f"{path} is a file; give the folder of a checkpoint (config.json, "
                "*.safetensors, tokenizer.json)"
            )
        if not path.is_dir():
            raise ModelError(f"there is no folder {path}")
        if not (path / "config.json").is_file():
            adapter = (path / "adapter_config.json").is_file()
            raise ModelError(
                f"{path} is not a checkpoint: it has no config.json"
                + ("; it is a LoRA adapter: merge it into its base model first" * adapter)
            )
        return cls(
            path,
            read_json(path / "config.json"),
            read_json(path / "generation_config.json", optional=True),
            read_json(path / "tokenizer_config.json", optional=True),
        )

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
                f"{self.path} is not quantized: erank-lite convert gptq makes GPTQ of it"
            )
        if method != "gptq" or format_ in ("gemm", "gemv"):
            raise ModelError(
                f"{self.path} is quantized with {method} ({format_}), not with GPTQ: serve it with "
                "a program that reads it (vLLM), and take the remote engine, or get a GPTQ one"
            )
        if format_ not in _GPTQ_FORMATS:
            raise ModelError(
                f"{self.path} has the GPTQ format {format_!r}; the kernels here read 'gptq' "
                "(version 1): quantize the BF16 checkpoint by erank-lite convert gptq"
            )
        if how.get("bits") not in _GPTQ_BITS:
            raise ModelError(
                f"{self.path} is GPTQ of {how.get('bits')!r} bits; the kernels here read 4 and 8"
            )

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer.

        Raises:
            ModelError: there is none, or it cannot be used.
        """
        if not (self.path / TOKENIZER).is_file():
            raise ModelError(
                f"{self.path} has no {TOKENIZER}: make one with Transformers "
                f"(AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)) or download it"
            )
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
                raise ModelError(f"{file} cannot be read: {error}") from None
        named = template if isinstance(template, list) else []
        if not isinstance(template, str | list) or not all(
            isinstance(t, dict) and {type(t.get("name")), type(t.get("template"))} == {str}
            for t in named
        ):
            template = None
        if not template:
            raise ModelError(
                f"{self.path} has no chat template (chat_template.jinja, or chat_template in "
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
            raise ModelError(f"{self.path} has chat templates {sorted(by_name)}, none the default")
        return by_name["default"]

    def end_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return every token that the checkpoint itself calls an end, in any of its files.

        Raises:
            ModelError: there is none, or it is no token.
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
                        f"{self.path / name}: eos_token_id {i!r} is no token of the vocabulary"
                    )
                ends.add(i)
        text = self.tokenizer_config.get("eos_token")
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str):
            ends.update(i for i, p in enumerate(tokenizer.pieces) if p == text.encode())
        if not ends:
            raise ModelError(
                f"{self.path} names no end token (eos_token_id in generation_config.json or "
                "config.json): a model that cannot end cannot be used"
            )
        return frozenset(ends)

    @property
    def max_new_tokens(self) -> int | None:
        """The checkpoint's own limit of new tokens, or None where it names none."""
        most = self.generation.get("max_new_tokens")
        return most if type(most) is int and 0 < most < 2**31 else None


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """Return the object in a JSON file, or {} where it may be missing and is.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    if optional and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value
