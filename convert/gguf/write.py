"""A checkpoint written as a GGUF file, in a type to which each number is converted on its own.

The header goes first, for what it says is checked before a tensor is written.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from erank_lite.convert import provenance
from erank_lite.convert.gguf.metadata import rope_factors, write_architecture
from erank_lite.convert.gguf.tensors import converted, nbytes
from erank_lite.convert.gguf.vocabulary import Vocabulary
from erank_lite.models.architecture import Architecture, TensorSpec
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.models.lora import LoraAdapter
from erank_lite.util.reporter import Reporter

ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


@dataclass(frozen=True)
class CheckpointWriter:
    """Writes one checkpoint.

    Attributes:
        checkpoint: what is written.
        architecture: the checkpoint's.
        vocabulary: the checkpoint's.
        matrix_type: of matrices, as far as their rows are whole blocks of it.
        quant_type: of the file that is made in the end, which the header names.
        adapter: what is merged into the weights, if anything.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    vocabulary: Vocabulary
    matrix_type: GGMLQuantizationType
    quant_type: str
    adapter: LoraAdapter | None = None

    def write_header(self, path: Path) -> int:
        """Write all but the tensors' data, and leave room for that; return where it begins."""
        writer = gguf.GGUFWriter(path, self.architecture.name)
        for spec in self.architecture.tensors:
            tensor_type = self._type_of(spec)
            writer.add_tensor_info(
                spec.name, spec.shape, np.dtype(np.float32), nbytes(spec.shape, tensor_type),
                tensor_type,
            )  # fmt: skip
        factors = rope_factors(self.architecture)
        if factors is not None:
            writer.add_tensor_info(
                "rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes
            )
        provenance.write(writer, self.checkpoint.path, self.quant_type, self.adapter)
        write_architecture(writer, self.architecture)
        mostly = "ALL_" if self.matrix_type is GGMLQuantizationType.F32 else "MOSTLY_"
        writer.add_file_type(gguf.LlamaFileType[mostly + self.matrix_type.name])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        self.vocabulary.write(writer)
        writer.add_array("erank_lite.end_token_ids", self.vocabulary.end_ids)
        if self.checkpoint.max_new_tokens is not None:
            writer.add_uint32("erank_lite.max_new_tokens", self.checkpoint.max_new_tokens)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        start = _padded(path.stat().st_size)
        size = start + sum(
            _padded(nbytes(spec.shape, self._type_of(spec))) for spec in self.architecture.tensors
        )
        if factors is not None:
            size += _padded(factors.nbytes)
        # Room that takes none on the disk yet: with it, the file can be opened.
        os.truncate(path, size)
        return start

    def write_tensors(self, path: Path, start: int, threads: int, reporter: Reporter) -> None:
        """Write the tensors' data into a file whose header is there."""
        stored = self.checkpoint.tensors
        specs = self.architecture.tensors
        total = sum(stored[spec.source].size for spec in specs)
        done = 0
        with path.open("r+b", buffering=0) as file, ThreadPoolExecutor(threads) as pool:
            file.truncate(start)
            file.seek(start)
            for spec in specs:
                pieces = converted(
                    stored[spec.source],
                    spec.heads,
                    self._type_of(spec),
                    pool,
                    threads + 1,
                    self.adapter.parts.get(spec.source) if self.adapter else None,
                )
                for size, piece in pieces:
                    _write_all(file, piece.data.cast("B"))
                    done += size
                    reporter.progress("writing", done, total)
                file.seek(_padded(file.tell()))
            factors = rope_factors(self.architecture)
            if factors is not None:
                _write_all(file, factors.data.cast("B"))
            file.truncate(_padded(file.tell()))

    def _type_of(self, spec: TensorSpec) -> GGMLQuantizationType:
        # llama.cpp computes norms in 32 bits. Rows that are not whole blocks stay F16.
        if len(spec.shape) == 1:
            return GGMLQuantizationType.F32
        if spec.shape[-1] % gguf.GGML_QUANT_SIZES[self.matrix_type][0]:
            return GGMLQuantizationType.F16
        return self.matrix_type


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write_all(file: io.FileIO, data: memoryview) -> None:
    # A disk that is filling up takes a part first, and says so only when asked again.
    while data:
        data = data[file.write(data) :]
