"""From the name of a model to an engine that runs it: what is on offer, what is chosen, loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from erank_lite.engines import engine_class, is_address
from erank_lite.engines.base import Engine
from erank_lite.engines.choosing import Choice, Facts, Offer, choose
from erank_lite.errors import InputError
from erank_lite.families.erank.score import MAX_NEW_TOKENS
from erank_lite.machine.hardware import Hardware, probe
from erank_lite.machine.planning import PUBLISHED, WEIGHT_BYTES, ModelShape
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.prepare import (
    BUNDLED_MODEL,
    BUNDLED_TYPE,
    check_type,
    checkpoint_folder,
    config_of,
    folder_and_type,
    is_a,
    model_file,
    parse,
)
from erank_lite.types import Progress

_log = logging.getLogger(__name__)
PUBLISHER = "Alibaba-NLP/"
_KNOWN = {"cpu", "cuda", "metal", "blas"}


def _quiet(stage: str, done: int, total: int) -> None:
    pass


def load(
    model: str | Path,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    progress: Progress = _quiet,
) -> Engine:
    """Load `model` with the engine of that name, or with the one that suits it and this machine.

    Args:
        model: a GGUF file, a checkpoint folder, a hub's name (`erank_lite.models.prepare.model_file`), or
            the address of a server.
        engine: its name, or "auto".
        options: the engine's own.
        progress: called with what is done, how many bytes of it, and of how many.

    Raises:
        ModelError: the model, or the engine, cannot be used.
        InputError: a name or an option cannot.
    """
    name, place = resolve(model, engine, options, progress)
    loaded = engine_class(name)
    return loaded(place, **_checked_options(name, loaded, options or {}))  # type: ignore[call-arg]


def resolve(
    model: str | Path,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    progress: Progress = _quiet,
) -> tuple[str, Path | str]:
    """Return the engine that `load` would take, and the file, folder or address that it would get.

    What is missing is downloaded and converted. Arguments and errors are those of `load`.
    """
    if engine != "auto":
        engine_class(engine)  # a name that is none, or an extra that is missing, before a download
    choice = choose(offer(model), this_machine(), engine)
    for line in (*choice.reasons, *choice.refused):
        _log.info("%s", line)
    _checked_options(choice.engine, engine_class(choice.engine), options or {})
    return choice.engine, _place(model, choice, progress)


def _checked_options(name: str, engine: type[Engine], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the engine takes them, before a model is downloaded or converted.

    Raises:
        InputError: it does not have one, or one is of the wrong kind.
    """
    known: dict[str, Any] = {}
    for maker in (vars(c)["__init__"] for c in engine.__mro__[:-1] if "__init__" in vars(c)):
        known = get_type_hints(maker) | known
    checked = {}
    for option, value in options.items():
        if option not in known or option in _PLACES:
            raise InputError(
                f"the {name} engine has no option {option}: leave it out, or name another engine"
            )
        kinds = get_args(known[option]) or (known[option],)
        place = Path in kinds and str not in kinds and isinstance(value, str)
        checked[option] = Path(value) if place else value
        if not any(_is_of(checked[option], kind) for kind in kinds):
            words = " or ".join(_KINDS[k] for k in map(_plain, kinds) if k in _KINDS)
            raise InputError(f"{option} must be {words}, not {str(value)[:40]!r}")
    return checked


_PLACES = ("path", "url", "return")  # given by the model's name, or no option at all
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    Path: "a path",
    Sequence: "a list of numbers",
}


def _plain(kind: Any) -> Any:
    return get_origin(kind) or kind


def _is_of(value: Any, kind: Any) -> bool:
    plain = _plain(kind)
    if plain is Sequence:
        return isinstance(value, list | tuple) and all(_is_of(v, get_args(kind)[0]) for v in value)
    if plain is float:
        return type(value) in (int, float)
    return type(value) is plain if plain in (bool, int) else isinstance(value, plain)


def this_machine() -> Hardware:
    """Return the machine's facts, with the GPUs of makers whose devices only llama.cpp names."""
    machine = probe()
    if set(machine.llama.backends if machine.llama else ()) - _KNOWN:
        from erank_lite.engines.llama_cpp.bindings import gpu_devices

        machine = replace(machine, gpus=tuple(gpu_devices()))
    return machine


def offer(model: str | Path) -> Offer:
    """Return what `model` is, without bringing its weights.

    Raises:
        InputError: the name cannot be.
        ModelError: there is nothing of that name.
    """
    if is_address(model):
        return Offer("server")
    name = str(model)
    before, colon, kind = name.partition(":")
    if before == BUNDLED_MODEL:
        facts = _facts(CheckpointFolder.open(checkpoint_folder(BUNDLED_MODEL)))
        kind = check_type(kind) if colon else BUNDLED_TYPE
        return Offer("package", _of_type(facts, kind))
    if is_a(Path.is_file, model):
        gguf = GGUFFile.read(Path(name))
        read = ModelShape.of(gguf, MAX_NEW_TOKENS)
        return Offer("gguf", lambda kind: read)
    path, wanted_type = folder_and_type(name)
    if path is not None:
        folder = CheckpointFolder.open(path)
        return _of_checkpoint(folder, wanted_type)
    wanted = parse(name)
    if wanted.file:
        return Offer("gguf")
    published = wanted.repository.removeprefix(PUBLISHER)
    if wanted.repository.startswith(PUBLISHER) and published in PUBLISHED:
        facts = partial(ModelShape.published, published)
        return (
            Offer("gguf", _of_type(facts, wanted.type))
            if wanted.type
            else Offer("checkpoint", facts)
        )
    found = None if wanted.type else config_of(name)
    if found is None:
        return Offer("gguf" if wanted.type else "checkpoint")
    return _of_checkpoint(found, None)


def _of_checkpoint(folder: CheckpointFolder, kind: str | None) -> Offer:
    if folder.quantization:
        folder.check_gptq()
        if kind is not None:
            raise InputError(f"{folder.path} is GPTQ, which has no type: leave :{kind} out")
        return Offer("gptq", _facts(folder))
    if kind is None:
        return Offer("checkpoint", _facts(folder))
    return Offer("gguf", _of_type(_facts(folder), kind))


def _of_type(facts: Facts, kind: str) -> Facts | None:
    """Return the facts of one type, whatever is asked; None for a type whose size is not known."""
    return (lambda _: facts(kind)) if kind in WEIGHT_BYTES else None


def _facts(folder: CheckpointFolder) -> Facts:
    """Return the facts of a checkpoint by type; of what is here already, with its own size."""
    most = folder.max_new_tokens or MAX_NEW_TOKENS
    size = sum(f.stat().st_size for f in folder.path.glob("*.safetensors") if f.is_file())

    def facts(kind: str) -> ModelShape:
        expected = ModelShape.of_config(folder.config, kind, most)
        return replace(expected, size=size) if size and kind == "BF16" else expected

    return facts


def _place(model: str | Path, choice: Choice, progress: Progress) -> Path | str:
    if choice.engine == "remote":
        return str(model)
    if choice.engine == "llama.cpp":
        return model_file(f"{model}:{choice.type}" if choice.type else model, progress)
    return checkpoint_folder(model, progress)
