"""A model as it is named on the command line of a benchmark, with the options of its engine."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from erank_lite.engines import is_address
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError
from erank_lite.load import load, resolve
from erank_lite.models.prepare import is_a
from erank_lite.types import Progress

_OPTION = re.compile(r",\s*([a-z_]+)=([^,]*)\Z")
_PIECE, _PIECES = 1 << 20, 256


def _quiet(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class ModelSpec:
    """`MODEL[,OPTION=VALUE…]`, such as `erank-tiny:Q8_0,sequences=5` or `FOLDER,engine=gptq`.

    Attributes:
        label: as it was typed, a path cut to its last part.
        model: as `Reranker` takes it.
        engine: its name, or "auto".
        options: the engine's own.
    """

    label: str
    model: str
    engine: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, **options: Any) -> ModelSpec:
        """Take `text` apart; `options` count where it does not name them itself.

        Raises:
            InputError: there is no model in it.
        """
        named: dict[str, Any] = {}
        model = text.strip()
        while found := _OPTION.search(model):
            if found[1] in named:
                raise InputError(f"{text!r} names {found[1]} twice")
            named[found[1]] = _value(found[2].strip())
            model = model[: found.start()]
        if not model:
            raise InputError(f"{text!r} names no model: MODEL,OPTION=VALUE is what is taken")
        # Before `Path`, which would make one slash of an address's two.
        label = model if is_address(model) else _label(model)
        label += "".join(f", {name}={value}" for name, value in reversed(named.items()))
        given = {name: value for name, value in options.items() if value is not None} | named
        return cls(label, model, str(given.pop("engine", "auto")), given)

    def with_options(self, suffix: str, **options: Any) -> ModelSpec:
        """Return the same model run otherwise."""
        return ModelSpec(f"{self.label}, {suffix}", self.model, self.engine, self.options | options)

    def bring(self, progress: Progress = _quiet) -> Weights:
        """Download and convert what is missing, and return what would be run.

        Raises:
            ModelError: the model, or its engine, cannot be used.
            InputError: a name or an option cannot.
        """
        engine, place = resolve(self.model, self.engine, self.options, progress)
        return Weights(engine, place)

    def load(self, progress: Progress = _quiet) -> Engine:
        """Load the model; see `erank_lite.load.load`."""
        return load(self.model, self.engine, self.options, progress)


@dataclass(frozen=True)
class Weights:
    """What a name came to: the engine, and the file, folder or address that it runs."""

    engine: str
    place: Path | str

    @property
    def size(self) -> int | None:
        """Bytes of the weights, or None for a server's."""
        files = self._weights
        return sum(file.stat().st_size for file in files) if files else None

    @cached_property
    def digest(self) -> str:
        """A hash of the weights and of what lies beside them; of a server, only its address.

        Of a large file 256 stretches of 1 MiB are read: another quantization, or another training,
        differs in each.
        """
        state = hashlib.blake2b(digest_size=12)
        if isinstance(self.place, str):
            state.update(self.place.encode())
            return state.hexdigest()
        beside = () if self.place.is_file() else sorted(self.place.glob("*.json*"))
        for file in (*beside, *self._weights):
            size = file.stat().st_size
            state.update(f"{file.name if beside else ''} {size}\n".encode())
            with file.open("rb") as data:
                for piece in range(_PIECES) if size > _PIECES * _PIECE else (None,):
                    if piece is None:
                        state.update(data.read())
                    else:
                        data.seek(piece * (size - _PIECE) // (_PIECES - 1))
                        state.update(data.read(_PIECE))
        return state.hexdigest()

    @property
    def _weights(self) -> list[Path]:
        if isinstance(self.place, str):
            return []
        return [self.place] if self.place.is_file() else sorted(self.place.glob("*.safetensors"))


def _label(model: str) -> str:
    """Return the name; what lies here is called by the last part of its path."""
    path, colon, kind = model.rpartition(":")
    for place, rest in ((model, ""), (path, colon + kind)):
        if place and is_a(Path.exists, place):
            return Path(place).name + rest
    return model


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
