"""From the name of a model to an engine that runs it: the whole road, on one screen.

ModelRef.parse ─► inspect ─► plan ─► prepare ─► Engine(path, plan)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from erank_lite.engines import engine_class, engine_spec
from erank_lite.engines.base import Engine
from erank_lite.engines.choose import plan
from erank_lite.machine.hardware import probe
from erank_lite.machine.plan import Plan
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.inspect import inspect
from erank_lite.models.prepare import prepare
from erank_lite.models.ref import ModelRef
from erank_lite.util.reporter import SILENT, Reporter

_log = logging.getLogger(__name__)


def load(
    model: str | Path,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
) -> Engine:
    """Load a model with the engine of that name, or with the one that suits it and this machine.

    Args:
        model: a GGUF file, a checkpoint folder, a name on the Hub, or the address of a server; see
            `erank_lite.models.ref`.
        engine: its name, or "auto".
        options: the engine's own, by name.
        reporter: told the bytes that are downloaded and converted.

    Raises:
        ModelError: the model, or the engine, cannot be used.
        InputError: a name or an option cannot.

    Example:
        >>> with load("erank-tiny", options={"sequences": 4}) as engine:
        ...     print(engine.plan.engine, engine.plan.type, engine.plan.sequences)
        llama.cpp Q8_0 4
    """
    decided, path = resolve(model, engine, options, reporter)
    loaded = engine_class(decided.engine)(path, decided)  # type: ignore[call-arg, arg-type]
    loaded.path = path
    loaded.names = model_names(model, path, loaded.names)
    return loaded


def model_names(model: str | Path, path: Path | str, own: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what a model is called: as it was asked for, and by its own file.

    Args:
        model: as `load` takes it.
        path: as `resolve` returned it; that of a server names a machine, not a model.
        own: what the file says, where it was read already.

    Example:
        >>> model_names(*["erank-tiny:Q4_K_M", resolve("erank-tiny:Q4_K_M")[1]])
        ('erank-tiny:Q4_K_M', 'Erank Tiny')
    """
    if isinstance(path, str):
        return own
    asked = ModelRef.parse(model).label.split("/")[-1]
    if path.is_dir():
        name = Checkpoint.open(path).config.get("_name_or_path")
        own = (name.rsplit("/", 1)[-1],) if isinstance(name, str) and name else ()
    return (asked, *dict.fromkeys(own or GGUFFile.read(path).names if path.is_file() else own))


def resolve(
    model: str | Path,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Plan, Path | str]:
    """Return the plan that `load` would run, and the file, folder or address that it would get.

    What is missing is downloaded and converted. Arguments and errors are those of `load`.

    Example:
        >>> plan, path = resolve("erank-tiny:Q4_K_M")
        >>> plan.engine, plan.type, path.name
        ('llama.cpp', 'Q4_K_M', 'erank-tiny-Q4_K_M.gguf')
    """
    if engine != "auto":
        engine_spec(engine)  # a name that is none, before the Hub is asked
    ref = ModelRef.parse(model)
    decided = plan(inspect(ref), probe(), engine, options)
    engine_class(decided.engine)  # an extra that is missing, before a download
    for line in decided.alternatives:
        _log.info("not %s", line)
    path = prepare(ref, decided, reporter)
    if not decided.complete:  # the shape could not be known before the file was here
        found = plan(inspect(ModelRef.parse(path)), probe(), decided.engine, options)
        decided = replace(found, type=decided.type, alternatives=decided.alternatives)
    return decided, path


def check(
    model: str | Path, engine: str = "auto", options: Mapping[str, Any] | None = None
) -> None:
    """Find what is wrong with a name or an option, before anything is downloaded or loaded.

    Raises:
        ModelError: the model, or the engine, cannot be used.
        InputError: a name or an option cannot.
    """
    plan(inspect(ModelRef.parse(model)), probe(), engine, options)


def engine_for_calibration(
    checkpoint: Path, context_length: int, reporter: Reporter = SILENT
) -> Engine:
    """Return what writes a checkpoint's calibration text: llama.cpp on its Q8_0 form.

    That is near the original at half its size. The GGUF file is made where it is missing, and kept.

    Args:
        checkpoint: the folder.
        context_length: tokens that a prompt and its completion may have.
        reporter: told the bytes that are converted.
    """
    from erank_lite.convert.calibration import TYPE

    options = {"context_length": context_length}
    return load(f"{checkpoint}:{TYPE}", "llama.cpp", options, reporter)
