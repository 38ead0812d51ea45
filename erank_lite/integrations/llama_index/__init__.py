"""LlamaIndex: a postprocessor."""

from llama_index.postprocessor.erank_lite.base import ERankRerank

__all__ = ["ERankRerank"]
