"""The commands and their options; what they do is loaded when one is called."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from erank_lite.errors import InputError
from erank_lite.version import __version__

EXIT_CODES = (
    "Exit codes: 0 done; 1 the input, an option or the model cannot be used; 2 the command line is "
    "wrong; 3 not one document could be scored; 130 interrupted (rerank prints what was finished); "
    "141 the reader of the output went away."
)

app = typer.Typer(
    help="Rerank documents with ERank reasoning rerankers on the machine at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


# typer carries its own copy of click or imports it, by version: its base of usage errors is found
# through one that it exports.
UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def silence_output() -> None:
    """Keep Python from writing to an output that failed once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def output() -> Iterator[None]:
    """End with 141 where the reader went away: typer itself would make it 1."""
    if sys.stdout is None:
        raise InputError("standard output is closed: there is nowhere to print to")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence_output()
        raise typer.Exit(141) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"erank-lite {__version__}")
        raise typer.Exit


def _shares(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        reason = f"{text!r} is not a list of numbers"
        raise typer.BadParameter(reason, param_hint="--tensor-split") from None


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# typer reads these annotations at run time, and Python 3.10's `X | None` works for it only in part.
@app.command(epilog=EXIT_CODES)
def rerank(
    docs: Annotated[
        list[str],
        typer.Argument(
            help="Documents: .jsonl or .json (content or text, and optionally id and "
            "first_stage_score), .csv or .tsv with such columns, a folder of text files, any other "
            "file (one document a line), or - for standard input (JSONL or lines).",
            show_default=False,
        ),
    ],
    query: Annotated[str, typer.Option(help="What to look for.", show_default=False)],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="GGUF file, folder of a BF16 or GPTQ checkpoint, name on the Hugging Face hub "
            "such as Alibaba-NLP/ERank-4B, with :TYPE and @REVISION if wanted (downloaded and "
            "converted once, then kept), or address of a server, http://…",
            show_default="erank-tiny, the small one that comes along",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="auto (what suits the model and machine), llama.cpp, gptq, transformers or remote."
        ),
    ] = "auto",
    instruction: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What relevance means: free text, or a benchmark's name such as beir, trec-dl, "
            "followir, bright/aops.",
            show_default="beir",
        ),
    ] = None,
    top_k: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Print only the best K.", show_default="all"),
    ] = None,
    alpha: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.0,
            max=1.0,
            help="Rank by the hybrid with first_stage_score, which weighs ALPHA.",
            show_default=False,
        ),
    ] = None,
    thinking: Annotated[
        str, typer.Option(help="full, none, or the most tokens of reasoning before the answer.")
    ] = "full",
    truncate_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1, help="Cut the query and each document to so many tokens.", show_default="no cut"
        ),
    ] = None,
    show_reasoning: Annotated[
        bool, typer.Option("--show-reasoning", help="Print what the model thought.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="One document at a time: a score never depends on the others. Slower."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object a line, best first (the default when piped)."
        ),
    ] = False,
    sequences: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Documents read together.", show_default="by memory"),
    ] = None,
    context_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=256, help="Most tokens of a prompt with its answer.", show_default="the model's"
        ),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processor threads.", show_default="physical cores"),
    ] = None,
    gpu_layers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=-1, help="Layers on the GPU, -1 for all.", show_default="as many as fit"),
    ] = None,
    tensor_split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Share of each GPU, such as 3,1.", show_default="by their memory"),
    ] = None,
    flash_attention: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--flash-attention/--no-flash-attention",
            help="Less memory for long documents; less exact on a processor.",
            show_default="on a GPU",
        ),
    ] = None,
    kv_type: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Type of llama.cpp's keys and values, such as f16 or q8_0.", show_default="f16"
        ),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Of gptq and transformers: cpu, cuda, cuda:1, mps.", show_default="the best"
        ),
    ] = None,
    dtype: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of transformers: bfloat16 or float32.", show_default="bfloat16"),
    ] = None,
    tokenizer: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="tokenizer.json to use instead of the model's; for a server, the checkpoint's "
            "folder or the GGUF file that it serves.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Rank documents for a query, best first."""
    from erank_lite.cli.rerank import Display, run

    # An option that was not given is the engine's to choose; not every engine has all of them.
    given = {
        "strict": strict or None,
        "sequences": sequences,
        "context_length": context_length,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "tensor_split": _shares(tensor_split),
        "flash_attention": flash_attention,
        "kv_type": kv_type,
        "device": device,
        "dtype": dtype,
        "tokenizer": tokenizer,
    }
    with output():
        run(
            docs,
            model,
            query,
            instruction,
            truncate_length,
            Display(top_k, alpha, show_reasoning, as_json),
            engine=engine,
            thinking=thinking,
            **{name: value for name, value in given.items() if value is not None},
        )


