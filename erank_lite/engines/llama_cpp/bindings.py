"""The few calls of llama.cpp's C interface that the engine needs, through llama-cpp-python.

`llama_cpp.Llama` decodes one sequence at a time; what is here decodes many, saves and restores
the state of one, and can be interrupted.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from erank_lite.engines.llama_cpp.state import MAX_SEQUENCES, State
from erank_lite.errors import ModelError
from erank_lite.machine.llama_library import reason, start

_BF16 = 30  # GGML_TYPE_BF16, which llama-cpp-python 0.3.36 does not name


class Model:
    """Weights in memory."""

    pointer: Any = None

    def __init__(
        self,
        path: Path,
        gpu_layers: int,
        main_gpu: int | None,
        tensor_split: list[float] | None,
        repack: bool,
        adapter: Path | None = None,
    ) -> None:
        """Load the weights, and a LoRA adapter, which every context of the model then uses.

        Raises:
            ModelError: llama.cpp refuses a file.
        """
        start()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = repack
        self.gpu = gpu_layers != 0
        # With no layer there, llama.cpp would still compute large batches on a GPU that it finds.
        self._no_devices = (ctypes.c_void_p * 1)()
        if not self.gpu:
            params.devices = ctypes.addressof(self._no_devices)
        if main_gpu is not None:
            params.split_mode = lib.LLAMA_SPLIT_MODE_NONE
            params.main_gpu = main_gpu
        if tensor_split is not None:
            shares = (ctypes.c_float * max(lib.llama_max_devices(), len(tensor_split)))(
                *tensor_split
            )
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        self._pid = os.getpid()
        self.pointer = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            raise ModelError(f"llama.cpp cannot load `{path}`: {reason()}")
        vocab = lib.llama_model_get_vocab(self.pointer)
        self.n_vocab: int = lib.llama_vocab_n_tokens(vocab)
        self.layers: int = lib.llama_model_n_layer(self.pointer)
        self.end_ids = frozenset(i for i in range(self.n_vocab) if lib.llama_vocab_is_eog(vocab, i))
        self.adapter: Any = None  # freed with the model
        if adapter is not None:
            self.adapter = lib.llama_adapter_lora_init(self.pointer, str(adapter).encode())
            if not self.adapter:
                raise ModelError(
                    f"llama.cpp cannot add the adapter `{adapter}`: {reason()}",
                    "give a GGUF file that `erank-lite convert adapter` made of an adapter of this "
                    "very model",
                )

    def close(self) -> None:
        """Free the weights."""
        if self.pointer and self._pid == os.getpid():  # not what a parent process holds
            lib.llama_model_free(self.pointer)
            self.pointer = None

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class Batch:
    """Rows of one decode: token, position, sequence, and whether its logits are wanted.

    Rows of one sequence stand together, sequences in ascending order: llama.cpp can then run one
    token of each in one pass.
    """

    tokens: list[int]
    positions: list[int]
    sequences: list[int]
    outputs: list[int]


class Context:
    """Keys and values of `sequences` sequences, and the decoding of rows into them.

    Each sequence has cells of its own (`kv_unified=False`): with a cache that all share, every
    row looks through the cells of all sequences, which costs more than the attention itself.
    """

    _pointer: Any = None

    def __init__(
        self,
        model: Model,
        sequences: int,
        cells: int,
        batch: int,
        micro_batch: int,
        threads: int,
        kv_type: str,
        flash_attention: bool | None,
        outputs: int | None = None,
    ) -> None:
        """Reserve the memory.

        Args:
            model: the weights.
            sequences: how many.
            cells: tokens that each can hold.
            batch: the most rows of one `decode`.
            micro_batch: the most rows that llama.cpp computes at once.
            threads: for the part that runs on the CPU.
            kv_type: type of the keys and values, such as "f16" or "q8_0".
            flash_attention: use it or not; None lets llama.cpp decide.
            outputs: the most rows of one `decode` whose logits are wanted; None means `sequences`.

        Raises:
            ModelError: there is not enough memory, or the options do not go together.
        """
        self.sequences, self.cells, self.micro_batch = sequences, cells, micro_batch
        params = lib.llama_context_default_params()
        params.n_ctx = sequences * cells
        params.n_batch = batch
        params.n_ubatch = micro_batch
        params.n_seq_max = sequences
        params.n_outputs_max = outputs or sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False
        params.offload_kqv = params.op_offload = model.gpu
        params.no_perf = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE  # a file may ask for a classifier's
        params.type_k = params.type_v = (
            _BF16 if kv_type == "bf16" else getattr(lib, f"GGML_TYPE_{kv_type.upper()}")
        )
        self._by_dimensions = None if flash_attention is None else not flash_attention
        if flash_attention is not None:
            params.flash_attn_type = int(flash_attention)
        # The callback runs between the operations of a decode, a thousand times in each: so it is
        # a C function. strlen of a buffer that holds "" says 0, go on, and of one that holds a
        # character says 1, stop.
        self._abort = ctypes.create_string_buffer(2)
        libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        params.abort_callback = ctypes.cast(libc.strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort)
        self._pid = os.getpid()
        self._model = model  # kept, so that it is freed after this
        self._pointer = lib.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise ModelError(
                f"llama.cpp cannot make a context of {sequences} sequences of {cells} tokens: "
                f"{reason()}",
                "change what it names, or ask for fewer sequences or less context",
            )
        if model.adapter is not None:
            pointers = (lib.llama_adapter_lora_p_ctypes * 1)(model.adapter)
            lib.llama_set_adapters_lora(self._pointer, pointers, 1, (ctypes.c_float * 1)(1.0))
        self._memory = lib.llama_get_memory(self._pointer)
        self._n_vocab = model.n_vocab
        self._arrays(batch)

    def _arrays(self, batch: int) -> None:
        self._token = np.zeros(batch, np.int32)
        self._position = np.zeros(batch, np.int32)
        self._sequence = np.zeros(batch, np.int32)
        self._output = np.zeros(batch, np.int8)
        self._ones = np.ones(batch, np.int32)
        places = self._sequence.ctypes.data + 4 * np.arange(batch, dtype=np.uint64)
        self._sequence_pointers = places.astype(np.uint64)
        self._batch = lib.llama_batch()
        kinds: dict[str, Any] = {field[0]: field[1] for field in lib.llama_batch._fields_}
        for name, values in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._ones),
            ("seq_id", self._sequence_pointers),
            ("logits", self._output),
        ):
            setattr(self._batch, name, ctypes.cast(values.ctypes.data, kinds[name]))

    def decode(self, rows: Batch) -> int:
        """Run `rows` and return llama_decode's code: 0 done, 1 no room, 2 aborted, < 0 an error."""
        n = len(rows.tokens)
        self._batch.n_tokens = n
        self._token[:n] = rows.tokens
        self._position[:n] = rows.positions
        self._sequence[:n] = rows.sequences
        self._output[:n] = rows.outputs
        code: int = lib.llama_decode(self._pointer, self._batch)
        lib.llama_synchronize(self._pointer)
        return code

    def abort(self) -> None:
        """Have the decode that another thread runs, and all that follow, end at once."""
        self._abort.value = b"x"

    def logits(self, count: int) -> npt.NDArray[np.float32]:
        """Return the logits of the last decode's `count` output rows, in their order: [count, V].

        The array is llama.cpp's own memory, valid until the next decode.
        """
        pointer = lib.llama_get_logits(self._pointer)
        return np.ctypeslib.as_array(pointer, shape=(count, self._n_vocab))

    def save(self, sequence: int) -> State:
        """Return the state of one sequence."""
        size = lib.llama_state_seq_get_size(self._pointer, sequence)
        saved = np.empty(size + 4 * MAX_SEQUENCES, np.uint8)
        saved[size:] = 0
        data = saved.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        written = lib.llama_state_seq_get_data(self._pointer, data, size, sequence)
        return State.from_saved(saved, written, sequence)

    def restore(self, sequence: int, state: State) -> bool:
        """Put a state that this or another context saved into a sequence.

        Returns:
            False where there is no room for it, or it does not fit.
        """
        saved = state.fitting(self.sequences, self._by_dimensions).data
        data = saved.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        return bool(lib.llama_state_seq_set_data(self._pointer, data, saved.size, sequence))

    def remove(self, sequence: int, start: int = 0) -> None:
        """Forget a sequence from position `start` on."""
        lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def close(self) -> None:
        """Free the memory."""
        if self._pointer and self._pid == os.getpid():
            lib.llama_free(self._pointer)
            self._pointer = None

    def __del__(self) -> None:
        self.close()
