"""Converters: from a published checkpoint to the files that run at home.

The folder lies at the top of the repository and is installed as `erank_lite.convert`.
"""
