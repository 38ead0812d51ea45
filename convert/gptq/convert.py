"""A checkpoint as a GPTQ checkpoint (format v1), layer by layer, so that it need not fit in memory.

The folder is written beside its place, loaded again, and only then given its name, so that whatever
carries the name is whole.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erank_lite.convert.calibration import (
    DEFAULT,
    Samples,
    SelfGeneratedCalibration,
    digest,
    read_examples,
)
from erank_lite.convert.estimate import Estimate, amount
from erank_lite.convert.gptq import files as gptq_folder
from erank_lite.convert.gptq.quantize import quantize, trial
from erank_lite.convert.gptq.size import BITS, GROUP_SIZES, Layout
from erank_lite.convert.gptq.verify import check_whole
from erank_lite.convert.output import ALMOST_NONE, FULL, check_parent, claimed, disk_full
from erank_lite.convert.source import open_source
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.types import Progress

_log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")
ENOUGH = 256
"""Samples, below which GPTQModel calls the calibration thin."""

_ANSWER = 410  # tokens that ERank-4B writes after a prompt, in the mean


def convert_gptq(
    source: Path,
    out: Path,
    *,
    bits: int = 4,
    group_size: int = 128,
    desc_act: bool = False,
    calibration: Path | None = None,
    samples: Samples | None = None,
    engine: Engine | None = None,
    device: str | None = None,
    force: bool = False,
    announce: Callable[[Estimate], None] = lambda needs: None,
    calibrating: Callable[[float], None] = lambda seconds: None,
    progress: Progress = lambda stage, done, total: None,
) -> None:
    """Quantize the checkpoint in the folder `source` to the folder `out`.

    Args:
        source: a folder as Transformers 4 or 5 writes it, with safetensors.
        out: the folder to make.
        bits: of a weight, 4 or 8.
        group_size: columns that share a scale, one of `GROUP_SIZES`.
        desc_act: quantize columns in the order of their activations: a little more exact, slower
            to run.
        calibration: a JSONL file with triples of instruction, query and document; None means the
            set that comes along.
        samples: token ids to calibrate on instead, as they are.
        engine: what writes the model's own calibration text; see `SelfGeneratedCalibration.samples`.
        device: "cpu" or "cuda"; None means CUDA where torch has it.
        force: replace a GPTQ checkpoint that is there.
        announce: called once, with what the quantization takes, before it starts.
        calibrating: called with the seconds that writing the calibration text still takes, once
            that can be told; not where it was written before.
        progress: called as it goes on.

    Raises:
        InputError: an option, the place of the output, or the calibration file cannot be used.
        ModelError: the checkpoint cannot be converted, an extra is missing, the disk is full, or
            the result does not pass its check.
    """
    settings = {"bits": bits, "group_size": group_size, "desc_act": desc_act, "sym": True}
    _check_options(bits, group_size, device)
    _check_place(source, out, force)
    triples = None if samples is not None else read_examples(calibration or DEFAULT)
    checkpoint, architecture = open_source(source)
    layout = Layout.of(architecture, checkpoint.config["num_hidden_layers"], bits, group_size)
    _check_extra()
    text = None if triples is None else SelfGeneratedCalibration(checkpoint, triples)
    device, rate = trial(device)
    stored = {t.dtype for t in checkpoint.tensors.values()}
    conversion = _Conversion(
        checkpoint, layout, settings, device, "float16" if stored == {"F16"} else "bfloat16"
    )
    conversion.check_needs(out, text, samples, rate, announce)
    try:
        with _claimed(out) as work:
            noted = {}
            if text is not None and triples is not None:
                samples = text.samples(engine, calibrating=calibrating, progress=progress)
                noted = {"sha256": digest(triples), "text": "own"}
            conversion.run(work, samples or [], noted, progress)
            _put(work / "model", out, work / "replaced")
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(out) from None
        where = error.filename or out
        raise ModelError(f"{where} cannot be read or written: {error.strerror}") from None


@dataclass(frozen=True)
class _Conversion:
    """One checkpoint on its way to one folder."""

    source: CheckpointFolder
    layout: Layout
    settings: dict[str, Any]
    device: str
    dtype: str

    def check_needs(
        self,
        out: Path,
        text: SelfGeneratedCalibration | None,
        samples: Samples | None,
        rate: float,
        announce: Callable[[Estimate], None],
    ) -> None:
        """Announce what the quantization takes, if the disk has room for it."""
        if text is not None:
            answers = min(_ANSWER, self.source.max_new_tokens or _ANSWER)
            lengths = [len(p.ids) + answers for p in text.prompts]
        else:
            lengths = [len(sample) for sample in samples or []]
        if not lengths or min(lengths) < 1:
            raise InputError("the samples are empty: calibration needs token ids")
        needs = self.layout.needs(sum(lengths), max(lengths), rate)
        free = shutil.disk_usage(out.parent).free
        if needs.disk > free:
            raise ModelError(
                f"{out.parent} has {amount(free)} free, but the conversion takes "
                f"{amount(needs.disk)} ({amount(needs.size)} for the result itself): make room, or "
                "choose another disk"
            )
        announce(needs)

    def run(self, work: Path, samples: Samples, noted: dict[str, Any], progress: Progress) -> None:
        """Quantize into `work/model`, and check it."""
        if len(samples) < ENOUGH:
            _log.warning(
                "%d calibration samples are few: from %d on, results are steady",
                len(samples),
                ENOUGH,
            )
        ids = work / "samples.json"
        ids.write_text(json.dumps([list(sample) for sample in samples]), "ascii")
        out, layers = work / "model", self.layout.layers
        progress("quantizing", 0, self.layout.size)
        steps = quantize(
            self.source.path, out, work / "layers", self.settings, ids, self.dtype, self.device
        )
        try:
            with contextlib.closing(steps):
                for count, _ in enumerate(steps, 1):
                    progress("quantizing", self.layout.size * count // layers, self.layout.size)
        except ModelError:
            if shutil.disk_usage(work).free < ALMOST_NONE:
                raise disk_full(work) from None
            raise
        shutil.rmtree(work / "layers")
        written = gptq_folder.data_size(out)
        if written != self.layout.size:
            raise ModelError(
                f"GPTQModel wrote {written} bytes of tensors where {self.layout.size} were to "
                "come: this version of it cannot be used"
            )
        noted |= {
            "samples": len(samples),
            "tokens": sum(len(sample) for sample in samples),
            "ids_sha256": digest(samples),
        }
        gptq_folder.finish(out, self.source, self.settings, self.dtype, noted)
        progress("checking", 0, 1)
        check_whole(out, max(samples, key=len), self.device)
        for file in out.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        progress("checking", 1, 1)


def _check_options(bits: int, group_size: int, device: str | None) -> None:
    if bits not in BITS:
        raise InputError(f"bits must be {' or '.join(map(str, BITS))}, not {bits}")
    if group_size not in GROUP_SIZES:
        known = ", ".join(map(str, GROUP_SIZES))
        raise InputError(f"the group size must be one of {known} (a whole row), not {group_size}")
    if device is not None and device not in DEVICES:
        raise InputError(f"the device must be {' or '.join(DEVICES)}, not {device!r}")


def _check_place(source: Path, out: Path, force: bool) -> None:
    if out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a link to nothing: give the name of the folder to make")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give the name of the folder to make")
    # Whatever else lies there is not this program's to remove.
    replaceable = not out.exists() or not any(out.iterdir()) or _is_gptq(out)
    if not replaceable or out.resolve() == source.resolve():
        raise InputError(
            f"{out} is not a GPTQ checkpoint, so it is not replaced: give another name"
        )
    check_parent(out, force)


def _is_gptq(folder: Path) -> bool:
    try:
        quantization = CheckpointFolder.open(folder).quantization
    except ModelError:
        return False
    return quantization.get("quant_method") == "gptq"


def _check_extra() -> None:
    missing = [name for name in ("torch", "gptqmodel") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"quantizing needs {' and '.join(missing)}: pip install 'erank-lite[gptq]'"
        )


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` to work in; it is removed in the end.

    Raises:
        InputError: another process is making `out`.
    """
    work = out.with_name(f"{out.name}.partial")
    with claimed(out):
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _put(made: Path, out: Path, aside: Path) -> None:
    """Give the folder `made` the name `out`."""
    if out.exists():
        out.rename(aside)
    made.rename(out)
