"""The plan of a server's model: the server decides all but what is asked of it."""

from __future__ import annotations

from erank_lite.engines.remote.options import RemoteOptions
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelShape


def plan(shape: ModelShape | None, machine: Hardware, options: RemoteOptions) -> Plan:
    """Return the plan; sequences and context length are the server's, if nothing was asked for."""
    sequences = 1 if options.strict else options.sequences
    return Plan(
        engine="remote",
        options=options,
        sequences=sequences,
        context_length=options.context_length,
    )
