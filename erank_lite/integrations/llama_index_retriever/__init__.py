"""LlamaIndex: a retriever over one's own files."""

from llama_index.retrievers.erank_lite.base import ERankRetriever

__all__ = ["ERankRetriever"]
