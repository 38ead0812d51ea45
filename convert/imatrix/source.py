"""Where the importance matrix of a conversion comes from: a file, or the model's activations."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from erank_lite.convert.architectures import Architecture
from erank_lite.convert.calibration import (
    DEFAULT,
    Samples,
    SelfGeneratedCalibration,
    digest,
    read_examples,
)
from erank_lite.convert.imatrix.collect import check_samples, collect
from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.errors import ModelError
from erank_lite.models.prepare import exclusive
from erank_lite.models.safetensors import Checkpoint
from erank_lite.types import Progress

_log = logging.getLogger(__name__)

MatrixSource = Path | str | Samples
"""A file's path; "auto", the model's own calibration text, as for GPTQ; or token ids to read."""

NAME = "imatrix.gguf"


class ImatrixSource:
    """The matrix of one conversion, known by and by."""

    def __init__(
        self,
        source: MatrixSource,
        checkpoint: Checkpoint,
        architecture: Architecture,
        calibrating: Callable[[float], None],
    ) -> None:
        """Check what can be checked before anything is written.

        Args:
            source: where the matrix is to come from.
            checkpoint: what is converted.
            architecture: of the checkpoint.
            calibrating: see `SelfGeneratedCalibration.samples`.

        Raises:
            InputError: the calibration text cannot be made prompts, or the token ids are empty.
            ModelError: the file is none, damaged, or of another model.
        """
        self._calibrating = calibrating
        self._columns = {
            t.name: t.shape[-1]
            for t in architecture.tensors
            if t.name.startswith("blk.") and len(t.shape) > 1
        }
        self._file: Path | None = None
        self._text: SelfGeneratedCalibration | None = None
        self._samples: Samples = ()
        if source == "auto":
            self._text = SelfGeneratedCalibration(checkpoint, read_examples(DEFAULT))
        elif isinstance(source, Path | str):
            self._file = Path(source)
            ImportanceMatrix.read(self._file).check(self._columns)
        else:
            self._samples = source
            check_samples(map(len, source))

    def prepare(self, progress: Progress) -> None:
        """Let the model write its text, if that is what is read and it has not done so before.

        Raises:
            ModelError: the model cannot be used.
        """
        if self._text is not None:
            self._samples = self._text.samples(calibrating=self._calibrating, progress=progress)

    @contextlib.contextmanager
    def file(self, model: Path, threads: int, progress: Progress) -> Iterator[Path]:
        """Yield the matrix as a file, made by running `model`, a GGUF file, if need be.

        That of the model's own text is kept beside the text, in the user's cache.

        Raises:
            ModelError: the model cannot be used, or computes no numbers.
        """
        if self._file is not None:
            yield self._file
            return
        if self._text is None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / NAME
                matrix = collect(model, self._samples, threads=threads, progress=progress)
                matrix.write(file)
                yield file
            return
        file = self._text.folder / NAME
        with exclusive(file):
            if not self._is_kept(file):
                matrix = collect(
                    model, self._samples, dataset="erank-lite calibration, own text",
                    threads=threads, progress=progress,
                )  # fmt: skip
                matrix.check(self._columns)
                matrix.write(file)
        yield file

    def _is_kept(self, file: Path) -> bool:
        if not file.exists():
            return False
        try:
            matrix = ImportanceMatrix.read(file)
            matrix.check(self._columns)
        except ModelError as error:
            _log.warning("%s; it is made again", error)
            return False
        return matrix.notes.get("ids_sha256") == digest(self._samples)
