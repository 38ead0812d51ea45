"""Haystack 3: a ranker."""

from haystack_integrations.components.rankers.erank_lite.ranker import ERankRanker

__all__ = ["ERankRanker"]
