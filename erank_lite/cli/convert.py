"""`erank-lite convert`: a checkpoint in another format, with what it takes and how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erank_lite.cli.output import EXIT_CODES, interrupt_when_ended, say
from erank_lite.util.units import file_size

if TYPE_CHECKING:
    from erank_lite.util.reporter import Reporter

app = typer.Typer(no_args_is_help=True, add_completion=False)
_Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="Checkpoint folder, or a name on the Hugging Face Hub.",
        show_default=False,
    ),
]


@app.command(epilog=EXIT_CODES, help="Convert a checkpoint to a GGUF file for llama.cpp.")
def gguf(
    source: _Source,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .gguf file to make.", show_default=False)
    ],
    quant_type: Annotated[
        str,
        typer.Option(
            "--type",
            help="F32, F16, BF16, Q8_0, or one of llama.cpp's smaller types such as Q6_K, Q5_K_M, "
            "Q4_K_M, IQ4_XS, Q3_K_M, Q2_K; IQ3_XS, Q2_K_S, IQ2_M and smaller need --imatrix.",
        ),
    ] = "Q4_K_M",
    imatrix: Annotated[
        str | None,
        typer.Option(
            metavar="auto|FILE",
            help="Quantize by an importance matrix, how much each weight matters: auto measures it "
            "while the model reads ERank's prompts with its own reasoning (both are kept for the "
            "next type); FILE is what this or llama-imatrix wrote.",
            show_default="all weights alike",
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="LoRA adapter, as PEFT saves it, to merge into the weights.",
            show_default="none",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, metavar="N", help="CPU threads.", show_default="physical cores"
        ),
    ] = None,
) -> None:
    """Write the GGUF file `out`.

    Raises:
        ErankLiteError: it cannot be done.
    """
    from erank_lite.convert.gguf.convert import convert_gguf
    from erank_lite.load import engine_for_calibration
    from erank_lite.models.ref import check_type

    check_type(quant_type)
    with _conversion(source) as (folder, reporter):
        convert_gguf(
            folder, out, quant_type, force=force, threads=threads, imatrix=imatrix,
            open_engine=engine_for_calibration, adapter=adapter, reporter=reporter,
        )  # fmt: skip
    say(f"{out}  {file_size(out.stat().st_size)}")


@app.command(epilog=EXIT_CODES, help="Convert a LoRA adapter to a GGUF file for llama.cpp.")
def adapter(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="The adapter's folder, as PEFT saves it.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .gguf file to make.", show_default=False)
    ],
    base: Annotated[
        str,
        typer.Option(
            metavar="SRC",
            help="Checkpoint that the adapter changes: a folder, or a name on the Hub.",
            show_default=False,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Write the GGUF file `out`, which -o adapter=OUT adds to its base as that runs.

    Raises:
        ErankLiteError: it cannot be done.
    """
    from erank_lite.convert.gguf.adapter import convert_adapter

    with _conversion(base) as (folder, _):
        convert_adapter(source, folder, out, force=force)
    say(f"{out}  {file_size(out.stat().st_size)}")


@app.command(
    epilog=EXIT_CODES,
    help="Quantize a checkpoint to a GPTQ checkpoint, for GPUs and vLLM (needs the gptq extra).",
)
def gptq(
    source: _Source,
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
        Path | None,
        typer.Option(
            help="JSONL file of instruction, query and document, on which the model's own "
            "reasoning is the calibration text.",
            show_default="a bundled set",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda where torch has it")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT if it is a GPTQ checkpoint.")
    ] = False,
) -> None:
    """Write the GPTQ checkpoint `out`, a folder.

    Raises:
        ErankLiteError: it cannot be done.
    """
    from erank_lite.convert.gptq.convert import convert_gptq
    from erank_lite.load import engine_for_calibration

    with _conversion(source) as (folder, reporter):
        convert_gptq(
            folder, out, force=force, bits=bits, group_size=group_size, desc_act=desc_act,
            calibration=calibration, device=device, open_engine=engine_for_calibration,
            reporter=reporter,
        )  # fmt: skip
    say(f"{out}  {file_size(sum(file.stat().st_size for file in out.iterdir()))}")


@contextlib.contextmanager
def _conversion(source: str) -> Iterator[tuple[Path, Reporter]]:
    """Yield the folder of the checkpoint `source`, and what shows the progress."""
    from erank_lite.cli.progress import TerminalReporter
    from erank_lite.models.prepare import checkpoint_folder
    from erank_lite.models.ref import ModelRef

    # Ended from outside, it tidies up as when it is interrupted.
    interrupt_when_ended()
    try:
        with TerminalReporter() as reporter:
            yield checkpoint_folder(ModelRef.parse(source), reporter), reporter
    except KeyboardInterrupt:
        say("interrupted: no file was made; calibration text that the model wrote is kept")
        raise
