"""What decides a result beside the tokens that were read."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from erank_lite.engines.base import Engine
from erank_lite.machine.hardware import cpu_name
from erank_lite.models.weights import weights_digest

_PACKAGE = Path(__file__).parent.parent
# These of the package's own files decide a result, and of its libraries.
_CODE = ("families/**/*.py", "engines/**/*.py", "batch.py", "reranker.py", "text/tokenizer.py")
_LIBRARIES = ("llama-cpp-python", "torch", "transformers", "gptqmodel", "tokenizers")
_PLAN = (
    "engine", "type", "context_length", "micro_batch", "threads", "gpu_layers", "device",
    "flash_attention", "flash_reading",
)  # fmt: skip


def engine_facts(engine: Engine) -> dict[str, Any] | None:
    """Return what of an engine decides its results, as JSON has it; None where it is not known.

    Args:
        engine: as `erank_lite.load.load` returned it.
    """
    if engine.path is None:
        return None
    options = {name: str(value) for name, value in asdict(engine.plan.options).items()}
    adapter = getattr(engine.plan.options, "adapter", None)
    return {
        "weights": weights_digest(engine.path),
        "adapter": None if adapter is None else weights_digest(adapter),
        "plan": {name: getattr(engine.plan, name) for name in _PLAN},
        "options": options,
        "description": engine.description,
        "code": code_digest(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cpu": cpu_name(),
    }


@cache
def code_digest() -> str:
    """Return a hash of the files of this package that decide a result."""
    state = hashlib.blake2b(digest_size=8)
    for pattern in _CODE:
        for file in sorted(_PACKAGE.glob(pattern)):
            state.update(file.read_bytes())
    return state.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
