"""A checkpoint as a GGUF file, without torch and with little memory.

The file is written beside its place, checked, and only then given its name, so that whatever
carries the name is whole.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from erank_lite.convert import provenance
from erank_lite.convert.architectures import Architecture, TensorPlan
from erank_lite.convert.estimate import Estimate, amount, estimate
from erank_lite.convert.gguf.quantize import planned_size, quantize
from erank_lite.convert.gguf.tensors import converted, nbytes
from erank_lite.convert.gguf.verify import check_tokenizer, check_whole
from erank_lite.convert.gguf.vocabulary import Vocabulary
from erank_lite.convert.imatrix.source import ImatrixSource, MatrixSource
from erank_lite.convert.output import ALMOST_NONE, FULL, check_parent, claimed, disk_full
from erank_lite.convert.source import open_source
from erank_lite.errors import InputError, ModelError
from erank_lite.machine.hardware import usable_cores
from erank_lite.models.gguf import GGUFFile
from erank_lite.models.safetensors import Checkpoint
from erank_lite.types import Progress

DIRECT = ("F32", "F16", "BF16", "Q8_0")
# By falling size.
QUANTIZED = (
    "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL",
    "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K",
)  # fmt: skip
# These can be made only with an importance matrix; llama.cpp says so itself.
NEED_MATRIX = (
    "IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
)  # fmt: skip
TYPES = (*DIRECT, *QUANTIZED, *NEED_MATRIX)
_SMALLER = "Q4_K_M"
_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def check_type(kind: str) -> str:
    """Return the name of a GGUF type as llama.cpp spells it.

    Raises:
        InputError: there is none of that name.
    """
    name = kind.upper().replace("-", "_")
    if name not in TYPES:
        close = difflib.get_close_matches(name, (*DIRECT, *QUANTIZED), 3)
        known = f"did you mean {' or '.join(close)}?" if close else f"types are: {', '.join(TYPES)}"
        raise InputError(f"there is no GGUF type {kind!r}; {known}")
    return name


def convert_gguf(
    source: Path,
    out: Path,
    kind: str,
    *,
    force: bool = False,
    threads: int | None = None,
    check_perplexity: bool = True,
    imatrix: MatrixSource | None = None,
    announce: Callable[[Estimate], None] = lambda needs: None,
    calibrating: Callable[[float], None] = lambda seconds: None,
    progress: Progress = lambda stage, done, total: None,
) -> None:
    """Convert the checkpoint in the folder `source` to the GGUF file `out`.

    Args:
        source: a folder as Transformers 4 or 5 writes it, with safetensors.
        out: the file to make.
        kind: one of `TYPES`.
        force: replace a file that is there.
        threads: None means the physical cores that this process may use.
        check_perplexity: the model predicts ordinary text, as all do but those that were trained for
            answers alone; its predictions are then part of the check.
        imatrix: an importance matrix to quantize with: a file that this package or llama-imatrix
            wrote; "auto", to collect one over ERank's prompts with the model's own reasoning
            (`calibration.SelfGeneratedCalibration`), which is kept in the user's cache; or token ids to collect one
            over. None quantizes without one, which `NEED_MATRIX` forbid.
        announce: called once, with what the conversion takes, calibration apart, before it starts.
        calibrating: called with the seconds that writing the model's own text still takes, once
            that can be told; not where it was written before.
        progress: called as it goes on.

    Raises:
        InputError: an option, or the place of the output, cannot be used.
        ModelError: the checkpoint cannot be converted, the matrix is of another model, the disk is
            full, or the result does not pass its check.
    """
    kind = check_type(kind)
    if imatrix is not None and kind in DIRECT:
        raise InputError(
            f"an importance matrix has no effect on {kind}, which keeps every number near its "
            f"own: leave it out, or choose a smaller type such as {_SMALLER}"
        )
    if out.is_symlink():
        out = out.resolve()  # the file that it names is made, and the link stays
    _check_place(out, force)
    checkpoint, architecture = open_source(source)
    vocabulary = Vocabulary(checkpoint, architecture.tensors[0].shape[0])
    weighing = None
    if imatrix is not None:
        weighing = ImatrixSource(imatrix, checkpoint, architecture, calibrating)
    conversion = _Conversion(
        checkpoint, architecture, vocabulary, kind, threads or usable_cores(), check_perplexity,
        weighing,
    )  # fmt: skip
    try:
        with _claimed(out) as (first, second):
            conversion.run(first, second, announce, progress)
            os.replace(second if conversion.quantizes else first, out)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(out) from None
        where = error.filename or out
        raise ModelError(f"{where} cannot be read or written: {error.strerror}") from None


class _Conversion:
    """One checkpoint on its way to one file."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: Architecture,
        vocabulary: Vocabulary,
        kind: str,
        threads: int,
        check_perplexity: bool,
        weighing: ImatrixSource | None,
    ) -> None:
        self.checkpoint, self.architecture, self.vocabulary = checkpoint, architecture, vocabulary
        self.kind, self.threads, self.check_perplexity = kind, threads, check_perplexity
        self.weighing = weighing
        self.quantizes = kind not in DIRECT
        matrices = {
            checkpoint.tensors[t.source].dtype for t in architecture.tensors if len(t.shape) > 1
        }
        lossless = matrices.pop() if len(matrices) == 1 else "F32"
        # What is written from the checkpoint: the type asked for, or what llama.cpp quantizes.
        self.written = GGMLQuantizationType[lossless if self.quantizes else kind]

    def run(
        self,
        first: Path,
        second: Path,
        announce: Callable[[Estimate], None],
        progress: Progress,
    ) -> None:
        """Write the file to `first`, and from there, where it is quantized, to `second`."""
        free = shutil.disk_usage(first.parent).free
        start = self._write_header(first)
        needs = self._needs(first, second, start)
        if needs.disk > free:
            raise ModelError(
                f"{first.parent} has {amount(free)} free, but the conversion takes "
                f"{amount(needs.disk)} ({amount(needs.size)} for the file itself): make room, or "
                "choose a smaller type or another disk"
            )
        announce(needs)
        if self.weighing is not None:
            self.weighing.prepare(progress)
        self._write_tensors(first, start, progress)
        result = first
        if self.quantizes:
            self._quantize(first, second, progress)
            result = second
            first.unlink()
        progress("checking", 0, 1)
        check_whole(result, [t.name for t in self.architecture.tensors], self.check_perplexity)
        with result.open("rb") as file:
            os.fsync(file.fileno())
        progress("checking", 1, 1)

    def _type_of(self, plan: TensorPlan) -> GGMLQuantizationType:
        # llama.cpp computes norms in 32 bits. Rows that are no whole number of blocks stay F16.
        if len(plan.shape) == 1:
            return GGMLQuantizationType.F32
        if plan.shape[-1] % gguf.GGML_QUANT_SIZES[self.written][0]:
            return GGMLQuantizationType.F16
        return self.written

    def _write_header(self, path: Path) -> int:
        """Write all but the tensors' data; return where that begins."""
        writer = gguf.GGUFWriter(path, self.architecture.name)
        for plan in self.architecture.tensors:
            kind = self._type_of(plan)
            writer.add_tensor_info(
                plan.name, plan.shape, np.dtype(np.float32), nbytes(plan.shape, kind), kind
            )
        factors = self.architecture.rope_factors
        if factors is not None:
            writer.add_tensor_info(
                "rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes
            )
        provenance.write(writer, self.checkpoint.path, self.kind)
        self.architecture.write(writer)
        whole = self.written is GGMLQuantizationType.F32
        writer.add_file_type(
            gguf.LlamaFileType[("ALL_" if whole else "MOSTLY_") + self.written.name]
        )
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        self.vocabulary.write(writer)
        writer.add_array("erank_lite.end_token_ids", self.vocabulary.end_ids)
        if self.checkpoint.max_new_tokens is not None:
            writer.add_uint32("erank_lite.max_new_tokens", self.checkpoint.max_new_tokens)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return _padded(path.stat().st_size)

    def _needs(self, first: Path, second: Path, start: int) -> Estimate:
        """Say what is needed; leave `first` with room for its data, none of which is there."""
        tensors = self.architecture.tensors
        size = start + sum(_padded(nbytes(t.shape, self._type_of(t))) for t in tensors)
        if self.architecture.rope_factors is not None:
            size += _padded(self.architecture.rope_factors.nbytes)
        # Room that takes none yet: with it the file can be opened, to see what its header is worth
        # before any tensor is written.
        os.truncate(first, size)
        check_tokenizer(first, self.vocabulary.tokenizer)
        quantized_to = None
        if self.quantizes:
            planned = planned_size(first, self.kind, self.weighing is not None)
            kind = _main_type(self.kind)
            quantized_to = (kind, start + planned + _ALIGNMENT * len(tensors))
        stored = self.checkpoint.tensors
        largest = max((stored[t.source] for t in tensors), key=lambda t: t.size)
        return estimate(
            largest,
            sum(int(np.prod(t.shape)) for t in tensors),
            (self.written, size),
            quantized_to,
            second,
            self.threads,
        )

    def _write_tensors(self, path: Path, start: int, progress: Progress) -> None:
        stored = self.checkpoint.tensors
        plans = self.architecture.tensors
        total = sum(stored[p.source].size for p in plans)
        done = 0
        with path.open("r+b", buffering=0) as file, ThreadPoolExecutor(self.threads) as pool:
            file.truncate(start)
            file.seek(start)
            for plan in plans:
                pieces = converted(
                    stored[plan.source], plan.heads, self._type_of(plan), pool, self.threads + 1
                )
                for size, piece in pieces:
                    _write_all(file, piece.data.cast("B"))
                    done += size
                    progress("writing", done, total)
                file.seek(_padded(file.tell()))
            if self.architecture.rope_factors is not None:
                _write_all(file, self.architecture.rope_factors.data.cast("B"))
            file.truncate(_padded(file.tell()))

    def _quantize(self, first: Path, second: Path, progress: Progress) -> None:
        with contextlib.ExitStack() as stack:
            matrix = None
            if self.weighing is not None:
                matrix = stack.enter_context(self.weighing.file(first, self.threads, progress))
            sizes = {t.name: t.size for t in GGUFFile.read(first).tensors}
            total = sum(sizes.values())
            done = current = 0
            progress("quantizing", 0, total)
            names = quantize(first, second, self.kind, self.threads, matrix)
            stack.enter_context(contextlib.closing(names))
            try:
                for name in names:
                    done, current = done + current, sizes[name]
                    progress("quantizing", done, total)
            except ModelError:
                if shutil.disk_usage(second.parent).free < ALMOST_NONE:
                    raise disk_full(second) from None
                raise
            progress("quantizing", total, total)


