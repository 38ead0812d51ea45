"""What the remote engine finds out before it begins: which server, which model, which tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from erank_lite.engines.remote.dialects import TOP, VLLM, Dialect, LlamaServer
from erank_lite.engines.remote.http import ADDRESS, KEY, OTHER_SERVER, Fault, ServerClient
from erank_lite.errors import ModelError
from erank_lite.text.tokenizer import Tokenizer

_SAMPLE = "Rank 0123456789 — naïve Ω\n\n\t<answer>10</answer>"


@dataclass(frozen=True)
class Served:
    """A server's model.

    Attributes:
        dialect: how to speak to it.
        context_length: the most tokens of a prompt with its completion, or None if it is not said.
        places: how many requests the server takes on together, or None if it is not said.
        sources: where its files lie on the server's machine, which may be this one.
    """

    dialect: Dialect
    context_length: int | None
    places: int | None
    sources: tuple[str, ...]


async def recognise(server: ServerClient, model: str | None, strict: bool) -> Served:
    """Find out what `server` is.

    Args:
        server: any.
        model: the name it goes by there; None takes the one model that there is.
        strict: see `erank_lite.engines.remote.engine.RemoteEngine`.

    Raises:
        Fault: it does not say.
        ModelError: it has no such model.
    """
    cards = (await server.ask("/v1/models")).get("data")
    card = _card(server, cards, model)
    if card.get("owned_by") != "llamacpp":
        sources = tuple(v for v in (card.get("root"), card.get("id")) if isinstance(v, str))
        context = _number(card.get("max_model_len"))
        return Served(VLLM(str(card.get("id")), strict), context, None, sources)
    props = await server.ask("/props")
    settings = props.get("default_generation_settings")
    context = _number(settings.get("n_ctx")) if isinstance(settings, dict) else None
    path = props.get("model_path")
    sources = (path,) if isinstance(path, str) else ()
    return Served(LlamaServer(strict), context, _number(props.get("total_slots")), sources)


async def check(server: ServerClient, dialect: Dialect, tokenizer: Tokenizer) -> None:
    """Make sure that ids and log-probabilities come back, and that `tokenizer` is the model's.

    Raises:
        Fault: they do not come back.
        ModelError: the tokenizer is another.
    """
    text = _SAMPLE + "".join(tokenizer.added.values())
    ids = list(tokenizer.encode_trusted(text))
    if await dialect.encode(server, text) != ids:
        raise ModelError(
            f"the tokenizer given is not that of the model at {server.name}",
            "give tokenizer= the folder of the checkpoint, or the GGUF file, that the server has",
        )
    await ping(server, dialect, ids)


async def ping(server: ServerClient, dialect: Dialect, ids: Sequence[int]) -> None:
    """Ask for one token after `ids`, with its probability.

    Raises:
        Fault: none came.
    """
    body = dialect.body(ids, 1, True)
    async with aclosing(server.events(dialect.path, body)) as events:
        async for event in events:
            if dialect.read(event, measured=True).tokens:
                return
    raise Fault("it returned no token")


def _card(server: ServerClient, cards: Any, model: str | None) -> Mapping[str, Any]:
    """Return the entry of /v1/models for `model`."""
    found: list[dict[str, Any]] = []
    if isinstance(cards, list):
        found = [card for card in cards if isinstance(card, dict)]
    if not found:
        raise ModelError(f"{server.name} lists no model under /v1/models", "check that it is vLLM")
    names = [str(card.get("id")) for card in found]
    if model is None:
        return next((card for card in found if not card.get("parent")), found[0])
    if model not in names:
        raise ModelError(f"{server.name} has no model {model!r}; it has {', '.join(names)}")
    return found[names.index(model)]


def _number(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def refusal(server: ServerClient, fault: Fault) -> ModelError:
    """Return the error that says what failed and what to do."""
    hint = fault.advice
    if fault.status in (401, 403):
        hint = f"the key in {KEY} is not the server's" if server.has_key else f"set {KEY}"
    elif fault.status == 404:
        hint = ADDRESS
    elif fault.status == 400:
        few = "logprobs" in str(fault)
        hint = f"start vLLM with --max-logprobs {TOP}" if few else OTHER_SERVER
    return ModelError(f"the server at {server.name} cannot be used: {fault}", hint)
