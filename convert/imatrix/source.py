"""Where the importance matrix of a conversion comes from: a file, or the model's activations."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from erank_lite.convert.calibration import (
    DEFAULT,
    OpenEngine,
    Samples,
    SelfGeneratedCalibration,
    digest,
    read_examples,
)
from erank_lite.convert.imatrix.collect import check_samples, collect
from erank_lite.convert.imatrix.file import ImportanceMatrix
from erank_lite.errors import ModelError
from erank_lite.models.architecture import Architecture
from erank_lite.models.cache import exclusive
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.util.reporter import Reporter

_log = logging.getLogger(__name__)

MatrixSource = Path | str | Samples
"""A file's path; "auto", the model's self-generated calibration text; or token ids to read."""

NAME = "imatrix.gguf"


class ImatrixSource:
    """The importance matrix of one conversion, which may still have to be collected."""

    def __init__(
        self,
        source: MatrixSource,
        checkpoint: Checkpoint,
        architecture: Architecture,
        open_engine: OpenEngine | None,
    ) -> None:
        """Check what can be checked before anything is written.

        Args:
            source: where the matrix is to come from.
            checkpoint: what is converted.
            architecture: of the checkpoint.
            open_engine: see `SelfGeneratedCalibration`.

        Raises:
            InputError: the calibration text cannot be made prompts, or the token ids are empty.
            ModelError: the file is not a matrix, damaged, or of another model.
        """
        self._columns = {
            spec.name: spec.shape[-1]
            for spec in architecture.tensors
            if spec.name.startswith("blk.") and len(spec.shape) > 1
        }
        self._file: Path | None = None
        self._text: SelfGeneratedCalibration | None = None
        self._samples: Samples = ()
        if source == "auto":
            examples = read_examples(DEFAULT)
            self._text = SelfGeneratedCalibration(checkpoint, examples, open_engine)
        elif isinstance(source, Path | str):
            self._file = Path(source)
            ImportanceMatrix.read(self._file).check(self._columns)
        else:
            self._samples = source
            check_samples(map(len, source))

    def prepare(self, reporter: Reporter) -> None:
        """Let the model generate its text, if that is what is read and it has not done so before.

        Raises:
            ModelError: the model cannot be used.
        """
        if self._text is not None:
            self._samples = self._text.samples(reporter)

    @contextlib.contextmanager
    def file(self, model: Path, threads: int, reporter: Reporter) -> Iterator[Path]:
        """Yield the matrix as a file, collected by running `model`, a GGUF file, if need be.

        That of self-generated text is kept beside the text, in the user's cache.

        Raises:
            ModelError: the model cannot be used, or computes values that are not numbers.
        """
        if self._file is not None:
            yield self._file
        elif self._text is None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / NAME
                collect(model, self._samples, threads=threads, reporter=reporter).write(file)
                yield file
        else:
            file = self._text.folder / NAME
            with exclusive(file):
                if not self._is_kept(file):
                    matrix = collect(
                        model, self._samples, dataset="erank-lite calibration, own text",
                        threads=threads, reporter=reporter,
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
            _log.warning("%s; it is made again", error.message)
            return False
        return matrix.notes.get("ids_sha256") == digest(self._samples)
