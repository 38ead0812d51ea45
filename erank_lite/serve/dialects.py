"""What clients send, and what they expect back: one request in the dialects of the field.

- object: `query` and `documents`; the answer has `results` with `index` and `relevance_score`
  (Cohere v1 and v2, Jina, llama-server, vLLM);
- array: `query` and `texts`; the answer is a bare list with `index` and `score` (TEI and
  llama-server);
- pairs: `text_1` and `text_2`, or as vLLM also calls them; the answer has `data` with `index` and
  `score`, in the order given.

Optional fields may be null, booleans may be strings, unknown fields are ignored: clients differ.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from erank_lite.effort import Effort
from erank_lite.errors import InputError
from erank_lite.families.base import parse_thinking
from erank_lite.serve.relevance import relevance

MAX_DOCUMENTS = 1_000
"""Of one request."""
MAX_QUERY = 100_000
"""Characters of a query or an instruction."""

_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"),
          ("data_1", "data_2"))  # fmt: skip
_CUTS = ("max_tokens_per_doc", "truncate_prompt_tokens")
_OWN = ("score", "probability", "rank_score", "level", "estimate", "failure", "truncated")


@dataclass(frozen=True)
class Job:
    """A query with its documents.

    Attributes:
        query: its text.
        docs: texts, as the reranker takes them.
    """

    query: str
    docs: Sequence[str]


@dataclass(frozen=True)
class RerankRequest:
    """What a client asks for.

    Attributes:
        jobs: one; of pairs, one for each query.
        objects: the documents as they came.
        model: the name that was asked for, if any.
        array: the answer is a bare list.
        pairs: it is in the order given.
        top_n: how many results are wanted; None means all.
        with_documents: results carry their documents.
        with_reasoning: and what the model thought.
        raw: scores are 0 to 10.
        instruction: what relevance means.
        thinking: a mode of its own.
        effort: how many documents are read, in how much time.
        truncate_length: of query and documents, in tokens.
        version: of Cohere's API, as the route has it.
        listed: the answer has `object`.
        warnings: what cannot be done as it was asked for.
    """

    jobs: Sequence[Job]
    objects: Sequence[Any]
    model: str | None = None
    array: bool = False
    pairs: bool = False
    top_n: int | None = None
    with_documents: bool = False
    with_reasoning: bool = False
    raw: bool = False
    instruction: str | None = None
    thinking: str | int | None = None
    effort: Effort = field(default_factory=Effort)
    truncate_length: int | None = None
    version: str = "1"
    listed: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        """How many there are."""
        return sum(len(job.docs) for job in self.jobs)


class Refused(InputError):
    """A request that cannot be answered, with the HTTP status and the field that is wrong."""

    def __init__(self, message: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        Refused: it is none.
    """
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refused("the body is nested too deep") from None
    except ValueError as error:
        raise Refused(f"the body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused("the body must be a JSON object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def parse_rerank(body: Mapping[str, Any], path: str) -> RerankRequest:
    """Read a request to rerank, in the dialect that it is in.

    Args:
        body: the request's.
        path: of the route, which decides what Cohere's two versions and the others differ in.

    Raises:
        Refused: a field is missing or cannot be used.

    Example:
        >>> request = parse_rerank({"query": "q", "documents": ["a", {"text": "b"}]}, "/v1/rerank")
        >>> request.jobs[0].docs, request.with_documents
        (('a', 'b'), True)
    """
    array = body.get("texts") is not None
    name = "texts" if array else "documents"
    query = _text(body, "query")
    objects = body.get(name)
    if isinstance(objects, str) and not array:
        objects = [objects]
    if not isinstance(objects, list) or not objects:
        raise Refused(f"`{name}` must be a list of at least one document", param=name)
    if len(objects) > MAX_DOCUMENTS:
        message = f"`{name}` has {len(objects)} documents, of which {MAX_DOCUMENTS} are allowed"
        raise Refused(message, 413, name)
    fields = body.get("rank_fields")
    docs = tuple(_document(each, i, name, fields) for i, each in enumerate(objects))
    new = "/v2/" in path  # also where a client puts its version behind an address with another
    shown = _boolean(body, "return_text" if array else "return_documents")
    warnings = []
    spans = body.get("relevant_spans")
    if isinstance(spans, Mapping) and spans.get("mode") == "enabled":
        warnings.append("relevant_spans: spans are not found by this model")
    if str(body.get("truncation_direction")).lower() == "left":
        warnings.append("truncation_direction: documents are cut at their end")
    return RerankRequest(
        jobs=(Job(query, docs),),
        objects=objects,
        array=array,
        top_n=_top_n(body),
        with_documents=(not array and not new) if shown is None else shown,
        version="2" if new else "1",
        listed=path.startswith("/v1"),
        warnings=tuple(warnings),
        **_common(body),
    )


def parse_score(body: Mapping[str, Any]) -> RerankRequest:
    """Read a request to score pairs.

    Raises:
        Refused: a field is missing or cannot be used.

    Example:
        >>> [job.docs for job in parse_score({"text_1": ["q", "r"], "text_2": ["a", "b"]}).jobs]
        [('a',), ('b',)]
    """
    names = next((names for names in _PAIRS if all(body.get(n) is not None for n in names)), None)
    if names is None:
        raise Refused("`text_1` and `text_2` must be given", param="text_1")
    left, right = ([body[n]] if isinstance(body[n], str) else body[n] for n in names)
    for name, side in zip(names, (left, right), strict=True):
        if not isinstance(side, list) or not side:
            raise Refused(f"`{name}` must be a text, or a list of at least one", param=name)
    if len(right) > MAX_DOCUMENTS:
        message = f"`{names[1]}` has {len(right)} texts, of which {MAX_DOCUMENTS} are allowed"
        raise Refused(message, 413, names[1])
    if len(left) not in (1, len(right)):
        raise Refused("Input lengths must be either 1:1, 1:N or N:N", param=names[0])
    queries = [_short(_document(each, i, names[0], None), names[0]) for i, each in enumerate(left)]
    docs = [_document(each, i, names[1], None) for i, each in enumerate(right)]
    if len(queries) == 1:
        jobs = [Job(queries[0], tuple(docs))]
    else:
        jobs = [Job(query, (doc,)) for query, doc in zip(queries, docs, strict=True)]
    common = _common(body)
    if common["effort"].limited and len(jobs) > 1:
        raise Refused("a budget of time or tokens is for one query", param="within")
    return RerankRequest(jobs=tuple(jobs), objects=right, pairs=True, **common)


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise Refused("`model` must be a name", param="model")
    instruction = body.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise Refused("`instruction` must be a text", param="instruction")
    instruction = instruction and _short(instruction, "instruction")
    thinking = body.get("thinking")
    try:
        thinking = None if thinking is None else parse_thinking(thinking)
    except InputError as error:
        raise Refused(error.message, param="thinking") from None
    effort = Effort()
    for name, own in (("depth", "depth"), ("within", "within"), ("token_budget", "tokens")):
        try:
            effort = replace(effort, **{own: body.get(name)})
        except InputError as error:
            raise Refused(error.message, param=name) from None
    raw = _boolean(body, "raw_scores")
    activation = _boolean(body, "use_activation")
    return {
        "model": model or None,
        "with_reasoning": bool(_boolean(body, "return_reasoning")),
        "raw": bool(raw) or activation is False,
        "instruction": instruction,
        "thinking": thinking,
        "effort": effort,
        "truncate_length": _truncate_length(body),
    }


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if isinstance(value, Mapping):
        value = value.get("text")
    if not isinstance(value, str):
        raise Refused(f"`{name}` must be a text", param=name)
    if not value.strip():
        raise Refused(f"`{name}` is empty", param=name)
    return _short(value, name)


def _short(text: str, name: str) -> str:
    if len(text) > MAX_QUERY:
        message = f"`{name}` has {len(text)} characters, of which {MAX_QUERY} are allowed"
        raise Refused(message, 413, name)
    return text


def _document(value: Any, index: int, name: str, fields: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if isinstance(fields, list) and fields:
            # As Cohere has it: the fields named, as YAML.
            return "\n".join(f"{f}: {value[f]}" for f in map(str, fields) if f in value)
        for key in ("text", "content"):
            text = value.get(key)
            if isinstance(text, str):
                return text
            if isinstance(text, list):  # vLLM's parts
                parts = [p.get("text") for p in text if isinstance(p, Mapping)]
                if parts and all(isinstance(p, str) for p in parts):
                    return "\n".join(map(str, parts))
        raise Refused(f"`{name}[{index}]` has no text", param=name)
    raise Refused(f"`{name}[{index}]` must be a text or an object with one", param=name)


def _boolean(body: Mapping[str, Any], name: str) -> bool | None:
    value = body.get(name)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value is not None and not isinstance(value, bool):
        raise Refused(f"`{name}` must be true or false", param=name)
    return value


def _top_n(body: Mapping[str, Any]) -> int | None:
    name = "top_k" if body.get("top_n") is None and body.get("top_k") is not None else "top_n"
    value = _integer(body, name)
    if value is not None and value < 0:
        raise Refused(f"`{name}` must not be negative", param=name)
    return value or None


def _truncate_length(body: Mapping[str, Any]) -> int | None:
    for name in ("truncate_length", *_CUTS):
        value = _integer(body, name)
        if value is not None and value > 0:
            return value
    return None


def _integer(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"`{name}` must be a whole number", param=name)
    return value


def answer(
    request: RerankRequest,
    rankings: Sequence[Sequence[Mapping[str, Any]]],
    model: str,
    best: float = 10.0,
) -> Any:
    """Return the body of the answer, in the dialect of the request.

    Args:
        request: what was asked for.
        rankings: of each job, best first, as the reranker returned it.
        model: the one that answered, named where the client named none.
        best: the highest rank score of its family.
    """
    if request.pairs:
        return _pairs(request, rankings, model, best)
    (results,) = rankings
    scores = [best * n if request.raw else n for n in relevance(results, best)]
    wanted = list(zip(results, scores, strict=True))[: request.top_n]
    if request.array:
        return [_in_array(request, result, score) for result, score in wanted]
    body: dict[str, Any] = {"id": str(uuid.uuid4()), "model": request.model or model}
    if request.listed:
        body["object"] = "list"
    body["results"] = [_in_object(request, result, score) for result, score in wanted]
    read, written = _tokens(rankings)
    body["usage"] = {"prompt_tokens": read, "total_tokens": read, "completion_tokens": written}
    meta: dict[str, Any] = {
        "api_version": {"version": request.version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": read, "output_tokens": written},
    }
    if request.warnings:
        meta["warnings"] = list(request.warnings)
    return body | {"meta": meta}


def _in_array(request: RerankRequest, result: Mapping[str, Any], score: float) -> dict[str, Any]:
    row: dict[str, Any] = {"index": result["index"], "score": _finite(score)}
    if request.with_documents:
        row["text"] = result["content"]
    return row


def _in_object(request: RerankRequest, result: Mapping[str, Any], score: float) -> dict[str, Any]:
    row: dict[str, Any] = {"index": result["index"], "relevance_score": _finite(score)}
    if request.with_documents:
        given = request.objects[result["index"]]
        own = given if isinstance(given, Mapping) else {}
        row["document"] = {**own, "text": result["content"]}
    row |= {name: result[name] for name in _OWN}
    if request.with_reasoning:
        row["reasoning"] = result["reasoning"]
    return row


def _pairs(
    request: RerankRequest,
    rankings: Sequence[Sequence[Mapping[str, Any]]],
    model: str,
    best: float,
) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for results in rankings:
        numbers = relevance(results, best)
        rows = sorted(zip(results, numbers, strict=True), key=lambda pair: pair[0]["index"])
        for result, number in rows:
            score = _finite(best * number if request.raw else number)
            row = {"index": len(data), "object": "score", "score": score}
            data.append(row | {name: result[name] for name in _OWN if name != "score"})
    read, written = _tokens(rankings)
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": request.model or model,
        "data": data,
        "usage": {"prompt_tokens": read, "total_tokens": read, "completion_tokens": written,
                  "prompt_tokens_details": None},
    }  # fmt: skip


def _tokens(rankings: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[int, int]:
    results = [result for ranking in rankings for result in ranking]
    return sum(r["prompt_tokens"] for r in results), sum(r["tokens"] for r in results)


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0


def error_body(message: str, status: int, param: str | None, array: bool) -> dict[str, Any]:
    """Return the body of an error: one that the clients of all dialects read.

    Args:
        message: what is wrong.
        status: of HTTP.
        param: the field that is.
        array: in TEI's form.
    """
    if array:
        return {"error": message, "error_type": _TEI_TYPES.get(status, "Backend")}
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    inner = {"message": message, "type": kind, "param": param, "code": status}
    return {"message": message, "detail": message, "error": inner}


_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 501: "not_supported_error", 503: "unavailable_error",
}  # fmt: skip
_TEI_TYPES = {
    400: "Validation", 413: "Validation", 415: "Validation", 429: "Overloaded", 503: "Unhealthy",
}  # fmt: skip
