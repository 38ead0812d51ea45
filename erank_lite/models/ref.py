"""The names of models: what a person may type, taken apart once.

| name                                   | what it is                                          |
|----------------------------------------|-----------------------------------------------------|
| `http://HOST:PORT`, `https://…`        | a server                                            |
| `path/to/file.gguf`                    | a GGUF file, or any part of a split one             |
| `path/to/folder`                       | a checkpoint, BF16 or GPTQ                          |
| `path/to/folder:TYPE`                  | the same as a GGUF of that quantization type        |
| `erank-tiny`, `erank-tiny:TYPE`        | the model bundled with this package                 |
| `OWNER/NAME`, `OWNER/NAME:TYPE`        | a repository on the Hugging Face Hub                |
| `OWNER/NAME@REVISION`, `…@REVISION:TYPE` | the same at a branch, tag or commit               |
| `OWNER/NAME/FILE.gguf`                 | one file of a repository                            |

What is there on disk goes before what could be a name on the Hub.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from erank_lite.errors import InputError, ModelError
from erank_lite.machine.shapes import PUBLISHED
from erank_lite.models.checkpoint import BUNDLED_FOLDER, BUNDLED_MODEL
from erank_lite.models.gguf import first_part

DEFAULT_TYPE, BUNDLED_TYPE = "Q4_K_M", "Q8_0"
PUBLISHER = "Alibaba-NLP"

DIRECT = ("F32", "F16", "BF16", "Q8_0")
"""Quantization types that are written straight from a checkpoint."""
QUANTIZED = (
    "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL",
    "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K",
)  # fmt: skip
"""Quantization types that llama.cpp's quantizer makes, by falling size."""
NEED_IMATRIX = (
    "IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
)  # fmt: skip
"""Quantization types that can be made only with an importance matrix; llama.cpp says so itself."""
TYPES = (*DIRECT, *QUANTIZED, *NEED_IMATRIX)

_PART = r"[A-Za-z0-9][\w.-]*"
_HUB_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:/(?P<file>[\w./-]+\.gguf))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True)
class ModelRef:
    """A model's name, taken apart; see the table in `erank_lite.models.ref`.

    Attributes:
        kind: what is named.
        text: the name as it was typed.
        path: of a file or folder, or of the bundled model's folder.
        repository: `OWNER/NAME`.
        file: the GGUF file of the repository that is named, or None.
        revision: branch, tag or commit, or None.
        type: the quantization type that is named, or None.

    Example:
        >>> ref = ModelRef.parse("Alibaba-NLP/ERank-4B@main:q6_k")
        >>> ref.repository, ref.revision, ref.type
        ('Alibaba-NLP/ERank-4B', 'main', 'Q6_K')
    """

    kind: Literal["server", "file", "folder", "bundled", "hub"]
    text: str
    path: Path | None = None
    repository: str = ""
    file: str | None = None
    revision: str | None = None
    type: str | None = None

    @classmethod
    def parse(cls, name: str | Path) -> ModelRef:
        """Take a name apart.

        Raises:
            InputError: the name is empty or malformed, or the type is unknown.
            ModelError: nothing of this name is here, and no Hub name looks like it.
        """
        text = _expanded(str(name))
        if text.lower().startswith(("http://", "https://")) and isinstance(name, str):
            if not text.partition("://")[2].strip("/"):
                raise InputError(
                    f"`{text}` is not the address of a server", "give http://HOST:PORT"
                )
            return cls("server", text)
        before, colon, type_name = text.partition(":")
        if before == BUNDLED_MODEL:
            quant_type = check_type(type_name) if colon else None
            return cls("bundled", text, BUNDLED_FOLDER, type=quant_type)
        if _exists(Path.is_file, text):
            return cls("file", text, first_part(Path(text)))
        if _exists(Path.is_dir, text):
            return cls("folder", text, _snapshot(Path(text)))
        path, _, path_type = text.rpartition(":")
        if path and Path(path).is_dir():
            return cls("folder", text, _snapshot(Path(path)), type=check_type(path_type))
        if path and Path(path).is_file():
            after = f":{path_type}" if path_type else "the colon"
            raise InputError(f"`{text}`: a file has its type already", f"leave {after} out")
        return cls._parse_hub_name(text, before, type_name if colon else None)

    @classmethod
    def _parse_hub_name(cls, text: str, before: str, type_name: str | None) -> ModelRef:
        match = _HUB_NAME.fullmatch(before)
        # Such names could be a repository's, but are meant as a file, or as the bundled model.
        other = before.endswith(".gguf") and before.count("/") == 1
        other = other or before.lower().replace("_", "-").startswith(f"{BUNDLED_MODEL}/")
        if match is None or other:
            raise ModelError(f"there is no file or folder `{text}`", _meant(before, type_name))
        if match["file"] and type_name is not None:
            raise InputError(f"`{text}`: a file has its type already", f"leave :{type_name} out")
        return cls(
            "hub",
            text,
            repository=match["repository"],
            file=match["file"],
            revision=match["revision"],
            type=None if type_name is None else check_type(type_name),
        )

    def with_type(self, quant_type: str | None) -> ModelRef:
        """Return the same model as a GGUF of this type; None leaves it as it is."""
        return self if quant_type is None else replace(self, type=quant_type)

    @property
    def label(self) -> str:
        """The name for people: what lies on this machine is called by the last part of its path."""
        if self.kind not in ("file", "folder"):
            return self.text
        assert self.path is not None
        return self.path.resolve().name + (f":{self.type}" if self.type else "")


