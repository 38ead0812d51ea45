"""erank-lite: ERank reasoning rerankers on the machine at hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erank_lite.version import __version__

if TYPE_CHECKING:
    from erank_lite.effort import Effort
    from erank_lite.errors import ErankLiteError, InputError, ModelError
    from erank_lite.hybrid import hybrid_scores
    from erank_lite.reranker import Reranker, sort_results
    from erank_lite.results.store import ResultStore

# A Python that is started in a clone finds this folder before the installed package; the converter,
# which belongs to it, lies beside it there.
_clone = Path(__file__).parent.parent
if (_clone / "convert" / "__init__.py").is_file():
    __path__.append(str(_clone))

__all__ = [
    "Effort",
    "ErankLiteError",
    "InputError",
    "ModelError",
    "Reranker",
    "ResultStore",
    "__version__",
    "hybrid_scores",
    "sort_results",
]

_MODULES = {
    "Effort": "effort",
    "ErankLiteError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "Reranker": "reranker",
    "ResultStore": "results.store",
    "hybrid_scores": "hybrid",
    "sort_results": "reranker",
}


def __getattr__(name: str) -> Any:
    # Loaded at first use, so that `erank-lite --help` need not wait for tokenizers and numpy.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
