"""A checkpoint as a GGUF file, without torch and with little memory.

What is smaller than Q8_0 is made in two steps: the checkpoint is written as it is, and llama.cpp
quantizes that. The file gets its name when it is whole and checked.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from gguf import GGMLQuantizationType

from erank_lite.convert.calibration import OpenEngine
from erank_lite.convert.estimate import Estimate, estimate
from erank_lite.convert.gguf.quantize import planned_size, quantize
from erank_lite.convert.gguf.verify import check_tokenizer, check_whole
from erank_lite.convert.gguf.vocabulary import Vocabulary
from erank_lite.convert.gguf.write import ALIGNMENT, CheckpointWriter
from erank_lite.convert.imatrix.source import ImatrixSource, MatrixSource
from erank_lite.convert.output import announce, check_parent, claimed, explained
from erank_lite.errors import InputError
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.architecture import open_unquantized
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.lora import LoraAdapter
from erank_lite.models.ref import DIRECT, check_type
from erank_lite.util.files import atomic
from erank_lite.util.reporter import SILENT, Reporter


def convert_gguf(
    source: Path,
    out: Path,
    quant_type: str,
    *,
    force: bool = False,
    threads: int | None = None,
    imatrix: MatrixSource | None = None,
    open_engine: OpenEngine | None = None,
    adapter: Path | None = None,
    reporter: Reporter = SILENT,
) -> Estimate:
    """Convert the checkpoint in the folder `source` to the GGUF file `out`.

    Args:
        source: a folder as Transformers 4 or 5 writes it, with safetensors.
        out: the file to make.
        quant_type: one of `erank_lite.models.ref.TYPES`.
        force: replace a file that is there.
        threads: None means the physical cores that this process may use.
        imatrix: an importance matrix to quantize with: a file that this package or llama-imatrix
            wrote; "auto", to collect one over ERank's prompts with the model's own reasoning
            (`SelfGeneratedCalibration`), which is kept in the user's cache; or token ids to
            collect one over. None quantizes without one, which `NEED_IMATRIX` forbid.
        open_engine: runs the model for "auto"; see `erank_lite.load.engine_for_calibration`.
        adapter: folder of a LoRA adapter as PEFT saves it, which is merged into the weights: in 32
            bits, and rounded once to the checkpoint's own type.
        reporter: gets a message of what the conversion takes, without calibration, before it
            starts, one of how long calibration takes, and the progress of each stage.

    Returns:
        What the conversion was expected to take.

    Raises:
        InputError: an option, or the path of the output, cannot be used.
        ModelError: the checkpoint cannot be converted, the matrix is of another model, the disk is
            full, or the result does not pass its check.

    Example:
        >>> import tempfile
        >>> from erank_lite.models.checkpoint import BUNDLED_FOLDER
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder) / "erank-tiny-Q8_0.gguf"
        ...     estimate = convert_gguf(BUNDLED_FOLDER, out, "Q8_0")
        ...     estimate.size == out.stat().st_size, estimate.size // 10**6  # MB
        (True, 52)
    """
    quant_type = check_type(quant_type)
    if imatrix is not None and quant_type in DIRECT:
        raise InputError(
            f"an importance matrix has no effect on {quant_type}, which keeps every number near "
            "its own",
            "leave it out, or choose a smaller type such as Q4_K_M",
        )
    if out.is_symlink():
        out = out.resolve()  # the file that it names is made, and the link stays
    _check_path(out, force)
    if adapter is not None and imatrix == "auto":
        raise InputError(
            "an importance matrix is collected from the checkpoint without the adapter",
            "convert to BF16 with the adapter first, or give a matrix file",
        )
    merged = None if adapter is None else LoraAdapter.open(adapter)
    conversion = _Conversion(
        source, quant_type, threads or usable_cores(), imatrix, open_engine, merged, reporter
    )
    unquantized = out.with_name(f"{out.name}.unquantized.partial")
    with claimed(out, unquantized), atomic(out) as result:
        return conversion.run(result, unquantized)


class _Conversion:
    """One checkpoint on its way to one file."""

    def __init__(
        self,
        source: Path,
        quant_type: str,
        threads: int,
        imatrix: MatrixSource | None,
        open_engine: OpenEngine | None,
        adapter: LoraAdapter | None,
        reporter: Reporter,
    ) -> None:
        self.quant_type, self.threads, self.reporter = quant_type, threads, reporter
        self.quantizes = quant_type not in DIRECT
        self.checkpoint, self.architecture = open_unquantized(source)
        if adapter is not None:
            adapter.check(self.architecture)
        stored, specs = self.checkpoint.tensors, self.architecture.tensors
        vocabulary = Vocabulary(self.checkpoint, specs[0].shape[0])
        self.imatrix = None
        if imatrix is not None:
            self.imatrix = ImatrixSource(imatrix, self.checkpoint, self.architecture, open_engine)
        dtypes = {stored[spec.source].dtype for spec in specs if len(spec.shape) > 1}
        lossless = dtypes.pop() if len(dtypes) == 1 else "F32"
        written = GGMLQuantizationType[lossless if self.quantizes else quant_type]
        self.writer = CheckpointWriter(
            self.checkpoint, self.architecture, vocabulary, written, quant_type, adapter
        )

    def run(self, result: Path, unquantized: Path) -> Estimate:
        """Make the file `result`, by way of the file `unquantized` if it is quantized."""
        first, other = (unquantized, result) if self.quantizes else (result, unquantized)
        start = self.writer.write_header(first)
        check_tokenizer(first, self.writer.vocabulary.tokenizer)
        needs = self._estimate(first, start, other)
        announce(needs, result, "file", self.reporter)
        if self.imatrix is not None:
            self.imatrix.prepare(self.reporter)
        self.writer.write_tensors(first, start, self.threads, self.reporter)
        if self.quantizes:
            self._quantize(first, result)
            first.unlink()
        self.reporter.progress("checking", 0, 1)
        names = [spec.name for spec in self.architecture.tensors]
        # The bundled model was trained for answers alone, so it does not predict other text.
        check_whole(result, names, check_perplexity=not self.checkpoint.is_bundled)
        self.reporter.progress("checking", 1, 1)
        return needs

    def _estimate(self, first: Path, start: int, trial: Path) -> Estimate:
        specs, stored = self.architecture.tensors, self.checkpoint.tensors
        quantized_to = None
        if self.quantizes:
            planned = planned_size(first, self.quant_type, self.imatrix is not None)
            quantized_to = _main_type(self.quant_type), start + planned + ALIGNMENT * len(specs)
        return estimate(
            max((stored[spec.source] for spec in specs), key=lambda tensor: tensor.size),
            sum(math.prod(spec.shape) for spec in specs),
            (self.writer.matrix_type, first.stat().st_size),
            quantized_to,
            trial,
            self.threads,
        )

    def _quantize(self, first: Path, result: Path) -> None:
        with contextlib.ExitStack() as stack:
            matrix = None
            if self.imatrix is not None:
                matrix = stack.enter_context(self.imatrix.file(first, self.threads, self.reporter))
            stack.enter_context(explained(result))
            sizes = {t.name: t.size for t in GGUFFile.read(first).tensors}
            total = sum(sizes.values())
            done = current = 0
            self.reporter.progress("quantizing", 0, total)
            names = quantize(first, result, self.quant_type, self.threads, matrix)
            for name in stack.enter_context(contextlib.closing(names)):
                done, current = done + current, sizes[name]
                self.reporter.progress("quantizing", done, total)
            self.reporter.progress("quantizing", total, total)


def _main_type(quant_type: str) -> GGMLQuantizationType:
    """Return the type of most tensors in a file of this type, near enough to time it."""
    name = quant_type.removesuffix("_M").removesuffix("_L").removesuffix("_S")
    # Without a matrix llama.cpp's kernels of the smallest types end the process.
    if not name.startswith(("IQ1", "IQ2")):
        for candidate in (quant_type, name, f"{name}_S"):
            if candidate in GGMLQuantizationType.__members__:
                return GGMLQuantizationType[candidate]
    return GGMLQuantizationType.IQ3_S  # IQ3_XS is made of IQ3_S and IQ3_XXS


def _check_path(out: Path, force: bool) -> None:
    if out.suffix != ".gguf":
        raise InputError(f"the output must be a .gguf file, not `{out}`")
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise InputError(f"`{out}` is not a file", "give the name of the file to make")
    check_parent(out, force)
