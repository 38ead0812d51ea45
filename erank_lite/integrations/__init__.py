"""Adapters for frameworks: each module takes a model's name, a server's address or a Reranker."""