def _main_type(kind: str) -> GGMLQuantizationType:
    """Return the type of most tensors in a file of type `kind`, near enough to time it."""
    name = kind.removesuffix("_M").removesuffix("_L").removesuffix("_S")
    # Without a matrix llama.cpp's kernels of the smallest types end the process.
    if not name.startswith(("IQ1", "IQ2")):
        for candidate in (kind, name, f"{name}_S"):
            if candidate in GGMLQuantizationType.__members__:
                return GGMLQuantizationType[candidate]
    return GGMLQuantizationType.IQ3_S  # IQ3_XS is made of IQ3_S and IQ3_XXS


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _write_all(file: io.FileIO, data: memoryview) -> None:
    # A disk that is filling up takes a part first, and says so only when asked again.
    while data:
        data = data[file.write(data) :]


def _check_place(out: Path, force: bool) -> None:
    if out.suffix != ".gguf":
        raise InputError(f"the output must be a .gguf file, not {out}")
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise InputError(f"{out} is not a file: give the name of the file to make")
    check_parent(out, force)


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield two names beside `out` to write to; what is left under them in the end is removed.

    Raises:
        InputError: another process is writing `out`.
    """
    partials = (
        out.with_name(f"{out.name}.partial"),
        out.with_name(f"{out.name}.quantized.partial"),
    )
    with claimed(out):
        try:
            yield partials
        finally:
            for path in partials:
                path.unlink(missing_ok=True)
