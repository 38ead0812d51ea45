"""The routes of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from erank_lite.effort import Effort
from erank_lite.errors import ErankLiteError, InputError, ModelError
from erank_lite.reranker import Reranker, sort_results
from erank_lite.serve.dialects import (
    MAX_DOCUMENTS,
    Job,
    Refused,
    RerankRequest,
    answer,
    error_body,
    parse_body,
    parse_rerank,
    parse_score,
)
from erank_lite.serve.guard import Guard
from erank_lite.serve.metrics import CONTENT_TYPE, Metrics
from erank_lite.serve.models import Models, NotReadyError
from erank_lite.util.json_lines import finite
from erank_lite.version import __version__

if TYPE_CHECKING:
    from erank_lite.search import Folders

_log = logging.getLogger(__name__)
_access = logging.getLogger("erank_lite.access")
_PAGE = Path(__file__).parent / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RERANK = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/v2/rerank", "/v1/v2/rerank",
           "/v1/v1/rerank", "/v2/v2/rerank")  # fmt: skip
_SCORE = ("/score", "/v1/score")
_OPEN = frozenset({"/health", "/", "/page/app.js", "/page/style.css"})
_LINES, _NOT_KEPT = "application/x-ndjson", {"Cache-Control": "no-store"}
_LABELS, _IDS = {"0": "LABEL_0"}, {"LABEL_0": 0}  # TEI's clients look at the first key above
_CLOSED = 499  # the client went away
_RETRY = "5"  # seconds
_CLOSING = (401, 403, 408, 413)
_JOBS_AT_ONCE = 16  # queries of one request
_LONGEST_PATH = 200  # characters, in the log


@dataclass(frozen=True)
class Settings:
    """How a server answers.

    Attributes:
        guard: who may ask.
        thinking: of requests that name none; None means the model's own.
        deadline: seconds after which a request gets the best order so far; None waits.
        max_waiting: documents of all requests that may wait.
    """

    guard: Guard = field(default_factory=Guard)
    thinking: str | int | None = None
    deadline: float | None = None
    max_waiting: int = 4_000


class Server:
    """Answers requests with the models that it has."""

    def __init__(self, models: Models, settings: Settings, folders: Folders | None = None) -> None:
        """Take the models; the default one is loaded as the server starts.

        Args:
            models: that answer.
            settings: how.
            folders: that may be searched, if any.
        """
        self.models, self.settings, self.metrics = models, settings, Metrics()
        self._folders = folders
        self._waiting = 0

    def app(self) -> Starlette:
        """Return the application."""
        routes = [Route(path, self._guarded(self.rerank), methods=["POST"]) for path in _RERANK]
        routes += [Route(path, self._guarded(self.score), methods=["POST"]) for path in _SCORE]
        routes += [
            Route("/erank/stream", self._guarded(self.stream), methods=["POST"]),
            Route("/erank/search", self._guarded(self.search), methods=["POST"]),
            Route("/erank/folders", self._guarded(self.list_folders)),
            Route("/health", self._guarded(self.health)),
            Route("/ready", self._guarded(self.health)),
            Route("/v1/models", self._guarded(self.list_models)),
            Route("/models", self._guarded(self.list_models)),
            Route("/info", self._guarded(self.info)),
            Route("/metrics", self._guarded(self.tell_metrics)),
            Route("/", self._guarded(self.page)),
            Route("/page/{name}", self._guarded(self.page)),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: self._http_error},
        )
        app.router.redirect_slashes = False  # the Host header would decide where to
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._begin())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.to_thread(self.models.close)

    async def _begin(self) -> None:
        try:
            async with self.models.use(None, None):
                pass
        except ErankLiteError as error:
            _log.error("the model cannot be loaded: %s", error)

    # What every route goes through

    def _guarded(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            request.state.begun = time.monotonic()
            request.state.array = False
            request.state.facts = {}
            # The path as it was asked for, not as the Host header would have it.
            path = request.scope["path"]
            try:
                self.settings.guard.check_host(request)
                if path not in _OPEN:
                    self.settings.guard.check_key(request)
                response = await handler(request)
            except Refused as error:
                response = _error(error.message, error.status, error.param, request)
            except InputError as error:
                response = _error(error.message, 400, None, request)
            except NotReadyError:
                response = _error("Loading model", 503, None, request)
            except ModelError as error:
                # What is wrong with a model names files of this machine: for the log alone.
                _log.error("%s", error)
                response = _error("the model cannot answer now", 503, None, request)
            except asyncio.CancelledError:
                response = _error("the server is ending", 503, None, request)
            except Exception:
                _log.exception("a request could not be answered")
                response = _error("the server failed to answer", 500, None, request)
            if not isinstance(response, StreamingResponse):
                self._log_access(request, response.status_code)
            return response

        return handle

    def _log_access(self, request: Request, status: int) -> None:
        route = request.scope.get("route")
        name = route.path if isinstance(route, Route) else "other"
        self.metrics.requests.labels(name, str(status)).inc()
        begun = getattr(request.state, "begun", time.monotonic())
        facts = {
            "method": request.method, "path": request.scope["path"][:_LONGEST_PATH],
            "status": status, "seconds": round(time.monotonic() - begun, 4),
            "client": request.client.host if request.client else None,
        }  # fmt: skip
        _access.info(json.dumps(facts | getattr(request.state, "facts", {})))

    async def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        messages = {404: "there is no such route", 405: "the route takes another method"}
        message = messages.get(error.status_code, error.detail)
        response = _error(message, error.status_code, None, request, error.headers or {})
        self._log_access(request, error.status_code)
        return response

    async def _body(self, request: Request) -> dict[str, Any]:
        begun = time.perf_counter()
        body = parse_body(await self.settings.guard.read_body(request))
        request.state.array = body.get("texts") is not None
        self.metrics.seconds.labels("body").observe(time.perf_counter() - begun)
        return body

    # Ranking

    async def rerank(self, request: Request) -> Response:
        """Answer a request to rerank."""
        return await self._answer(
            request, parse_rerank(await self._body(request), request.scope["path"])
        )

    async def score(self, request: Request) -> Response:
        """Answer a request to score pairs."""
        return await self._answer(request, parse_score(await self._body(request)))

    async def _answer(self, request: Request, asked: RerankRequest) -> Response:
        begun = time.perf_counter()
        with self._waits(asked):
            work = asyncio.create_task(self._rank(asked, request.state.begun))
            gone = asyncio.create_task(_gone(request))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise Refused("the client went away", _CLOSED)
                rankings, best = work.result()
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        seconds = time.perf_counter() - begun
        self._count(request, rankings, seconds)
        model = self.models.of(asked.model)
        headers = {}
        if asked.array:
            headers = {"x-total-time": str(round(1000 * seconds)),
                       "x-inference-time": str(round(1000 * seconds))}  # fmt: skip
        return _json(answer(asked, rankings, model, best), headers=headers)

    async def _rank(
        self, asked: RerankRequest, begun: float
    ) -> tuple[list[list[dict[str, Any]]], float]:
        """Return the rankings, and the highest rank score that the model's family gives."""
        thinking = self.settings.thinking if asked.thinking is None else asked.thinking
        at_once = asyncio.Semaphore(_JOBS_AT_ONCE)
        async with self.models.use(asked.model, thinking) as reranker:
            _check_instruction(reranker, asked)

            async def one(job: Job) -> list[dict[str, Any]]:
                async with at_once:
                    return await reranker.arerank(
                        job.query, job.docs, asked.instruction, asked.truncate_length,
                        effort=self._effort(asked.effort, begun),
                    )  # fmt: skip

            try:
                return list(await asyncio.gather(*map(one, asked.jobs))), reranker.family.best
            except ModelError:
                await self.models.drop(asked.model, reranker)
                raise

    def _effort(self, effort: Effort, begun: float) -> Effort:
        """Return what is left of a request's time, counted from its arrival."""
        limits = [limit for limit in (self.settings.deadline, effort.within) if limit is not None]
        if not limits:
            return effort
        return replace(effort, within=float(min(limits)) - (time.monotonic() - begun))

    def _check_room(self, asked: RerankRequest) -> None:
        if self._waiting and self._waiting + asked.documents > self.settings.max_waiting:
            raise Refused("too many documents are waiting; ask again later", 429)

    @contextlib.contextmanager
    def _waits(self, asked: RerankRequest) -> Any:
        """Count the documents of a request as waiting, if there is room for them.

        Raises:
            Refused: there is none.
        """
        self._check_room(asked)
        self._waiting += asked.documents
        self.metrics.waiting.set(self._waiting)
        try:
            yield
        finally:
            self._waiting -= asked.documents
            self.metrics.waiting.set(self._waiting)

    def _count(
        self, request: Request, rankings: Sequence[Sequence[Mapping[str, Any]]], seconds: float
    ) -> None:
        results = [result for ranking in rankings for result in ranking]
        read = sum(r["prompt_tokens"] for r in results)
        written = sum(r["tokens"] for r in results)
        for result in results:
            level = result["level"]
            kind = "unread" if level is None else "full" if level == "full" else "stopped"
            self.metrics.documents.labels("failed" if result["failure"] else kind).inc()
        self.metrics.tokens.labels("read").inc(read)
        self.metrics.tokens.labels("written").inc(written)
        self.metrics.seconds.labels("documents").observe(seconds)
        request.state.facts = {"documents": len(results), "tokens": written}

    async def stream(self, request: Request) -> Response:
        """Answer as documents finish: a line of JSON for each, and at the end their order."""
        asked = parse_rerank(await self._body(request), request.scope["path"])
        return await self._stream(request, asked, {})

    async def search(self, request: Request) -> Response:
        """Find passages of the folders, and answer as `stream` does as they are read."""
        from erank_lite.serve.search import SearchRequest, told

        body = await self._body(request)
        if self._folders is None:
            raise Refused("no folder is searched here", 404)
        wanted, folders = SearchRequest.parse(body), self._folders
        found = await asyncio.to_thread(
            folders.search, wanted.query, wanted.candidates, wanted.folder
        )
        preface = told(folders, wanted.query, found)
        if not found:
            return _lines([{"model": None, "documents": 0, **preface}, {"order": [], "tokens": 0}])
        asked = parse_rerank(wanted.as_rerank(body, found), request.scope["path"])
        return await self._stream(request, asked, preface)

    async def _stream(
        self, request: Request, asked: RerankRequest, preface: Mapping[str, Any]
    ) -> Response:
        thinking = self.settings.thinking if asked.thinking is None else asked.thinking
        (job,) = asked.jobs
        self._check_room(asked)
        # What cannot be loaded, or used, has a status of its own.
        async with self.models.use(asked.model, thinking) as reranker:
            _check_instruction(reranker, asked)

        async def lines() -> AsyncIterator[bytes]:
            finished: list[dict[str, Any]] = []
            try:
                with self._waits(asked):
                    async with self.models.use(asked.model, thinking) as reranker:
                        name = self.models.of(asked.model)
                        yield _line({"model": name, "documents": len(job.docs), **preface})
                        async for result in reranker.aiter_rerank(
                            job.query, job.docs, asked.instruction, asked.truncate_length,
                            effort=self._effort(asked.effort, request.state.begun),
                        ):  # fmt: skip
                            finished.append(result)
                            yield _line(_shown(result))
                order = [result["index"] for result in sort_results(finished)]
                yield _line({"order": order, "tokens": sum(r["tokens"] for r in finished)})
            except InputError as error:
                yield _line({"error": error.message})
            except (ModelError, NotReadyError) as error:
                _log.error("%s", error)
                yield _line({"error": "the model cannot answer now"})
            finally:
                self._count(request, [finished], time.monotonic() - request.state.begun)
                self._log_access(request, 200)

        return StreamingResponse(lines(), media_type=_LINES, headers=_NOT_KEPT)

    # About the server

    async def health(self, request: Request) -> Response:
        """Tell whether a model is loaded."""
        if self.models.ready:
            return _json({"status": "ok"})
        if self.models.failure is not None:
            return _error("the model cannot be loaded", 503, None, request)
        return _error("Loading model", 503, None, request)

    async def list_models(self, request: Request) -> Response:
        """Name the models."""
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "erank-lite"}
            for name in self.models.names
        ]
        return _json({"object": "list", "data": data})

    async def list_folders(self, request: Request) -> Response:
        """Name the folders that can be searched."""
        return _json({"folders": [] if self._folders is None else self._folders.names})

    async def info(self, request: Request) -> Response:
        """Tell what TEI's clients ask for."""
        name = self.models.names[0]
        reranker = self.models.loaded().get(name)
        return _json(
            {
                "model_id": name, "model_sha": None, "model_dtype": "float16",
                "served_model_name": name,
                "model_type": {"reranker": {"id2label": _LABELS, "label2id": _IDS}},
                "max_concurrent_requests": self.settings.max_waiting,
                "max_input_length": reranker.engine.context_length if reranker else 4096,
                "max_batch_tokens": 16384, "max_batch_requests": None,
                "max_client_batch_size": MAX_DOCUMENTS, "auto_truncate": True,
                "tokenization_workers": 1, "version": __version__, "sha": None,
                "docker_label": None,
            }
        )  # fmt: skip

    async def tell_metrics(self, request: Request) -> Response:
        """Tell what was counted."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def page(self, request: Request) -> Response:
        """Return the page, or what it is made of."""
        name = request.path_params.get("name", "index.html")
        kinds = {"index.html": "text/html", "app.js": "text/javascript", "style.css": "text/css"}
        if name not in kinds:
            raise Refused("there is no such file", 404)
        headers = {
            "Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
        }  # fmt: skip
        data = (_PAGE / name).read_bytes()
        return Response(data, media_type=f"{kinds[name]}; charset=utf-8", headers=headers)


def _check_instruction(reranker: Reranker, asked: RerankRequest) -> None:
    try:
        reranker.family.instruction_text(asked.instruction)
    except InputError as error:
        raise Refused(error.message, param="instruction") from None


def _shown(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("index", "score", "probability", "rank_score", "expected_score", "level", "estimate",
             "failure", "truncated", "forced", "reasoning", "tokens")  # fmt: skip
    return {name: result[name] for name in names}


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # In ASCII, as escapes: a text may hold half of a surrogate pair, which UTF-8 has not.
    try:
        data = json.dumps(content, allow_nan=False).encode("ascii")
    except ValueError:  # a document's own number, such as 1e999
        data = json.dumps(finite(content), allow_nan=False).encode("ascii")
    return Response(data, status, headers, "application/json")


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _lines(values: Sequence[Any]) -> Response:
    return Response(b"".join(map(_line, values)), media_type=_LINES, headers=_NOT_KEPT)


async def _gone(request: Request) -> None:
    """Return when the client went away; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(
    message: str,
    status: int,
    param: str | None,
    request: Request,
    headers: Mapping[str, str] | None = None,
) -> Response:
    found = dict(headers or {})
    if status in (429, 503):
        found["Retry-After"] = _RETRY
    if status == 401:
        found["WWW-Authenticate"] = "Bearer"
    if status in _CLOSING:
        found["Connection"] = "close"  # what follows of the body is not read
    array = getattr(request.state, "array", False)
    return _json(error_body(message, status, param, array), status, found)
