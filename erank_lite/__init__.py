"""erank-lite: ERank reasoning rerankers on the machine at hand."""

from erank_lite.errors import ErankLiteError, InputError, ModelError
from erank_lite.fusion import hybrid_scores
from erank_lite.reranker import Reranker
from erank_lite.version import __version__

__all__ = ["ErankLiteError", "InputError", "ModelError", "Reranker", "__version__", "hybrid_scores"]
