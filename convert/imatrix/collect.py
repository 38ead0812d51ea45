"""What a text does to the weights of a model: the squares of all that they are multiplied by.

llama.cpp shows every operation of its graph to a callback (`cb_eval`); which ones count is decided
as in its `tools/imatrix/imatrix.cpp` (`collect_imatrix`): matrix products with the weights of the
layers. The embedding and the output's matrix, which may be one, are left out there too. It runs in
a child process.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from erank_lite.convert.imatrix.file import Columns, ImportanceMatrix
from erank_lite.convert.imatrix.graph import Tensors
from erank_lite.errors import InputError, ModelError
from erank_lite.models.gguf import GGUFFile
from erank_lite.util import worker
from erank_lite.util.reporter import SILENT, Reporter

_ROWS = 512  # tokens that are computed at once


def columns_of(model: GGUFFile) -> Columns:
    """Return the weights that count, with the length of their rows.

    Raises:
        ModelError: there are none, or the model is a mixture of experts.
    """
    layers = [t for t in model.tensors if t.name.startswith("blk.") and len(t.shape) > 1]
    if not layers or any(len(t.shape) > 2 for t in layers):
        what = "is a mixture of experts" if layers else "has no layers"
        raise ModelError(f"`{model.path}` {what}: no importance matrix can be made for it")
    return {t.name: t.shape[0] for t in layers}


def collect(
    model: Path,
    samples: Iterable[Sequence[int]],
    *,
    dataset: str = "token ids",
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> ImportanceMatrix:
    """Run the model over samples and return what they did to its weights.

    Samples are taken one by one and never see each other; of a long one, 512 tokens are computed
    at once. The sums are llama-imatrix's, bit by bit where the machine computes the same.

    Args:
        model: a GGUF file, best in 16 or 32 bits.
        samples: token ids, such as `SelfGeneratedCalibration` gives; they are taken once, and pass
            through a temporary file.
        dataset: what the text is called in the file; a hash of the token ids is added.
        threads: None means the physical cores that this process may use.
        reporter: gets the tokens that are done.

    Raises:
        InputError: there is no sample, or one has no tokens.
        ModelError: the model cannot be used, computes infinities or values that are not numbers,
            or this version of llama.cpp shows other things than are expected.
    """
    columns_of(file := GGUFFile.read(model))
    with tempfile.TemporaryDirectory() as work:
        text, out = Path(work) / "samples.jsonl", Path(work) / "imatrix.gguf"
        lengths, digest = _put(samples, text)
        total, done = sum(lengths), 0
        arguments = {
            "model": str(model), "samples": str(text), "longest": max(lengths), "out": str(out),
            "threads": threads,
        }  # fmt: skip
        reporter.progress("activations", 0, total, "tokens")
        for message in worker.run(__name__, arguments):
            done += message["tokens"]
            reporter.progress("activations", done, total, "tokens")
        found = ImportanceMatrix.read(out)
    source = file.metadata.get("erank_lite.source") or file.metadata.get("general.name")
    notes = {"source": str(source or model.name), "ids_sha256": digest}
    return replace(
        found, datasets=(f"{dataset}, sha256 {digest}",), chunks=len(lengths),
        chunk_size=-(-total // len(lengths)), notes=notes,
    )  # fmt: skip


def check_samples(lengths: Iterable[int]) -> None:
    """Check that there are samples, by their lengths.

    Raises:
        InputError: there is none, or one has no tokens.
    """
    if not min(lengths, default=0):
        raise InputError("the samples are empty: an importance matrix needs token ids")


def _put(samples: Iterable[Sequence[int]], path: Path) -> tuple[list[int], str]:
    """Write samples, one a line; return their lengths, and the hash that `digest` gives."""
    lengths: list[int] = []
    whole = hashlib.sha256(b"[")
    with path.open("w", encoding="ascii") as file:
        for sample in samples:
            line = json.dumps([int(i) for i in sample])
            whole.update(f"{', ' if lengths else ''}{line}".encode())
            file.write(f"{line}\n")
            lengths.append(len(sample))
    whole.update(b"]")
    check_samples(lengths)
    return lengths, whole.hexdigest()


class _Collector:
    """The callback: called before and after the operations of a graph."""

    def __init__(self, columns: Columns) -> None:
        self.sums: dict[str, npt.NDArray[np.float32]] = {}
        self.counts = dict.fromkeys(columns, 0)
        self.error: Exception | None = None
        self._tensors, self._columns = Tensors(), columns
        self._waiting: set[str] = set()

    def begin(self) -> None:
        """Expect every weight once more."""
        self._waiting = set(self._columns)

    def __call__(self, tensor: int, ask: bool, _: Any) -> bool:
        # No exception may pass through C code.
        try:
            if ask:
                return self._weight(tensor) is not None
            self._add(tensor)
            # What is left then is the output's matrix: false ends the graph before it.
            return bool(self._waiting)
        except Exception as error:
            self.error = self.error or error
            return False

    def _weight(self, tensor: int) -> str | None:
        if self._tensors.operation(tensor) != "MUL_MAT":
            return None
        source = self._tensors.source(tensor, 0)
        name = self._tensors.name(source) if source else ""
        return name if name in self._columns else None

    def _add(self, tensor: int) -> None:
        name, source = self._weight(tensor), self._tensors.source(tensor, 1)
        assert name is not None and source is not None
        values = self._tensors.read(source, self._columns[name])
        values *= values
        # In 32 bits, one row after the other, as llama-imatrix adds: so its sums are the same.
        if name in self.sums:
            values[0] += self.sums[name]
        self.sums[name] = values.sum(axis=0)
        if not np.isfinite(self.sums[name]).all():
            raise ModelError(
                f"the model multiplies {name} by infinities or values that are not numbers: the "
                "checkpoint is damaged, or its numbers are too large for 16 bits"
            )
        self.counts[name] += len(values)
        self._waiting.discard(name)


def _work(
    send: worker.Send,
    model: str,
    samples: str,
    longest: int,
    out: str,
    threads: int | None,
) -> None:
    import llama_cpp.llama_cpp as lib

    from erank_lite.engines.llama_cpp.bindings import Model
    from erank_lite.engines.llama_cpp.dry_run import tried
    from erank_lite.engines.llama_cpp.options import LlamaCppOptions
    from erank_lite.engines.llama_cpp.plan import plan
    from erank_lite.machine.hardware import probe, usable_by_llama

    file = GGUFFile.read(Path(model))
    columns = columns_of(file)
    shape = replace(file.shape(), context_length=longest, max_new_tokens=1)
    # Room for the outputs, of which llama.cpp keeps one a token.
    outputs = _ROWS * shape.vocabulary * 4
    machine = usable_by_llama(probe())
    gpus = tuple(replace(g, free=max(0, g.free - outputs)) for g in machine.gpus)
    machine = replace(machine, gpus=gpus)
    options = LlamaCppOptions(sequences=1, micro_batch=_ROWS, threads=threads)
    planned = plan(shape, machine, options)
    if planned.tight:
        planned = tried(file.path, shape, machine, planned)
    assert planned.gpu_layers is not None
    loaded = Model(file.path, planned.gpu_layers, None, None, repack=False)
    collector = _Collector(columns)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = longest, _ROWS, _ROWS
    params.n_seq_max, params.no_perf = 1, True
    params.n_threads = params.n_threads_batch = planned.threads
    params.cb_eval = lib.ggml_backend_sched_eval_callback(collector)
    context = lib.llama_init_from_model(loaded.pointer, params)
    if not context:
        raise ModelError(f"llama.cpp cannot make a context of {longest} tokens for {model}")
    batch = lib.llama_batch_init(_ROWS, 0, 1)
    with open(samples, encoding="ascii") as lines:
        for ids in map(json.loads, lines):
            lib.llama_memory_clear(lib.llama_get_memory(context), True)
            for start in range(0, len(ids), _ROWS):
                piece = ids[start : start + _ROWS]
                batch.n_tokens = len(piece)
                for i, token in enumerate(piece):
                    batch.token[i], batch.pos[i] = token, start + i
                    batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                    # The last layer computes no more rows than have outputs.
                    batch.logits[i] = True
                collector.begin()
                code = lib.llama_decode(context, batch)
                if collector.error is not None:
                    raise collector.error
                if code:
                    raise ModelError(
                        f"llama.cpp cannot read a sample (code {code}): its token ids are not all "
                        "of the model's, or memory ran out"
                    )
                send({"tokens": len(piece)})
    ImportanceMatrix(collector.sums, collector.counts, ("",), 0, 0).write(Path(out))


if __name__ == "__main__":
    worker.serve(_work)
