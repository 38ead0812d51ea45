"""The servers of one model: which takes the next request, and which are left out for now.

A request goes to the least busy server. One that fails is left out for a while, longer each time,
and then tried again; meanwhile the others do its work.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from erank_lite.engines.remote.handshake import Served
from erank_lite.engines.remote.http import Fault, ServerClient

_log = logging.getLogger(__name__)

BACKOFF = 1.0
"""Seconds before the first new attempt; each that fails doubles them."""

_LONGEST = 60.0
_USUAL_PLACES = 32  # where a server does not say how many requests it takes on


def addresses(text: str) -> list[str]:
    """Return the addresses of a list that is divided by commas, none twice.

    Example:
        >>> addresses("http://one:8000, http://two:8000")
        ['http://one:8000', 'http://two:8000']
    """
    found = re.split(r"\s*,\s*(?=https?://)", text.strip().rstrip(","), flags=re.IGNORECASE)
    return list(dict.fromkeys(found))


@dataclass(eq=False)
class Server:
    """One of the servers.

    Attributes:
        client: to it.
        served: what it is, or None while it has not been reached.
        busy: requests under way.
        faults: outages since it last did what was asked.
        fault: the last of these outages, or None.
        rests_until: the time (`time.monotonic`) before which it is left out.
    """

    client: ServerClient
    served: Served | None = None
    busy: int = 0
    faults: int = 0
    fault: Fault | None = None
    rests_until: float = 0.0

    @property
    def places(self) -> int:
        """How many requests it takes on together."""
        return (self.served and self.served.places) or _USUAL_PLACES

    @property
    def rests(self) -> bool:
        """Whether it is left out now."""
        return time.monotonic() < self.rests_until

    @property
    def may_serve(self) -> bool:
        """Whether a request has a chance there, now or when it has rested."""
        return not self.rests or self.fault is None or self.fault.passing


class Pool:
    """All servers of a model; its methods belong to one event loop.

    Example:
        >>> one, two = (Server(ServerClient(f"http://{name}", 1)) for name in ("one", "two"))
        >>> pool = Pool([one, two])
        >>> with pool.request() as first, pool.request() as second:
        ...     print(first.client.name, second.client.name, pool.places)
        http://one http://two 64
        >>> pool.leave_out(one, Fault("it is gone"))
        >>> with pool.request() as server:
        ...     print(server.client.name, pool.share)
        http://two 0.5
    """

    def __init__(self, servers: list[Server]) -> None:
        """Take the servers, those first that go first where all are idle."""
        self.servers = servers

    @property
    def places(self) -> int:
        """How many requests all servers take on together."""
        return sum(server.places for server in self.servers)

    @property
    def share(self) -> float:
        """Which part of these places is at servers that are not left out."""
        return sum(server.places for server in self._able) / self.places

    @property
    def any_may_serve(self) -> bool:
        """Whether a request has a chance at one, now or later."""
        return any(server.may_serve for server in self.servers)

    @property
    def all_rest(self) -> bool:
        """Whether there is none that would not be left out."""
        return all(server.rests for server in self.servers)

    @contextmanager
    def request(self) -> Iterator[Server]:
        """Give the server that takes the next request; it is the busier meanwhile."""
        server = min(self._able, key=lambda s: s.busy / s.places)
        server.busy += 1
        try:
            yield server
        finally:
            server.busy -= 1

    def leave_out(self, server: Server, fault: Fault) -> None:
        """Leave a server out for a while, after what it did."""
        if server.rests:  # another request of the same outage
            return
        server.faults, server.fault = server.faults + 1, fault
        seconds = pause(server.faults, fault)
        server.rests_until = time.monotonic() + seconds
        if len(self.servers) > 1:
            _log.warning("%s is left out for %.1f s: %s", server.client.name, seconds, fault)

    def welcome(self, server: Server) -> None:
        """Take note that a server did what was asked."""
        server.faults, server.fault, server.rests_until = 0, None, 0.0

    @property
    def _able(self) -> list[Server]:
        awake = [server for server in self.servers if not server.rests]
        return awake or [server for server in self.servers if server.may_serve] or self.servers


def pause(faults: int, fault: Fault) -> float:
    """Return the seconds to wait after so many faults: longer each time, never all at once."""
    backoff = BACKOFF * 2.0 ** min(faults - 1, 10) * random.uniform(0.5, 1.0)
    return min(max(backoff, fault.after or 0.0), _LONGEST)
