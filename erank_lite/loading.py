"""From the name of a model to an engine that runs it: what is on offer, what is chosen, loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from erank_lite.checkpoint import CheckpointFolder
from erank_lite.choosing import Choice, Offer, choose
from erank_lite.engines import engine_class, is_address
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError
from erank_lite.gguf_file import GGUFFile
from erank_lite.hardware import Hardware, probe
from erank_lite.models import PACKAGED, checkpoint_folder, config_of, is_a, model_file
from erank_lite.planning import PUBLISHED, ModelFacts
from erank_lite.scoring import MAX_NEW_TOKENS
from erank_lite.types import Progress

_log = logging.getLogger(__name__)
_PUBLISHER = "Alibaba-NLP/"
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
        model: a GGUF file, a checkpoint folder, a hub's name (`erank_lite.models.model_file`), or
            the address of a server.
        engine: its name, or "auto".
        options: the engine's own.
        progress: called with what is done, how many bytes of it, and of how many.

    Raises:
        ModelError: the model, or the engine, cannot be used.
        InputError: a name or an option cannot.
    """
    if is_address(model) != (engine == "remote") and engine != "auto":
        raise InputError(
            f"{model} is the address of a server, which the remote engine asks: leave --engine out"
            if is_address(model)
            else f"{model} is no address: the remote engine takes http://HOST:PORT as its model"
        )
    if engine != "auto":
        engine_class(engine)  # a name that is none, or an extra that is missing, before a download
    choice = choose(offer(model), this_machine(), engine)
    for line in (*choice.reasons, *choice.refused):
        _log.info("%s", line)
    loaded = engine_class(choice.engine)
    place = _place(model, choice, progress)
    try:
        return loaded(place, **(options or {}))  # type: ignore[call-arg]
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        raise InputError(
            f"the {choice.engine} engine has no option {unknown[1]}: leave it out, or name another "
            "engine"
        ) from None


def this_machine() -> Hardware:
    """Return the machine's facts, with the GPUs of makers whose devices only llama.cpp names."""
    machine = probe()
    if set(machine.llama.backends if machine.llama else ()) - _KNOWN:
        from erank_lite.engines._llama import gpu_devices

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
    before, _, kind = name.partition(":")
    if before == PACKAGED:
        return Offer("gguf", _facts(CheckpointFolder.open(checkpoint_folder(PACKAGED))))
    if is_a(Path.is_dir, model):
        folder = CheckpointFolder.open(Path(model))
        return Offer("gptq" if folder.quantization else "checkpoint", _facts(folder))
    if is_a(Path.is_file, model):
        gguf = GGUFFile.read(Path(name))
        facts = ModelFacts.of(gguf, MAX_NEW_TOKENS)
        return Offer("gguf", lambda kind: facts)
    if kind or name.endswith(".gguf"):
        return Offer("gguf")
    repository = name.partition("@")[0]
    published = repository.removeprefix(_PUBLISHER)
    if repository.startswith(_PUBLISHER) and published in PUBLISHED:
        return Offer("checkpoint", lambda kind: ModelFacts.published(published, kind))
    found = config_of(name)
    if found is None:
        return Offer("checkpoint")
    return Offer("gptq" if found.quantization else "checkpoint", _facts(found))


def _facts(folder: CheckpointFolder) -> Any:
    """Return the facts of a checkpoint by type; of what is here already, with its own size."""
    most = folder.max_new_tokens or MAX_NEW_TOKENS
    size = sum(f.stat().st_size for f in folder.path.glob("*.safetensors"))

    def facts(kind: str) -> ModelFacts:
        expected = ModelFacts.of_config(folder.config, kind, most)
        return replace(expected, size=size) if size and kind == "BF16" else expected

    return facts


def _place(model: str | Path, choice: Choice, progress: Progress) -> Path | str:
    if choice.engine == "remote":
        return str(model)
    if choice.engine == "llama.cpp":
        return model_file(f"{model}:{choice.type}" if choice.type else model, progress)
    return checkpoint_folder(model, progress)
