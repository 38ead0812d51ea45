"""How servers are asked for tokens, and how they answer: vLLM's way and llama-server's.

Both take the prompt as ids, and answer in a stream of events with the ids that were chosen and,
where asked, natural-log probabilities of the `TOP` most probable under the full softmax.
"""

from __future__ import annotations

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from erank_lite.engines.remote.http import OTHER_SERVER, Fault, ServerClient
from erank_lite.types import Sampling

TOP = 20
"""vLLM's own limit where --max-logprobs does not raise it."""


class Token(NamedTuple):
    """An id, and the log-probabilities at its place by id, its own among them, if there are any."""

    id: int
    logprobs: Mapping[int, float] | None


@dataclass(frozen=True)
class Chunk:
    """What one event says.

    Attributes:
        tokens: the next ones.
        ended: None, or why they are the last: the model ended its "turn", or the "limit" came.
        count: how many tokens the server has made for this request so far, where it says so.
    """

    tokens: Sequence[Token]
    ended: str | None
    count: int | None = None


class Dialect(ABC):
    """The requests and answers of one kind of server.

    Attributes:
        name: of the kind of server.
        path: where completions are asked for.
    """

    name: str
    path: str

    @abstractmethod
    def body(
        self,
        ids: Sequence[int],
        limit: int,
        measured: bool,
        stream: bool = True,
        sampling: Sampling | None = None,
    ) -> dict[str, Any]:
        """Return the request for at most `limit` tokens after `ids`, greedily chosen or drawn."""

    @abstractmethod
    async def encode(self, server: ServerClient, text: str) -> Any:
        """Return the ids that the server makes of `text`, in which added tokens are meant.

        Raises:
            Fault: it does not say.
        """

    def read(self, event: Mapping[str, Any], measured: bool = False) -> Chunk:
        """Return what an event, or a whole answer, says.

        Raises:
            Fault: it reports an error, is not as this dialect has it, or lacks log-probabilities
                where they were to be `measured`.
        """
        error = event.get("error")
        if error is not None:
            fields = error if isinstance(error, dict) else {"message": error}
            message = " ".join(str(fields.get("message", "an error")).split())[:300]
            code = fields.get("code")
            status = code if type(code) is int and code >= 400 else None
            raise Fault(f"it reports {message}", status=status)
        try:
            chunk = self._read(event)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Fault("it sends JSON that is not what was asked for") from None
        if measured and any(token.logprobs is None for token in chunk.tokens):
            raise Fault("it returns no log-probabilities", passing=False, advice=OTHER_SERVER)
        return chunk

    @abstractmethod
    def _read(self, event: Mapping[str, Any]) -> Chunk: ...


class VLLM(Dialect):
    """OpenAI's completions with vLLM's additions (return_token_ids since 0.10.2)."""

    name = "vLLM"
    path = "/v1/completions"

    def __init__(self, model: str, strict: bool) -> None:
        """Speak to `model`; strict requests get no part of the prefix cache that others filled."""
        self._model = model
        self._strict = strict

    def body(
        self,
        ids: Sequence[int],
        limit: int,
        measured: bool,
        stream: bool = True,
        sampling: Sampling | None = None,
    ) -> dict[str, Any]:
        """See `Dialect.body`. Penalties are named, since the checkpoint may bring its own."""
        body = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": limit,
            "temperature": 0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stream": stream,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }
        if sampling is not None:
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p,
                     "seed": sampling.seed}  # fmt: skip
        if measured:
            body["logprobs"] = TOP
        if self._strict:
            body["cache_salt"] = secrets.token_hex(16)
        return body

    async def encode(self, server: ServerClient, text: str) -> Any:
        """See `Dialect.encode`. Completions give the prompt's ids back, whatever else is closed."""
        body = self.body((), 1, False, stream=False)
        answer = await server.ask(self.path, body | {"prompt": text, "add_special_tokens": False})
        self.read(answer)
        return answer["choices"][0].get("prompt_token_ids")

    def _read(self, event: Mapping[str, Any]) -> Chunk:
        if not event["choices"]:  # the sums at the end
            return Chunk((), None)
        choice = event["choices"][0]
        ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
        if ids is None:
            reason = "it returns no token ids (return_token_ids)"
            raise Fault(reason, passing=False, advice=OTHER_SERVER)
        places: list[dict[int, float] | None] = [None] * len(ids)
        if logprobs is not None:
            own = logprobs["token_logprobs"]
            places = [
                {_id(name): _logprob(p) for name, p in (top or {}).items()} | {i: _logprob(q)}
                for i, q, top in zip(ids, own, logprobs["top_logprobs"], strict=True)
            ]
        ended = {None: None, "stop": "turn", "length": "limit"}[choice.get("finish_reason")]
        return Chunk([Token(_whole(i), p) for i, p in zip(ids, places, strict=True)], ended)


class LlamaServer(Dialect):
    """llama-server's own /completion."""

    name = "llama-server"
    path = "/completion"

    def __init__(self, strict: bool) -> None:
        """Speak to the model that the server has; strict requests do without its prompt cache."""
        self._strict = strict

    def body(
        self,
        ids: Sequence[int],
        limit: int,
        measured: bool,
        stream: bool = True,
        sampling: Sampling | None = None,
    ) -> dict[str, Any]:
        """See `Dialect.body`. With the one sampler, the server's own penalties do not apply."""
        body: dict[str, Any] = {"temperature": 0, "samplers": ["temperature"]}
        if sampling is not None:
            body = {"temperature": sampling.temperature, "top_p": sampling.top_p,
                    "seed": sampling.seed, "samplers": ["temperature", "top_p"]}  # fmt: skip
        return body | {
            "prompt": list(ids),
            "n_predict": limit,
            "n_probs": TOP if measured else 0,
            "post_sampling_probs": False,
            "return_tokens": True,
            "cache_prompt": not self._strict,
            "stream": stream,
        }

    async def encode(self, server: ServerClient, text: str) -> Any:
        """See `Dialect.encode`."""
        body = {"content": text, "add_special": False, "parse_special": True}
        return (await server.ask("/tokenize", body)).get("tokens")

    def _read(self, event: Mapping[str, Any]) -> Chunk:
        ids = event["tokens"]
        probabilities = event.get("completion_probabilities") or []
        places = [
            {p["id"]: _logprob(p["logprob"])}
            | {top["id"]: _logprob(top["logprob"]) for top in p["top_logprobs"]}
            for p in probabilities
        ]
        logprobs = places if len(places) == len(ids) else [None] * len(ids)
        ended = None
        if event["stop"]:
            ended = "limit" if event["stop_type"] == "limit" else "turn"
        tokens = [Token(_whole(i), p) for i, p in zip(ids, logprobs, strict=True)]
        return Chunk(tokens, ended, _whole(event["tokens_predicted"]))


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _id(name: str) -> int:
    """Return the id in `token_id:N`, as return_tokens_as_token_ids writes tokens."""
    return int(name.removeprefix("token_id:"))


def _logprob(value: float | None) -> float:
    """Return a log-probability; both servers write null where it is no number."""
    return math.nan if value is None else float(value)
