"""Engines by name, loaded only when asked for. To add one: a package beside, and a line here."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erank_lite.errors import InputError, missing_extra

if TYPE_CHECKING:
    from erank_lite.engines.base import Engine
    from erank_lite.engines.options import EngineOptions
    from erank_lite.machine.hardware import Hardware
    from erank_lite.machine.plan import Plan
    from erank_lite.machine.shapes import ModelShape

    Planner = Callable[[ModelShape | None, Hardware, Any], Plan]

# llama.cpp's threads wait for each other by spinning, for long where another program holds a core:
# a shorter spin gives the core up sooner. libgomp reads this once, when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@dataclass(frozen=True)
class EngineSpec:
    """Where an engine is and what it reads; nothing of it is loaded.

    Attributes:
        name: as it is asked for.
        engine: `module:class`, below this package.
        options: `module:class` of its options; light to load.
        planner: `module:function` that makes its plan; light to load.
        reads: the formats that it runs (`erank_lite.machine.shapes.Format`).
        extra: what is to be installed beside the base, or None.
        packages: what that brings, of which the engine needs all.
    """

    name: str
    engine: str
    options: str
    planner: str
    reads: tuple[str, ...]
    extra: str | None = None
    packages: tuple[str, ...] = ()

    def load_engine(self) -> type[Engine]:
        """Return the engine's class.

        Raises:
            ModelError: it needs packages that are not installed.
        """
        try:
            found: type[Engine] = _load(self.engine)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise missing_extra(f"the {self.name} engine", str(error.name), self.extra) from None
        return found

    def load_options(self) -> type[EngineOptions]:
        """Return the class of its options."""
        found: type[EngineOptions] = _load(self.options)
        return found

    def load_planner(self) -> Planner:
        """Return the function that makes its plan from shape, machine and options."""
        found: Planner = _load(self.planner)
        return found


ENGINES = {
    spec.name: spec
    for spec in (
        EngineSpec("llama.cpp", "llama_cpp.engine:LlamaCppEngine",
                   "llama_cpp.options:LlamaCppOptions", "llama_cpp.plan:plan_here",
                   ("gguf", "bundled", "checkpoint")),
        EngineSpec("gptq", "torch.gptq:GPTQEngine",
                   "torch.options:TorchOptions", "torch.plan:plan_gptq",
                   ("gptq",), "gptq", ("torch", "gptqmodel")),
        EngineSpec("transformers", "torch.transformers:TransformersEngine",
                   "torch.options:TransformersOptions", "torch.plan:plan_transformers",
                   ("checkpoint", "bundled"), "reference", ("torch", "transformers", "accelerate")),
        EngineSpec("remote", "remote.engine:RemoteEngine",
                   "remote.options:RemoteOptions", "remote.plan:plan",
                   ("server",)),
    )
}  # fmt: skip


def engine_spec(name: str) -> EngineSpec:
    """Return what is known of the engine called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ENGINES:
        close = difflib.get_close_matches(name.lower(), ENGINES, 1, cutoff=0.5)
        raise InputError(
            f"there is no engine {name!r}",
            f"did you mean {close[0]}?" if close else f"engines are auto, {', '.join(ENGINES)}",
        )
    return ENGINES[name]


def engine_class(name: str) -> type[Engine]:
    """Return the class of the engine called `name`.

    Raises:
        InputError: there is no such engine.
        ModelError: it needs packages that are not installed.
    """
    return engine_spec(name).load_engine()


def _load(reference: str) -> Any:
    module, attribute = reference.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