@app.command(epilog=EXIT_CODES)
def demo() -> None:
    """Rerank documents that come along, by the small model that does; nothing is downloaded."""
    from erank_lite.cli.demo import run

    with output():
        run()


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Load each package too, in a process of its own.")
    ] = False,
) -> None:
    """Say what this machine has, which ERank models run on it and how, and what to mend."""
    from erank_lite.cli.doctor import run

    with output():
        run(as_json, deep)


@app.command()
def plan(
    model: Annotated[
        str,
        typer.Argument(help="As --model of rerank; no weights are downloaded.", show_default=False),
    ],
    engine: Annotated[str, typer.Option(help="As --engine of rerank.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which engine would run a model here, as what, with how much memory, and why."""
    from erank_lite.cli.plan import run

    with output():
        run(model, engine, as_json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A GGUF file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a GGUF file holds, and whether it looks like an ERank model."""
    from erank_lite.cli.inspect import run

    with output():
        run(file, as_json)


convert = typer.Typer(help="Make a file that runs here out of a checkpoint.", no_args_is_help=True)
app.add_typer(convert, name="convert")


@convert.command(epilog=EXIT_CODES)
def gguf(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Checkpoint folder, or a name on the Hugging Face hub.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .gguf file to make.", show_default=False)
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help="F32, F16, BF16, Q8_0, or one of llama.cpp's smaller types such as Q6_K, Q5_K_M, "
            "Q4_K_M, IQ4_XS, Q3_K_M, Q2_K; IQ3_XS, Q2_K_S, IQ2_M and smaller need --imatrix.",
        ),
    ] = "Q4_K_M",
    imatrix: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="auto|FILE",
            help="Quantize by how much each weight matters: auto measures it while the model reads "
            "ERank's prompts with its own reasoning (both kept for the next type); FILE is "
            "what this or llama-imatrix wrote.",
            show_default="all weights alike",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=1024, help="Processor threads.", show_default="physical cores"),
    ] = None,
) -> None:
    """Convert a checkpoint to a GGUF file for llama.cpp."""
    from erank_lite.cli.convert import run

    with output():
        run(source, out, kind, imatrix, force, threads)


@convert.command(epilog=EXIT_CODES)
def gptq(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Checkpoint folder, or a name on the Hugging Face hub.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to make.", show_default=False)
    ],
    bits: Annotated[int, typer.Option(help="Bits of a weight: 4 or 8.")] = 4,
    group_size: Annotated[
        int, typer.Option(help="Columns that share a scale: 32, 64, 128, or -1 for a whole row.")
    ] = 128,
    desc_act: Annotated[
        bool,
        typer.Option(
            "--desc-act",
            help="Quantize columns by falling activation: a little more exact, slower to run.",
        ),
    ] = False,
    calibration: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="JSONL file of instruction, query and document, on which the model's own "
            "reasoning is the calibration text.",
            show_default="a set that comes along",
        ),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="cpu or cuda.", show_default="cuda where torch has it"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it is a GPTQ checkpoint.")
    ] = False,
) -> None:
    """Quantize a checkpoint to a GPTQ checkpoint, for GPUs and for vLLM (needs the gptq extra)."""
    from erank_lite.cli.convert import run_gptq

    with output():
        run_gptq(
            source,
            out,
            force,
            bits=bits,
            group_size=group_size,
            desc_act=desc_act,
            calibration=calibration,
            device=device,
        )


cache = typer.Typer(help="What is kept of downloads and conversions.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@cache.command("list")
def cache_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List what is kept."""
    from erank_lite.cli.cache import show

    with output():
        show(as_json)


@cache.command("clear")
def cache_clear(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="One model, as the list names it.", show_default="all"),
    ] = None,
) -> None:
    """Remove what is kept; it is brought again when it is needed."""
    from erank_lite.cli.cache import remove

    with output():
        remove(name)
