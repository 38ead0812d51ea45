"""The remote engine's options."""

from __future__ import annotations

from dataclasses import dataclass

from erank_lite.engines.options import EngineOptions
from erank_lite.util.options import option


@dataclass(frozen=True, kw_only=True)
class RemoteOptions(EngineOptions):
    """What can be asked of a server, beside what every engine takes."""

    model: str | None = option(None, "the name that the server gives to the model")
    timeout: float = option(
        300.0, "seconds that the server may be silent before it is asked again",
        min=0.001, max=1e6,
    )  # fmt: skip
