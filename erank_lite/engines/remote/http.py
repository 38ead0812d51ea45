"""HTTP to one completion server: questions, streams, and what can go wrong with either."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import AsyncGenerator, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from erank_lite.errors import InputError
from erank_lite.util.network import certificates, proxy_for

KEY = "ERANK_LITE_API_KEY"
"""The environment variable that holds the server's key."""

ADDRESS = "give the address of vLLM or llama-server itself, as http://HOST:PORT"
OTHER_SERVER = "only vLLM (0.10.2 or newer) and llama-server will do"

_CONNECT_TIMEOUT = 10.0
_SERVER_WIDE = (401, 403, 404)  # what is wrong with every request, not with this one
_PASSING = (408, 429)


class Fault(Exception):
    """The server did not do what was asked.

    Attributes:
        status: the HTTP status, or None where none came or it was not the matter.
        passing: it may pass, so asking again makes sense.
        after: seconds that the server wants to be left alone, or None.
        advice: what to do where it does not pass.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        passing: bool = True,
        after: float | None = None,
        advice: str = "look at its log, and try again",
    ) -> None:
        """Say what happened; a status says itself whether it may pass."""
        super().__init__(reason)
        self.status = status
        self.passing = passing if status is None else status in _PASSING or status >= 500
        self.after = after
        self.advice = advice

    @property
    def about_the_request(self) -> bool:
        """Whether the server refused this one request, and may well take others."""
        refused = self.status is not None and 400 <= self.status < 500
        return refused and not self.passing and self.status not in _SERVER_WIDE


class ServerClient:
    """One server. Its methods belong to one event loop."""

    def __init__(self, url: str, timeout: float) -> None:
        """Note the address; nothing is asked yet.

        Args:
            url: `http://HOST:PORT`, with a path where a proxy needs one; `/v1` may be left on.
            timeout: seconds that the server may say nothing.

        Raises:
            InputError: the address or the key cannot be.
            ModelError: the proxy or the certificates that are named cannot be used.
        """
        base = _address(url)
        self.name = f"{base.scheme}://{base.netloc.decode()}{base.path.rstrip('/')}"
        self.has_key = bool(key := os.environ.get(KEY, "").strip())
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{KEY} holds characters that no key has", "set it again")
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT), pool=None),
            limits=httpx.Limits(),
            # Not by httpx, which fails at what other programs set these variables to.
            trust_env=False,
            proxy=proxy_for(str(base)),
            verify=certificates() if base.scheme == "https" else False,
        )

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """GET `path`, or POST `body` to it, and return the JSON object that comes back.

        Raises:
            Fault: there is no answer, an error, or something else.
        """
        with self._faults():
            method = "GET" if body is None else "POST"
            response = await self._client.request(method, path, json=body)
        _check(response)
        if "json" not in _kind(response):
            reason = f"it answers {path} with {_kind(response)}, not JSON"
            raise Fault(reason, passing=False, advice=ADDRESS)
        return _object(response.content)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """POST `body` to `path` and yield the events of the answer; close it to hang up.

        Raises:
            Fault: as `ask`, before or among the events.
        """
        with self._faults():
            async with self._client.stream("POST", path, json=body) as response:
                if not response.is_success:
                    await response.aread()
                _check(response)
                if "event-stream" not in _kind(response):
                    reason = f"it answers with {_kind(response)}, not with a stream of events"
                    raise Fault(reason, advice=ADDRESS)
                # Bytes, not httpx's lines: those part at characters that JSON may hold too.
                rest = b""
                async for piece in response.aiter_bytes():
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        data = line[5:].strip()
                        if line.startswith(b"data:") and data != b"[DONE]":
                            yield _object(data)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = f"it cannot be reached ({_text(error)})"
            raise Fault(reason, advice="start it, or check its address") from None
        except httpx.TimeoutException:
            raise Fault(f"it said nothing for {self._timeout:g} seconds") from None
        except httpx.HTTPError as error:
            raise Fault(f"the connection broke ({_text(error)})") from None


def _address(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InputError(f"{url!r} is not an address ({error})", "give http://HOST:PORT") from None
    if "," in parsed.host:
        raise InputError(
            f"{url!r} is not an address", "several are given as http://HOST:PORT,http://HOST:PORT"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 1) > 65535:
        raise InputError(f"{url!r} is not the address of a server", "give http://HOST:PORT")
    path = parsed.path.rstrip("/")
    for ending in ("/completions", "/completion", "/v1"):
        path = path.removesuffix(ending)
    return parsed.copy_with(path=path or "/", query=None, fragment=None)


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    reason = f"it answers {response.status_code}"
    if said := _said(response):
        reason += f": {said}"
    after = _seconds(response.headers.get("Retry-After"))
    raise Fault(reason, status=response.status_code, after=after)


def _said(response: httpx.Response) -> str:
    """Return what the server says of an error, on one short line."""
    if "html" in _kind(response):
        return "a page of HTML"
    try:
        value = _object(response.content)
    except Fault:
        text = response.text
    else:
        error = value.get("error", value)
        said = error.get("message", error.get("detail")) if isinstance(error, dict) else error
        text = said if isinstance(said, str) else json.dumps(value)
    return " ".join(text.split())[:300]


def _seconds(retry_after: str | None) -> float | None:
    """Return what a Retry-After header says, in seconds: it holds a number or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _kind(response: httpx.Response) -> str:
    kind: str = response.headers.get("Content-Type", "no content type").split(";")[0].strip()
    return kind


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise Fault("it sends JSON that is malformed") from None
    if not isinstance(value, dict):
        raise Fault("it sends JSON that is not an object")
    return value


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
