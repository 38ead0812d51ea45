"""A server that speaks the Hugging Face Hub's protocol on the loopback, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HELD = 12_000_000  # huggingface_hub writes what arrives in pieces of 10 MiB
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One hub with one repository.

    Attributes:
        files: name → content.
        repository: the only name that it knows.
        token: what a request must carry, or None.
        gated: whether the terms have not been accepted.
        wrong: names whose announced digest is not that of their content.
        cut: name → bytes after which the connection is cut, each once.
        hold: while it is set, no more than `HELD` bytes of a file are sent.
        status: what every request is answered with, or None.
        answer: the body that every question about the repository gets, or None.
        requests: (method, path, Range header) in order.
    """

    files: dict[str, bytes]
    repository: str = "owner/tiny"
    token: str | None = None
    gated: bool = False
    wrong: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    answer: bytes | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def transfers(self, name: str) -> list[str | None]:
        """Return the Range header of each GET for the file `name`."""
        gets = [(path, span) for method, path, span in self.requests if method == "GET"]
        return [span for path, span in gets if path.endswith(f"/{name}")]

    def info(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            shown = content + b"?" if name in self.wrong else content
            if name.endswith((".safetensors", ".gguf")):
                sha256 = hashlib.sha256(shown).hexdigest()
                entry |= {
                    "blobId": "0" * 40,
                    "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 130},
                }
            else:
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(shown) + shown).hexdigest()
            siblings.append(entry)
        return {"id": self.repository, "sha": COMMIT, "siblings": siblings, "private": False}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?(?:\?.*)?", self.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repository, revision = (api or file).groups()[:2] if api or file else ("", None)
        if hub.status is not None:
            return self._error(hub.status, None)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._error(401, "RepoNotFound")
        if repository != hub.repository:
            return self._error(404, "RepoNotFound")
        if revision not in (None, "main", COMMIT):
            return self._error(404, "RevisionNotFound")
        if api:
            if hub.gated:
                return self._error(403, "GatedRepo")
            return self._send(hub.answer or json.dumps(hub.info()).encode(), body)
        name = file[3]
        if name not in hub.files:
            return self._error(404, "EntryNotFound")
        return self._send_file(name, body)

    def _error(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _send_file(self, name: str, body: bool) -> None:
        hub = self.hub
        content = hub.files[name]
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked:
            start = int(asked[1])
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        if not body:
            return
        if name in hub.cut:
            self.wfile.write(content[start : start + hub.cut.pop(name)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(content[start : start + HELD])
        self.wfile.flush()
        while hub.hold.is_set() and len(content) > HELD:
            time.sleep(0.02)
        self.wfile.write(content[start + HELD :])


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port of the loopback; its address is in `hub.url`."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # cut connections
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.hold.clear()
        server.shutdown()
        server.server_close()
