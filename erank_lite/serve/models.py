"""The models of a server: named at its start, loaded when they are asked for, put away at need."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from erank_lite.errors import ErankLiteError
from erank_lite.reranker import Reranker

_log = logging.getLogger(__name__)
_KEPT_MODES = 8  # modes of thinking, of each model, whose rerankers are kept


@dataclass
class _Model:
    """A model, and who uses it."""

    name: str
    reranker: Reranker | None = None
    modes: dict[str | int, Reranker] = field(default_factory=dict)
    users: int = 0
    used: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class NotReadyError(Exception):
    """The model cannot answer now; a client may ask again."""


class Models:
    """Loads models by name, one at a time, and puts the least used away where memory asks for it.

    Attributes:
        names: of all, the default one first.
        failure: why the default model could not be loaded; None while that is not known.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[str], Reranker],
        memory: Callable[[str], int | None] = lambda name: None,
        free: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
        aliases: Mapping[str, str] = {},
    ) -> None:
        """Take the names; nothing is loaded yet.

        Args:
            names: of at least one model.
            load: makes a reranker of a name; it may take long.
            memory: bytes that a model is expected to take, or None.
            free: bytes of memory that are free.
            aliases: other names, and which model each means.
        """
        self.names = list(names)
        self.failure: str | None = None
        self._aliases = dict(aliases)
        self._models = {name: _Model(name) for name in self.names}
        self._load, self._memory, self._free = load, memory, free
        self._loading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether a model is loaded, and the default one is not known to fail."""
        loaded = any(model.reranker is not None for model in self._models.values())
        return loaded and self.failure is None

    def of(self, name: str | None) -> str:
        """Return the model that answers for a name: that of it, else the default one."""
        name = self._aliases.get(name or "", name)
        return name if name in self._models else self.names[0]

    def loaded(self) -> dict[str, Reranker]:
        """Return the models that are in memory."""
        return {m.name: m.reranker for m in self._models.values() if m.reranker is not None}

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, thinking: str | int | None) -> AsyncIterator[Reranker]:
        """Yield the reranker that answers for a name; it stays loaded meanwhile.

        Raises:
            NotReadyError: it is being loaded by somebody else.
            ErankLiteError: it cannot be used.
        """
        model = self._models[self.of(name)]
        model.users += 1
        model.used = time.monotonic()
        try:
            if model.reranker is None and model.lock.locked():
                raise NotReadyError
            async with model.lock:
                if model.reranker is None:
                    await self._bring(model)
            yield _in_mode(model, thinking)
        finally:
            model.users -= 1

    async def _bring(self, model: _Model) -> None:
        async with self._loading:
            try:
                needed = await asyncio.to_thread(self._memory, model.name)
                while needed is not None and self._free() < needed and self._put_away():
                    pass
                model.reranker = await asyncio.to_thread(self._load, model.name)
                self.failure = None
            except ErankLiteError as error:
                if model.name == self.names[0]:
                    self.failure = error.message
                raise

    def _put_away(self) -> bool:
        """Close the model that was not used for the longest; return whether there was one."""
        idle = [m for m in self._models.values() if m.reranker is not None and not m.users]
        if not idle:
            return False
        oldest = min(idle, key=lambda m: m.used)
        _log.info("%s is put away for another model", oldest.name)
        self._close(oldest)
        return True

    async def drop(self, name: str | None, failed: Reranker) -> None:
        """Close a model that failed, unless another took its place; it is loaded anew at need."""
        model = self._models[self.of(name)]
        async with model.lock:
            if model.reranker is not None and model.reranker.engine is failed.engine:
                await asyncio.to_thread(self._close, model)

    def _close(self, model: _Model) -> None:
        reranker, model.reranker = model.reranker, None
        model.modes.clear()
        if reranker is not None:
            reranker.close()

    def close(self) -> None:
        """Free all."""
        for model in self._models.values():
            self._close(model)


def _in_mode(model: _Model, thinking: str | int | None) -> Reranker:
    assert model.reranker is not None
    if thinking is None or thinking == model.reranker.thinking:
        return model.reranker
    if thinking not in model.modes:
        while len(model.modes) >= _KEPT_MODES:
            model.modes.pop(next(iter(model.modes)))
        model.modes[thinking] = model.reranker.with_thinking(thinking)
    return model.modes[thinking]