def check_type(name: str) -> str:
    """Return the name of a quantization type as llama.cpp spells it.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> check_type("q4-k-m")
        'Q4_K_M'
    """
    found = name.upper().replace("-", "_")
    if not found:
        raise InputError("no type follows the colon", f"types are {', '.join(TYPES)}")
    if found not in TYPES:
        usual = (*DIRECT, *QUANTIZED)
        begun = [t for t in usual if t.startswith(found)][:3]
        close = begun or difflib.get_close_matches(found, usual, 3)
        known = f"did you mean {' or '.join(close)}?" if close else f"types are {', '.join(TYPES)}"
        raise InputError(f"there is no GGUF type {name!r}", known)
    return found


def _meant(name: str, after_colon: str | None) -> str:
    """Return a hint for a name that names nothing: what was probably meant."""
    suffix = f":{after_colon}" if after_colon else ""
    if after_colon and after_colon.rstrip("/").isdigit():
        return f"a server is named http://{name}:{after_colon}"
    known = {model.lower(): f"{PUBLISHER}/{model}" for model in PUBLISHED}
    known[BUNDLED_MODEL] = BUNDLED_MODEL
    if "," in name and "=" in f"{name}{suffix}":
        return "options of the engine are given by -o NAME=VALUE"
    plain = name.lower().replace("_", "-")
    close = difflib.get_close_matches(plain, known, 1, cutoff=0.75)
    if close:
        return f"did you mean {known[close[0]]}{suffix}?"
    return f"a model on the Hub is named OWNER/NAME, as in {PUBLISHER}/ERank-4B:{DEFAULT_TYPE}"


def _expanded(name: str) -> str:
    """Return a name with the home folder in place of ~, which a shell leaves in `--model=~/x`."""
    try:
        return str(Path(name).expanduser()) if name.startswith("~") else name
    except RuntimeError:  # no such user
        return name


def _snapshot(folder: Path) -> Path:
    """Return the checkpoint in a repository of the Hub's own cache (`models--OWNER--NAME`)."""
    main = folder / "refs" / "main"
    if not (folder.name.startswith("models--") and main.is_file()):
        return folder
    found = folder / "snapshots" / main.read_text().strip()
    return found if found.is_dir() else folder


def _exists(check: Callable[[Path], bool], name: str) -> bool:
    # An empty name would mean the current folder, which is hardly what a script meant.
    if not name.strip():
        raise InputError("the model's name is empty", "give a file, a folder or OWNER/NAME")
    try:
        return check(Path(name))
    except (OSError, ValueError):  # longer than any name may be, or with characters of none
        raise InputError(f"`{name[:60]}…` cannot be the name of a model") from None
