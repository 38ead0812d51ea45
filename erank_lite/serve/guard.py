"""Who may ask: the key, the Host header, the content type, and how large and slow a body may be."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from erank_lite.serve.dialects import Refused

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::\d+)?")


@dataclass(frozen=True)
class Guard:
    """What a request must have.

    Attributes:
        key: that clients send; None asks for none.
        hosts: names that the Host header may have, beside addresses and localhost. Another name
            means that a page of somebody else's had the browser ask (DNS rebinding).
        max_body: bytes.
        body_seconds: in which a body must have come.
    """

    key: str | None = None
    hosts: frozenset[str] = frozenset()
    max_body: int = 8 * 1024**2
    body_seconds: float = 30.0

    def check_host(self, request: Request) -> None:
        """Refuse a Host header that names another host.

        Raises:
            Refused: it does.
        """
        header = _HOST.fullmatch(request.headers.get("host", ""))
        if header is None:
            raise Refused("the Host header is no host", 400)
        name = header[1].strip("[]").lower().rstrip(".")
        if name in self.hosts or name == "localhost" or _is_address(name):
            return
        raise Refused(f"the host `{name[:80]}` is not served here: see --allowed-host", 403)

    def check_key(self, request: Request) -> None:
        """Refuse a request without the key, in any of the headers that clients send it in.

        Raises:
            Refused: it has none, or a wrong one.
        """
        if self.key is None:
            return
        # In bytes: clients send what is not ASCII in one encoding or the other.
        keys = {self.key.encode(), self.key.encode("latin-1", "replace")}
        right = False
        for name in ("authorization", "x-api-key"):
            sent = request.headers.get(name, "")
            if sent[:7].lower() == "bearer ":
                sent = sent[7:].strip()
            for key in keys:
                right |= hmac.compare_digest(sent.encode("latin-1"), key)
        if not right:
            raise Refused("the API key is missing or wrong", 401)

    async def read_body(self, request: Request) -> bytes:
        """Return the body of a request.

        Raises:
            Refused: it is no JSON by its type, too large, or too slow.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Refused("the body must be JSON, as Content-Type: application/json", 415)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused("the body must not be compressed", 415)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_body:
            raise Refused(f"the body is larger than {self.max_body} bytes", 413)
        try:
            return await asyncio.wait_for(self._read(request), self.body_seconds)
        except asyncio.TimeoutError:
            raise Refused("the body came too slowly", 408) from None
        except ClientDisconnect:
            raise Refused("the client went away", 499) from None

    async def _read(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.max_body:
                raise Refused(f"the body is larger than {self.max_body} bytes", 413)
        return bytes(body)


def allowed_hosts(host: str, others: Iterable[str] = ()) -> frozenset[str]:
    """Return the names that the Host header may have: that of the address served, and others."""
    return frozenset(name.lower() for name in (host, *others))


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own, which no other reaches.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
