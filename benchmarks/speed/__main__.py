"""Measure speed from the command line: a grid of models, workloads and systems.

    python -m erank_lite.benchmarks.speed MODEL --json speed.json
    python -m erank_lite.benchmarks.speed MODEL --systems erank-lite llama-server --tokens 300
    python -m erank_lite.benchmarks.speed MODEL --document-tokens 100 400 1600 --json growth.json
    python -m erank_lite.benchmarks.speed M:Q8_0 M:BF16 --sequences 1 16 --tokens 16 64 --json DIR

Where one option has several values, the record shows how speed grows along it; where more have,
each place of the grid has a record of its own. --json is a file, or a folder for several records.
LLAMA_SERVER and LLAMA_BATCHED_BENCH name the programs where the options do not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.record import Record, command_line
from erank_lite.benchmarks.speed import (
    AXES,
    SYSTEMS,
    Peers,
    SpeedOptions,
    Workload,
    measure_scaling,
    measure_small,
    measure_speed,
)
from erank_lite.benchmarks.speed.alone import TIMEOUT
from erank_lite.benchmarks.speed.summary import file_name, lines
from erank_lite.benchmarks.speed.systems import OURS, OURS_BF16, select_systems
from erank_lite.errors import ErankLiteError, InputError
from erank_lite.util.reporter import Reporter

_ENGINES = {"llama.cpp": OURS, "transformers": OURS_BF16}


class _Printing(Reporter):
    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", nargs="+", help="GGUF file, erank-tiny:TYPE, folder, name on the Hub")
    grid = parser.add_argument_group("the grid: one or more values each")
    for option, field, text in (
        ("--documents", "documents", "how many"),
        ("--shared-tokens", "shared", "of the prompt, the same for all documents"),
        ("--document-tokens", "own", "of the prompt, each document's own"),
        ("--tokens", "tokens", "generated for each document"),
        ("--sequences", "sequences", "documents decoded together"),
    ):
        usual = f"{text} ({getattr(Workload, field)})"
        grid.add_argument(option, dest=field, type=int, nargs="+", metavar="N", help=usual)
    grid.add_argument("--systems", nargs="+", metavar="NAME", help="; ".join(SYSTEMS))
    add("--small", action="store_true", help="a preset of minutes; --json is a folder")
    add("--flash-attention", action="store_true", help="erank-lite with it, too")
    add("--no-ceiling", action="store_true", help="do not measure the machine")
    add("--checkpoint", help="folder, for the systems that run it in BF16")
    add("--server", type=Path, help="llama-server")
    add("--batched-bench", type=Path, help="llama-batched-bench")
    add("--repeat", type=int, help="the fastest counts (2; 1 with --small)")
    add("--threads", type=int)
    add("--timeout", type=float, default=TIMEOUT, help="seconds for one run")
    add("--json", type=Path, metavar="PATH")
    # As they were called before; --shared is short for --shared-tokens.
    hidden: dict[str, Any] = {"nargs": "+", "help": argparse.SUPPRESS}
    add("--own", type=int, **hidden)
    add("--ways", dest="systems", **hidden)
    add("--engines", dest="systems", type=lambda name: _ENGINES.get(name, name), **hidden)
    add("--growth", action=_Growth, **hidden)
    add("--sweep", action="store_true", help=argparse.SUPPRESS)
    return parser


class _Growth(argparse.Action):
    """`--growth AXIS VALUE…`: several values of one option."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> None:
        field = AXES.get(values[0].replace("-", " "))
        if field is None or not values[1:] or not all(map(str.isdecimal, values[1:])):
            parser.error(f"{option} needs an axis ({', '.join(AXES)}) and whole numbers")
        setattr(namespace, field, [int(value) for value in values[1:]])


def _axes(arguments: argparse.Namespace) -> dict[str, list[int]]:
    """Return the values of each field of the workload that the command line names."""
    axes = {field: values for field in AXES.values() if (values := getattr(arguments, field))}
    return {"sequences": [1, 4, 16], "tokens": [16, 64]} | axes if arguments.sweep else axes


def _scaling_axis(axes: Mapping[str, Sequence[int]]) -> str | None:
    """Return the one axis that has several values, or None."""
    several = [axis for axis, field in AXES.items() if len(axes.get(field, ())) > 1]
    return several[0] if len(several) == 1 else None


def _measure(
    arguments: argparse.Namespace, axes: Mapping[str, Sequence[int]], systems: Sequence[str]
) -> Iterator[Record]:
    options = SpeedOptions(
        repeat=(1 if arguments.small else 2) if arguments.repeat is None else arguments.repeat,
        threads=arguments.threads,
        timeout=arguments.timeout,
        peers=Peers(arguments.server, arguments.batched_bench, arguments.checkpoint),
        command=command_line(["python", "-m", "erank_lite.benchmarks.speed", *sys.argv[1:]]),
    )
    common: dict[str, Any] = {"options": options, "reporter": _Printing()}
    axis = _scaling_axis(axes)
    workloads = [Workload(**dict(zip(axes, v, strict=True))) for v in product(*axes.values())]
    seen: set[str] = set()
    for model in arguments.model:
        # Several types of a model have one checkpoint behind them, which is measured once.
        checkpoint = model.partition(":")[0]
        names = [name for name in systems if name != OURS_BF16 or checkpoint not in seen]
        seen.add(checkpoint)
        if arguments.small:
            yield from measure_small(model, **common)
        elif names and axis is not None:
            values = axes[AXES[axis]]
            yield from measure_scaling(model, axis, values, workloads[0], systems=names, **common)
        elif names:
            yield from measure_speed(
                model,
                workloads,
                systems=names,
                flash_attention=arguments.flash_attention,
                ceilings=not (arguments.no_ceiling or arguments.sweep),
                **common,
            )


def _check_path(path: Path | None, several: bool) -> None:
    """Refuse a path for the results before minutes are spent on them."""
    if path is None:
        return
    folder = path if several else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`{folder}` cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK) or (path.is_dir() and not several):
        raise InputError(f"`{path}` cannot be written")


def _long_name(record: Record, axes: Mapping[str, Sequence[int]]) -> str:
    """Return a name that tells a record's file from those of the same grid."""
    parts = [record["kind"].replace("growth", f"growth-{record.get('axis')}"), record["model"]]
    if record["kind"] == "growth":
        parts.append(record["way"])
    else:
        for field in reversed(AXES.values()):
            if field in ("sequences", "tokens") or len(axes.get(field, ())) > 1:
                parts.append(f"{record['work'][field]}-{field}")
    return re.sub(r"[:, ]+", "-", "-".join(parts)) + ".json"


def main() -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args()
    path: Path | None = arguments.json
    try:
        axes = _axes(arguments)
        axis = _scaling_axis(axes)
        systems = arguments.systems or (
            [OURS] if axis else [OURS, OURS_BF16] if arguments.sweep else select_systems(None)
        )
        places = len(systems) if axis else prod(map(len, axes.values()))
        several = arguments.small or arguments.sweep or places * len(arguments.model) > 1
        if arguments.small and path is None:
            raise InputError("--small writes several files", "name a folder with --json")
        _check_path(path, several)
        for record in _measure(arguments, axes, systems):
            print("\n".join(lines(record)))
            if path is not None:
                name = file_name(record) if arguments.small else _long_name(record, axes)
                write_json(path / name if several else path, record)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
