"""What a server tells of itself, in Prometheus' format."""

from __future__ import annotations

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts requests, documents and tokens, and times the stages of a request."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "erank_lite_requests", "Requests, by route and status.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.documents = Counter(
            "erank_lite_documents", "Documents answered, by how far they were read.", ["level"],
            registry=registry,
        )  # fmt: skip
        self.tokens = Counter(
            "erank_lite_tokens", "Tokens, read and written.", ["kind"], registry=registry
        )
        self.seconds = Histogram(
            "erank_lite_seconds", "Seconds of a request: its body, and its documents.", ["stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "erank_lite_documents_waiting", "Documents that were asked for and are not answered.",
            registry=registry,
        )  # fmt: skip
        memory = Gauge(
            "erank_lite_memory_bytes", "Memory of the process, resident.", registry=registry
        )
        process = psutil.Process()
        memory.set_function(lambda: process.memory_info().rss)

    def text(self) -> bytes:
        """Return all in Prometheus' format."""
        return bytes(generate_latest(self.registry))
