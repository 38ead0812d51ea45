"""Engines by name, loaded only when asked for."""

from __future__ import annotations

import difflib
import importlib
import os

from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError

# llama.cpp's threads wait for each other by spinning, for long where another program holds a core:
# a shorter spin gives the core up sooner. libgomp reads this once, when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_ENGINES = {
    "llama.cpp": "erank_lite.engines.llama_cpp.engine:LlamaCppEngine",
    "gptq": "erank_lite.engines.torch.gptq:GPTQEngine",
    "transformers": "erank_lite.engines.torch.transformers:TransformersEngine",
    "remote": "erank_lite.engines.remote.engine:RemoteEngine",
}
EXTRA = {"gptq": "gptq", "transformers": "reference"}
"""What is to be installed beside the base for an engine."""


def is_address(model: object) -> bool:
    """Return whether `model` is the address of a server, which the remote engine asks."""
    return isinstance(model, str) and model.lower().startswith(("http://", "https://"))


def check_name(name: str) -> None:
    """Refuse the name of no engine.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _ENGINES:
        close = difflib.get_close_matches(name.lower(), _ENGINES, 1, cutoff=0) or list(_ENGINES)
        raise InputError(f"there is no engine {name!r}; did you mean {close[0]!r}?")


def engine_class(name: str) -> type[Engine]:
    """Return the class of the engine called `name`.

    Raises:
        InputError: there is no such engine.
        ModelError: it needs packages that are not installed.
    """
    check_name(name)
    module, attribute = _ENGINES[name].split(":")
    try:
        loaded: type[Engine] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if name not in EXTRA:
            raise
        raise ModelError(
            f"the {name} engine needs {error.name}: pip install 'erank-lite[{EXTRA[name]}]'"
        ) from None
    return loaded
