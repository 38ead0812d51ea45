"""A model as it is named on the command line of a benchmark, with the options of its engine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from erank_lite.engines.base import Engine
from erank_lite.errors import ErankLiteError, InputError
from erank_lite.families import DEFAULT, choose, family_named
from erank_lite.families.base import Family
from erank_lite.load import load, model_names, resolve
from erank_lite.models.ref import ModelRef
from erank_lite.models.weights import weight_files, weights_digest
from erank_lite.util.reporter import SILENT, Reporter

_OPTION = re.compile(r",\s*([a-z_]+)=([^,]*)\Z")


@dataclass(frozen=True)
class ModelSpec:
    """A model, its engine and the engine's options: `MODEL[,OPTION=VALUE…]`.

    Attributes:
        label: as it was typed, a path cut to its last part.
        model: as `Reranker` takes it.
        engine: its name, or "auto".
        options: the engine's own.
        family: as `Reranker` takes it.

    Example:
        >>> spec = ModelSpec.parse("models/erank.gguf,engine=llama.cpp,sequences=5")
        >>> spec.model, spec.engine, spec.options
        ('models/erank.gguf', 'llama.cpp', {'sequences': '5'})
    """

    label: str
    model: str
    engine: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    family: str | None = None

    @classmethod
    def parse(cls, text: str, **options: Any) -> ModelSpec:
        """Take `text` apart.

        | text                       | model          | engine, options                     |
        |----------------------------|----------------|-------------------------------------|
        | `erank-tiny:Q8_0`          | the whole text | "auto", none                        |
        | `OWNER/NAME,sequences=5`   | `OWNER/NAME`   | "auto", `sequences`                 |
        | `FOLDER,engine=gptq,k=v`   | `FOLDER`       | "gptq", `k`                         |
        | `FILE.gguf,family=rank1`   | `FILE.gguf`    | "auto", none; the family rank1      |
        | `http://HOST:PORT,model=x` | the address    | "auto", `model`                     |
        | `a,b.gguf`                 | the whole text | "auto", none: `b.gguf` has no `=`   |

        Args:
            text: what was typed.
            options: used where `text` does not name them itself; None means not given.

        Raises:
            InputError: there is no model in it, or an option is named twice.
        """
        named: dict[str, str] = {}
        model = text.strip()
        while found := _OPTION.search(model):
            if found[1] in named:
                raise InputError(f"`{text}` names {found[1]} twice")
            named[found[1]] = found[2].strip()
            model = model[: found.start()]
        if not model:
            raise InputError(f"`{text}` names no model", "give MODEL, or MODEL,OPTION=VALUE")
        label = model_label(model)
        label += "".join(f", {name}={value}" for name, value in reversed(named.items()))
        given = {name: value for name, value in options.items() if value is not None} | named
        engine, family = str(given.pop("engine", "auto")), given.pop("family", None)
        if family is not None:
            family_named(family)
        return cls(label, model, engine, given, family)

    def with_options(self, suffix: str, **options: Any) -> ModelSpec:
        """Return the same model run otherwise."""
        label = f"{self.label}, {suffix}"
        return ModelSpec(label, self.model, self.engine, self.options | options, self.family)

    def resolve(self, reporter: Reporter = SILENT) -> ResolvedModel:
        """Download and convert what is missing, and return what would be run.

        Raises:
            ModelError: the model, or its engine, cannot be used.
            InputError: a name or an option cannot.
        """
        plan, path = resolve(self.model, self.engine, self.options, reporter)
        adapter = self.options.get("adapter")
        own = () if adapter is None else (Path(adapter).stem,)
        family = choose(self.family, (*own, *model_names(self.model, path)))
        return ResolvedModel(plan.engine, path, family)

    def load(self, reporter: Reporter = SILENT) -> Engine:
        """Load the model; see `erank_lite.load.load`."""
        return load(self.model, self.engine, self.options, reporter)


@dataclass(frozen=True)
class ResolvedModel:
    """What a name came to.

    Attributes:
        engine: its name.
        path: the file, the folder or the address that it runs.
        family: what it is asked, and how it is read.
    """

    engine: str
    path: Path | str
    family: Family = DEFAULT

    @property
    def size(self) -> int | None:
        """Bytes of the weights, or None for a server's."""
        files = weight_files(self.path)
        return sum(file.stat().st_size for file in files) if files else None

    @cached_property
    def digest(self) -> str:
        """See `erank_lite.models.weights.weights_digest`."""
        return weights_digest(self.path)


def model_label(model: str) -> str:
    """Return a model's name for results: of a file or folder here, the last part of its path.

    Example:
        >>> model_label("OWNER/NAME:Q8_0"), model_label("/tmp:Q8_0")
        ('OWNER/NAME:Q8_0', 'tmp:Q8_0')
    """
    try:
        return ModelRef.parse(model).label
    except ErankLiteError:  # it is reported when the model is resolved
        return model
