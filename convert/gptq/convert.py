"""A checkpoint as a GPTQ checkpoint (format v1), layer by layer, so that it need not fit in memory.

The folder is made beside its path and loaded again; only then it gets its name, so that whatever
has the name is whole.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.convert.calibration import (
    DEFAULT,
    OpenEngine,
    Samples,
    SelfGeneratedCalibration,
    digest,
    read_examples,
)
from erank_lite.convert.estimate import Estimate
from erank_lite.convert.gptq import files
from erank_lite.convert.gptq.quantize import quantize, trial
from erank_lite.convert.gptq.size import BITS, GROUP_SIZES, Layout
from erank_lite.convert.gptq.verify import check_whole
from erank_lite.convert.output import announce, check_parent, claimed, explained
from erank_lite.errors import InputError, ModelError, missing_extra
from erank_lite.models.architecture import open_unquantized
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.util.reporter import SILENT, Reporter

_log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")
ENOUGH = 256
"""Samples, below which GPTQModel calls the calibration thin."""

_ANSWER = 410  # tokens that ERank-4B generates after a prompt, in the mean


def convert_gptq(
    source: Path,
    out: Path,
    *,
    bits: int = 4,
    group_size: int = 128,
    desc_act: bool = False,
    calibration: Path | None = None,
    samples: Samples | None = None,
    open_engine: OpenEngine | None = None,
    device: str | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> Estimate:
    """Quantize the checkpoint in the folder `source` to the folder `out`.

    Args:
        source: a folder as Transformers 4 or 5 writes it, with safetensors.
        out: the folder to make.
        bits: of a weight, 4 or 8.
        group_size: columns that share a scale, one of `GROUP_SIZES`.
        desc_act: quantize columns in the order of their activations: a little more exact, slower
            to run.
        calibration: a JSONL file with examples of instruction, query and document, after which the
            model generates its own calibration text; None means the set in this package.
        samples: token ids to calibrate on instead, as they are.
        open_engine: runs the model where there are no samples; see
            `erank_lite.load.engine_for_calibration`.
        device: "cpu" or "cuda"; None means CUDA where torch has it.
        force: replace a GPTQ checkpoint that is there.
        reporter: gets a message of what the quantization takes, before it starts, one of how long
            calibration takes, and the progress of each stage.

    Returns:
        What the quantization was expected to take.

    Raises:
        InputError: an option, the path of the output, or the calibration file cannot be used.
        ModelError: the checkpoint cannot be converted, an extra is missing, the disk is full, or
            the result does not pass its check.
    """
    settings = {"bits": bits, "group_size": group_size, "desc_act": desc_act, "sym": True}
    _check_options(bits, group_size, device)
    _check_path(source, out, force)
    examples = None if samples is not None else read_examples(calibration or DEFAULT)
    checkpoint, architecture = open_unquantized(source)
    layout = Layout.from_architecture(architecture, bits, group_size)
    _check_extra()
    text = None if examples is None else SelfGeneratedCalibration(checkpoint, examples, open_engine)
    device, rate = trial(device)
    dtypes = {t.dtype for t in checkpoint.tensors.values()}
    dtype = "float16" if dtypes == {"F16"} else "bfloat16"
    conversion = _Conversion(checkpoint, layout, settings, device, dtype, reporter)
    needs = conversion.estimate(text, samples, rate)
    announce(needs, out, "result", reporter)
    work = out.with_name(f"{out.name}.partial")
    with claimed(out, work):
        work.mkdir()
        notes: dict[str, Any] = {}
        if text is not None and examples is not None:
            samples = text.samples(reporter)
            notes = {"sha256": digest(examples), "text": "own"}
        conversion.run(work, samples or [], notes)
        if out.exists():
            out.rename(work / "replaced")
        (work / "model").rename(out)
    return needs


@dataclass(frozen=True)
class _Conversion:
    """One checkpoint on its way to one folder."""

    checkpoint: Checkpoint
    layout: Layout
    settings: dict[str, Any]
    device: str
    dtype: str
    reporter: Reporter

    def estimate(
        self, text: SelfGeneratedCalibration | None, samples: Samples | None, rate: float
    ) -> Estimate:
        """Return what quantizing with a text still to be generated, or with samples, takes."""
        if text is not None:
            answers = min(_ANSWER, self.checkpoint.max_new_tokens or _ANSWER)
            lengths = [len(prompt.ids) + answers for prompt in text.prompts]
        else:
            lengths = [len(sample) for sample in samples or []]
        if not lengths or min(lengths) < 1:
            raise InputError("the samples are empty: calibration needs token ids")
        return self.layout.estimate(sum(lengths), max(lengths), rate)

    def run(self, work: Path, samples: Samples, notes: dict[str, Any]) -> None:
        """Quantize into `work/model`, and check it."""
        if len(samples) < ENOUGH:
            _log.warning(
                "%d calibration samples are few: from %d on, results are steady",
                len(samples),
                ENOUGH,
            )
        ids = work / "samples.json"
        ids.write_text(json.dumps([list(sample) for sample in samples]), "ascii")
        out, size = work / "model", self.layout.size
        self.reporter.progress("quantizing", 0, size)
        steps = quantize(
            self.checkpoint.path, out, work / "layers", self.settings, ids, self.dtype, self.device
        )
        with explained(out), contextlib.closing(steps):
            for count, _ in enumerate(steps, 1):
                self.reporter.progress("quantizing", size * count // self.layout.layers, size)
        shutil.rmtree(work / "layers")
        written = files.data_size(out)
        if written != size:
            raise ModelError(
                f"GPTQModel wrote {written} bytes of tensors, not {size}: this version of it "
                "cannot be used"
            )
        notes |= {
            "samples": len(samples),
            "tokens": sum(len(sample) for sample in samples),
            "ids_sha256": digest(samples),
        }
        files.finish(out, self.checkpoint, self.settings, self.dtype, notes)
        self.reporter.progress("checking", 0, 1)
        check_whole(out, max(samples, key=len), self.device)
        for file in out.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        self.reporter.progress("checking", 1, 1)


def _check_options(bits: int, group_size: int, device: str | None) -> None:
    if bits not in BITS:
        raise InputError(f"bits must be {' or '.join(map(str, BITS))}, not {bits}")
    if group_size not in GROUP_SIZES:
        known = ", ".join(map(str, GROUP_SIZES))
        raise InputError(f"the group size must be one of {known} (a whole row), not {group_size}")
    if device is not None and device not in DEVICES:
        raise InputError(f"the device must be {' or '.join(DEVICES)}, not {device!r}")


def _check_path(source: Path, out: Path, force: bool) -> None:
    if out.is_symlink() and not out.exists():
        raise InputError(f"`{out}` is a link to nothing", "give the name of the folder to make")
    if out.exists() and not out.is_dir():
        raise InputError(f"`{out}` is a file", "give the name of the folder to make")
    # Whatever else is there is not this program's to remove.
    replaceable = not out.exists() or not any(out.iterdir()) or _is_gptq(out)
    if not replaceable or out.resolve() == source.resolve():
        raise InputError(
            f"`{out}` is not a GPTQ checkpoint, so it is not replaced", "give another name"
        )
    check_parent(out, force)


def _is_gptq(folder: Path) -> bool:
    try:
        return Checkpoint.open(folder).quantization.get("quant_method") == "gptq"
    except ModelError:
        return False


def _check_extra() -> None:
    missing = [name for name in ("torch", "gptqmodel") if importlib.util.find_spec(name) is None]
    if missing:
        raise missing_extra("quantizing to GPTQ", " and ".join(missing), "gptq")
