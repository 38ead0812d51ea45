"""Measure speed from the command line.

    python -m erank_lite.benchmarks.speed MODEL --json speed.json
    python -m erank_lite.benchmarks.speed MODEL --ways erank-lite llama-server --tokens 300
    python -m erank_lite.benchmarks.speed MODEL --growth document-tokens 100 400 1600
    python -m erank_lite.benchmarks.speed erank-tiny:Q8_0 erank-tiny:BF16 --sweep --tokens 16 64
    python -m erank_lite.benchmarks.speed MODEL --small --json FOLDER

--json is a file, or a folder where there are several results (--sweep, --small). LLAMA_SERVER and
LLAMA_BATCHED_BENCH name the programs where the options do not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erank_lite.benchmarks.record import command_line, write_json
from erank_lite.benchmarks.speed import (
    AXES,
    WAYS,
    Peers,
    Settings,
    Work,
    measure_growth,
    measure_speed,
    small,
    sweep,
)
from erank_lite.benchmarks.speed.job import TIMEOUT
from erank_lite.benchmarks.speed.sweep import ENGINES
from erank_lite.errors import ErankLiteError, InputError


def _parser() -> argparse.ArgumentParser:
    usual = Work()
    parser = argparse.ArgumentParser(
        prog="python -m erank_lite.benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="+", help="GGUF file, erank-tiny:TYPE, folder, hub's name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--growth", nargs="+", metavar=("AXIS", "VALUE"), help=", ".join(AXES))
    what.add_argument("--sweep", action="store_true", help="sequences × tokens × models × engines")
    what.add_argument("--small", action="store_true", help="minutes, on a small model")
    parser.add_argument("--documents", type=int, default=usual.documents)
    parser.add_argument("--shared", type=int, default=usual.shared, help="tokens, read once")
    parser.add_argument("--own", type=int, default=usual.own, help="tokens of each document")
    parser.add_argument("--tokens", type=int, nargs="+", help="written for each document")
    parser.add_argument("--sequences", type=int, nargs="+", help="documents under way at once")
    parser.add_argument("--ways", nargs="+", metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), help="of --sweep")
    parser.add_argument("--flash-attention", action="store_true", help="erank-lite with it, too")
    parser.add_argument("--no-ceiling", action="store_true", help="do not measure the machine")
    parser.add_argument("--checkpoint", help="folder, for the ways that run it in BF16")
    parser.add_argument("--server", type=Path, help="llama-server")
    parser.add_argument("--batched-bench", type=Path, help="llama-batched-bench")
    parser.add_argument("--repeat", type=int, help="the fastest counts (2; 1 with --small)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for one run")
    parser.add_argument("--json", type=Path)
    return parser


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    settings = Settings(
        repeat=options.repeat if options.repeat is not None else 1 if options.small else 2,
        threads=options.threads,
        timeout=options.timeout,
        say=lambda line: print(line, file=sys.stderr, flush=True),
        command=command_line(["python", "-m", "erank_lite.benchmarks.speed", *sys.argv[1:]]),
    )
    peers = Peers(options.server, options.batched_bench, options.checkpoint)
    usual = Work(documents=options.documents, shared=options.shared, own=options.own)
    if options.sweep:
        return sweep(
            options.model,
            engines=options.engines,
            sequences=options.sequences or (1, 4, 16),
            tokens=options.tokens or (16, 64),
            work=usual,
            peers=peers,
            settings=settings,
        )
    model = _one(options.model, "model", "")
    if options.small:
        return small(model, options.json, peers, settings)
    work = Work(
        usual.documents,
        usual.shared,
        usual.own,
        _one(options.tokens, "--tokens", usual.tokens),
        _one(options.sequences, "--sequences", usual.sequences),
    )
    if options.growth:
        axis, *values = options.growth
        try:
            points = [int(value) for value in values]
        except ValueError:
            raise InputError("--growth wants an axis and whole numbers") from None
        way = _one(options.ways, "--ways", "erank-lite")
        axis = axis.replace("-", " ")
        return [measure_growth(model, axis, points, work, way=way, peers=peers, settings=settings)]
    return [
        measure_speed(
            model,
            work,
            ways=options.ways,
            peers=peers,
            flash_attention=options.flash_attention,
            ceiling=not options.no_ceiling,
            settings=settings,
        )
    ]


def _one(values: Sequence[Any] | None, name: str, usual: Any) -> Any:
    if values is not None and len(values) != 1:
        raise InputError(f"{name}: one value, not {len(values)}; several are for --sweep")
    return usual if values is None else values[0]


def _tell(record: Mapping[str, Any]) -> None:
    work = ", ".join(f"{value} {name}" for name, value in record["work"].items())
    print(f"\n{record['model']}: {work}; {record['machine']['processor']}")
    if record["kind"] == "growth":
        for point in record["points"]:
            memory = _number(point["peak_memory"], 1 << 20)
            rate = _number(point["documents_per_second"])
            print(f"{point['x']:>8} {record['axis']}{rate:>10} documents/s{memory:>10} MiB")
        return
    heads = ("documents/s", "tokens/s", "first s", "last s", "MiB")
    print(f"{'':30}" + "".join(f"{head:>12}" for head in heads))
    for way in record["ways"]:
        keys = ("documents_per_second", "tokens_per_second", "first_result", "last_result")
        cells = [*(_number(way[key]) for key in keys), _number(way["peak_memory"], 1 << 20)]
        print(f"{way['name']:30}" + "".join(f"{cell:>12}" for cell in cells))
    for key in ("ceiling", "practical_ceiling"):
        if record[key] is not None:
            rate = _number(record[key]["documents_per_second"])
            print(f"{key.replace('_', ' '):30}{rate:>12}  {record[key]['what']}")
    for note in record["notes"]:
        print(f"- {note}")
    for name, reason in record["skipped"].items():
        print(f"- {name} is skipped: {reason}")


def _number(value: float | None, unit: float = 1) -> str:
    if value is None:
        return "-"
    value /= unit
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def _check_place(options: argparse.Namespace) -> None:
    """Refuse a place for the results before minutes are spent on them."""
    place: Path | None = options.json
    if place is None:
        if options.small:
            raise InputError("--small writes several files: name a folder with --json")
        return
    folder = place if options.small or options.sweep else place.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder} cannot be written")


def _save(place: Path, records: Sequence[dict[str, Any]], several: bool) -> None:
    """Write one record as a file; those of a sweep into a folder, named after their places."""
    if not several:
        write_json(place, records[0])
        return
    for record in records:
        work = record["work"]
        model = record["model"].replace(":", "-")
        name = f"speed-{model}-{work['sequences']}-sequences-{work['tokens']}-tokens.json"
        write_json(place / name, record)


def main() -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args()
    try:
        _check_place(options)
        records = _measure(options)
        for record in records:
            _tell(record)
        if options.json is not None and not options.small:
            _save(options.json, records, options.sweep)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
