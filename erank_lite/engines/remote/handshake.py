"""What the remote engine finds out before it begins: which server, which model, which tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.engines.llama_cpp.setup import chat_template, end_ids
from erank_lite.engines.remote.dialects import TOP, VLLM, Dialect, LlamaServer
from erank_lite.engines.remote.http import ADDRESS, KEY, OTHER_SERVER, Fault, Server
from erank_lite.errors import ModelError
from erank_lite.models.checkpoint import TOKENIZER, CheckpointFolder
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.prepare import BUNDLED_MODEL, checkpoint_folder
from erank_lite.text.tokenizer import Tokenizer

_SAMPLE = "Rank 0123456789 — naïve Ω\n\n\t<answer>10</answer>"
_TURN_ENDS = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class ModelText:
    """What a model's text is made of: see the attributes of `erank_lite.engines.base.Engine`."""

    tokenizer: Tokenizer
    chat_template: str
    end_ids: frozenset[int]
    max_new_tokens: int | None

    @classmethod
    def of(cls, source: str | Path) -> ModelText:
        """Read it from a checkpoint folder, its tokenizer.json, a GGUF file, or erank-tiny.

        Raises:
            ModelError: there is none, or it lacks something.
        """
        path = (
            checkpoint_folder(source) if str(source) == BUNDLED_MODEL else Path(source).expanduser()
        )
        if not path.exists():
            raise ModelError(
                f"there is no file or folder {path}: give tokenizer= the checkpoint's folder (hf "
                'download NAME --exclude "*.safetensors" --local-dir FOLDER brings it without the '
                "weights) or a GGUF of it"
            )
        if path.is_dir() or path.name == TOKENIZER:
            return cls._of_checkpoint(CheckpointFolder.open(path if path.is_dir() else path.parent))
        return cls._of_gguf(GGUFFile.read(path))

    @classmethod
    def _of_checkpoint(cls, folder: CheckpointFolder) -> ModelText:
        tokenizer = folder.tokenizer()
        ends = folder.end_ids(tokenizer)
        return cls(tokenizer, folder.chat_template(), ends, folder.max_new_tokens)

    @classmethod
    def _of_gguf(cls, gguf: GGUFFile) -> ModelText:
        tokenizer = Tokenizer.from_gguf(gguf)
        ends = end_ids(gguf)
        if not ends:  # not of our converter: what llama.cpp would stop at
            named = (gguf.metadata.get(f"tokenizer.ggml.{n}_token_id") for n in ("eos", "eot"))
            known = (i for i, text in tokenizer.added.items() if text in _TURN_ENDS)
            ends = frozenset(i for i in (*named, *known) if type(i) is int)
        if not ends:
            raise ModelError(f"{gguf.path} names no end token: convert it again")
        most = gguf.metadata.get("erank_lite.max_new_tokens")
        return cls(tokenizer, chat_template(gguf), ends, most if type(most) is int else None)


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


async def recognise(server: Server, model: str | None, strict: bool) -> Served:
    """Find out what `server` is.

    Args:
        server: any.
        model: the name it goes by there; None takes the one model that there is.
        strict: see `erank_lite.engines.remote.engine.RemoteEngine`.

    Raises:
        ModelError: it cannot be used; the reason says what to do.
    """
    try:
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
    except Fault as fault:
        raise ModelError(_advice(server, fault)) from None


async def check(server: Server, dialect: Dialect, tokenizer: Tokenizer) -> None:
    """Make sure that ids and log-probabilities come back, and that `tokenizer` is the model's.

    Raises:
        ModelError: not so; the reason says what to do.
    """
    text = _SAMPLE + "".join(tokenizer.added.values())
    ids = list(tokenizer.encode_trusted(text))
    try:
        if await dialect.encode(server, text) != ids:
            raise ModelError(
                f"the tokenizer given is not that of the model at {server.name}: give tokenizer= "
                "the folder of the checkpoint, or the GGUF file, that the server has"
            )
        await ping(server, dialect, ids)
    except Fault as fault:
        raise ModelError(_advice(server, fault)) from None


async def ping(server: Server, dialect: Dialect, ids: Sequence[int]) -> None:
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


def _card(server: Server, cards: Any, model: str | None) -> Mapping[str, Any]:
    """Return the entry of /v1/models for `model`."""
    found: list[dict[str, Any]] = []
    if isinstance(cards, list):
        found = [card for card in cards if isinstance(card, dict)]
    if not found:
        raise ModelError(f"{server.name} lists no model under /v1/models: is it vLLM?")
    names = [str(card.get("id")) for card in found]
    if model is None:
        return next((card for card in found if not card.get("parent")), found[0])
    if model not in names:
        raise ModelError(f"{server.name} has no model {model!r}; it has {', '.join(names)}")
    return found[names.index(model)]


def _number(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _advice(server: Server, fault: Fault) -> str:
    """Return one line that says what failed and what to do."""
    reason = f"the server at {server.name} cannot be used: {fault}"
    if fault.status in (401, 403):
        wanted = f"the key in {KEY} is not the server's" if server.has_key else f"set {KEY}"
        return f"{reason}: {wanted}"
    if fault.status == 404:
        return f"{reason}: {ADDRESS}"
    if fault.status == 400:
        few = "logprobs" in str(fault)
        return f"{reason}: {f'start vLLM with --max-logprobs {TOP}' if few else OTHER_SERVER}"
    return f"{reason}: {fault.advice}"
