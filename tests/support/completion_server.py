"""A server that writes what a script says, as vLLM or as llama-server, and can misbehave.

vLLM's dialect is that of its 0.33.0 (`vllm/entrypoints/openai/completion/serving.py`),
llama-server's that of the llama.cpp in llama-cpp-python 0.3.36 (`tools/server/server-task.cpp`).
"""

from __future__ import annotations

import codecs
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from erank_lite.engines.fake import FakeEngine
from erank_lite.types import Prompt

VLLM, LLAMA = "vllm", "llama-server"


@dataclass
class CompletionServer:
    """One server with the model that `engine` makes believe.

    Attributes:
        engine: whose script, tokenizer, ends and context are served.
        kind: `VLLM` or `LLAMA`.
        fault: called with a completion's number (from 0, since the attribute was set) and its
            body; returns what shall go wrong: a status, "html", "garbage", "no logprobs", "no ids",
            "nan", "error", "shifted", "replaced", or "hang", "cut" or "end", at once or, with
            " later", in the middle; or None.
        retry_after: that header, where a status is the fault.
        key: what a request must carry, or None.
        root: where the model lies, as the server says.
        opening: how prompts end.
        ends_silently: the end token's id is not given.
        replaced: what is sent in place of every event, where that is the fault.
        bodies: of all completions asked for.
        hung_up: streams that the client closed before their end.
        released: lets go of what hangs.
    """

    engine: FakeEngine
    kind: str = VLLM
    fault: Callable[[int, dict[str, Any]], int | str | None] = lambda number, body: None
    retry_after: str | None = None
    key: str | None = None
    root: str = "/nowhere/erank"
    opening: str = "<|im_start|>assistant\n"
    places: int = 4
    page: bytes | None = None
    ends_silently: bool = False
    replaced: dict[str, Any] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    hung_up: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def misbehave(self, fault: Callable[[int, dict[str, Any]], int | str | None]) -> None:
        """Begin to misbehave, once the start-up is over."""
        self.bodies.clear()
        self.fault = fault

    def likely(self, ids: Sequence[int]) -> list[tuple[int, float]]:
        """Return the script's next tokens after all `ids`, the prompt's and those written."""
        opening = list(self.engine.tokenizer.encode_trusted(self.opening))
        for at in range(len(ids), len(opening) - 1, -1):
            if list(ids[at - len(opening) : at]) == opening:
                prompt = Prompt(tuple(ids[:at]), 0)
                return list(self.engine._script(prompt, tuple(ids[at:])))
        return [(self.engine.tokenizer.encode_trusted("x")[0], 0.5)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: CompletionServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        s = self.server_
        if s.page is not None:
            return self._send(200, s.page, "text/html")
        if not self._allowed():
            return None
        if self.path == "/v1/models":
            return self._json(200, {"object": "list", "data": [self._card()]})
        if self.path == "/props" and s.kind == LLAMA:
            settings = {"n_ctx": s.engine.context_length}
            props = {"default_generation_settings": settings, "total_slots": s.places}
            return self._json(200, props | {"model_path": s.root})
        return self._error(404, "Not Found")

    def do_POST(self) -> None:
        s = self.server_
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return None
        if self.path == "/tokenize" and s.kind == LLAMA:
            ids = list(s.engine.tokenizer.encode_trusted(body["content"]))
            return self._json(200, {"tokens": ids})
        if self.path != ("/v1/completions" if s.kind == VLLM else "/completion"):
            return self._error(404, "Not Found")
        number = len(s.bodies)
        s.bodies.append(body)
        return self._complete(body, s.fault(number, body))

    def _complete(self, body: dict[str, Any], fault: int | str | None) -> None:
        s = self.server_
        if isinstance(fault, int):
            return self._error(fault, "the fixture fails", s.retry_after)
        if fault == "html":
            return self._send(200, b"<html>Welcome</html>", "text/html")
        if s.kind == VLLM and body["model"] != "erank":
            return self._error(404, f"The model `{body['model']}` does not exist.")
        ids = body["prompt"]
        if isinstance(ids, str):
            ids = list(s.engine.tokenizer.encode_trusted(ids))
        limit = body.get("max_tokens", body.get("n_predict"))
        if len(ids) + limit > s.engine.context_length:
            return self._error(400, "the prompt is longer than the context")
        if fault == "shifted":
            ids = [i + 1 for i in ids]
        events = self._vllm if s.kind == VLLM else self._llama
        made = events(body, ids, limit, fault)
        if not body["stream"]:
            (event,) = made
            return self._json(200, event)
        return self._stream(made, fault)

    def _stream(self, events: Iterator[dict[str, Any]], fault: int | str | None) -> None:
        s = self.server_
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            what, _, later = str(fault).partition(" ")
            for number, event in enumerate(events):
                self._chunk(b": ping\n\n")
                now = number == (2 if later == "later" else 0)
                if what == "hang" and now:
                    s.released.wait(30)
                if what in ("cut", "hang") and now:
                    self.close_connection = True
                    return self.connection.close()
                if what == "end" and now:
                    break
                if fault == "garbage":
                    self._chunk(b'data: {"choices": [{"text"\n\n')
                if fault == "error":
                    event = {"error": {"message": "the engine died", "code": 500}}
                if fault == "replaced":
                    event = s.replaced
                self._chunk(b"data: " + json.dumps(event).replace("NaN", "null").encode() + b"\n\n")
            if s.kind == VLLM:
                self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            s.hung_up += 1
            self.close_connection = True
        return None

    def _tokens(
        self, ids: list[int], limit: int, fault: int | str | None
    ) -> Iterator[tuple[int, list[tuple[int, float]], str | None]]:
        """Yield each token, the most probable 20 with their log-probabilities, and why it ends."""
        s, ids = self.server_, list(ids)
        for number in range(limit):
            likely = s.likely(ids)
            token = likely[0][0]
            ids.append(token)
            top = [(i, math.log(p)) for i, p in sorted(likely, key=lambda x: -x[1])[:20]]
            if fault == "nan":
                top = [(i, math.nan) for i, _ in top]
            ended = "length" if number == limit - 1 else None
            yield token, top, "stop" if token in s.engine.end_ids else ended
            if token in s.engine.end_ids:
                return

    def _vllm(
        self, body: dict[str, Any], ids: list[int], limit: int, fault: int | str | None
    ) -> Iterator[dict[str, Any]]:
        s = self.server_
        common = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": "erank"}
        for number, (token, top, ended) in enumerate(self._tokens(ids, limit, fault)):
            logprobs = None
            if body.get("logprobs") and fault != "no logprobs":
                logprobs = {
                    "text_offset": [number],
                    "token_logprobs": [dict(top)[token]],
                    "tokens": [f"token_id:{token}"],
                    "top_logprobs": [{f"token_id:{i}": p for i, p in top}],
                }
            stop = ended == "stop"
            hidden = stop and s.ends_silently
            choice = {
                "index": 0,
                "text": "" if stop else s.engine.tokenizer.decode([token]),
                "logprobs": None if hidden else logprobs,
                "finish_reason": ended,
                "stop_reason": None,
                "prompt_token_ids": ids if number == 0 else None,
                "token_ids": None if fault == "no ids" else [] if hidden else [token],
            }
            yield common | {"choices": [choice]}

    def _llama(
        self, body: dict[str, Any], ids: list[int], limit: int, fault: int | str | None
    ) -> Iterator[dict[str, Any]]:
        s = self.server_
        made: list[int] = []
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        ended: str | None = None
        for token, top, ended in self._tokens(ids, limit, fault):
            made.append(token)
            piece = s.engine.tokenizer.pieces[token]
            decoder.decode(piece)
            # The real server holds back what ends within a character, and never sends its ids.
            hidden = ended == "stop" and s.ends_silently
            if decoder.getstate()[0] or not body["stream"] or hidden:
                continue
            event = {"index": 0, "content": "", "tokens": [token], "stop": False, "id_slot": -1}
            event |= {"tokens_predicted": len(made), "tokens_evaluated": len(ids)}
            if body["n_probs"] and fault != "no logprobs":
                places = [{"id": i, "token": "", "bytes": [], "logprob": p} for i, p in top]
                own = next(p for p in places if p["id"] == token)
                event["completion_probabilities"] = [own | {"top_logprobs": places}]
            yield event
        hidden_end = ended == "stop" and s.ends_silently
        yield {
            "index": 0, "content": "", "tokens": [] if body["stream"] else made, "id_slot": 0,
            "stop": True, "stop_type": "eos" if ended == "stop" else "limit", "truncated": False,
            "tokens_predicted": len(made) - hidden_end, "tokens_evaluated": len(ids),
        }  # fmt: skip

    def _card(self) -> dict[str, Any]:
        s = self.server_
        if s.kind == LLAMA:
            return {"id": "erank", "object": "model", "created": 0, "owned_by": "llamacpp"}
        card = {"id": "erank", "object": "model", "created": 0, "owned_by": "vllm", "parent": None}
        return card | {"root": s.root, "max_model_len": s.engine.context_length, "permission": []}

    def _allowed(self) -> bool:
        s = self.server_
        if s.key is None or self.headers.get("Authorization") == f"Bearer {s.key}":
            return True
        self._error(401, "Unauthorized")
        return False

    def _error(self, status: int, message: str, retry_after: str | None = None) -> None:
        error = {"message": message, "type": "Error", "param": None, "code": status}
        self._json(status, {"error": error}, retry_after)

    def _json(self, status: int, value: Any, retry_after: str | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", retry_after)

    def _send(self, status: int, content: bytes, kind: str, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()


@contextmanager
def serving(server: CompletionServer) -> Iterator[CompletionServer]:
    """Serve on a free port of the loopback; the address is in `server.url`."""
    handler = type("Handler", (_Handler,), {"server_": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # cut connections
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        http.server_close()
