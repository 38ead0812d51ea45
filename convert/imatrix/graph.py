"""What the graph of llama.cpp is made of: its tensors, read by ggml's public functions (`ggml.h`).

Where a tensor keeps the addresses of what it was computed from, no function tells. That is looked
up in one whose sources are known, so that no version's layout of the structure is assumed.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from erank_lite import ggml
from erank_lite.errors import ModelError


class Tensors:
    """ggml's functions, which take the address of a tensor."""

    def __init__(self) -> None:
        """Look the functions up.

        Raises:
            ModelError: tensors are kept in another way than is known.
        """
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._operation = ggml.function("ggml_op_desc", ctypes.c_char_p, pointer)
        self._name = ggml.function("ggml_get_name", ctypes.c_char_p, pointer)
        self._elements = ggml.function("ggml_nelements", ctypes.c_int64, pointer)
        self._rows = ggml.function("ggml_nrows", ctypes.c_int64, pointer)
        self._bytes = ggml.function("ggml_nbytes", size, pointer)
        self._contiguous = ggml.function("ggml_is_contiguous", ctypes.c_bool, pointer)
        self._get = ggml.function("ggml_backend_tensor_get", None, pointer, pointer, size, size)
        self._sources = self._find_sources()

    @staticmethod
    def _find_sources() -> int:
        """Return the bytes from a tensor's address to where it keeps those of its sources."""

        class Params(ctypes.Structure):  # ggml_init_params
            _fields_ = (
                ("mem_size", ctypes.c_size_t),
                ("mem_buffer", ctypes.c_void_p),
                ("no_alloc", ctypes.c_bool),
            )

        pointer, overhead = (
            ctypes.c_void_p,
            ggml.function("ggml_tensor_overhead", ctypes.c_size_t)(),
        )
        new = ggml.function(
            "ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
        )
        multiply = ggml.function("ggml_mul_mat", pointer, pointer, pointer, pointer)
        context = ggml.function("ggml_init", pointer, Params)(Params(16 * overhead, None, True))
        a, b = new(context, 0, 3, 5), new(context, 0, 3, 7)  # F32
        product = multiply(context, a, b)
        multiply(context, a, b)  # so that what is read behind `product` is ours too
        content = ctypes.string_at(product, overhead)
        step = ctypes.sizeof(pointer)
        words = [int.from_bytes(content[i : i + step], "little") for i in range(0, overhead, step)]
        offsets = [i * step for i in range(len(words) - 1) if words[i : i + 2] == [a, b]]
        ggml.function("ggml_free", None, pointer)(context)
        if len(offsets) != 1:
            raise ModelError(
                "this build of llama.cpp keeps its tensors in another way than is known, so that "
                "its activations cannot be read: no importance matrix can be made with it"
            )
        return offsets[0]

    def operation(self, tensor: int) -> str:
        """Return what computes a tensor, such as "MUL_MAT"."""
        return str(self._operation(tensor).decode("ascii"))

    def source(self, tensor: int, index: int) -> int | None:
        """Return the address of what `tensor` was computed from."""
        address = tensor + self._sources + index * ctypes.sizeof(ctypes.c_void_p)
        return ctypes.c_void_p.from_address(address).value

    def name(self, tensor: int) -> str:
        """Return the name, without what the scheduler adds to copies: `CUDA0#NAME#0`."""
        parts = self._name(tensor).decode("utf-8", "replace").split("#")
        return str(parts[1] if len(parts) > 1 else parts[0])

    def read(self, tensor: int, columns: int) -> npt.NDArray[np.float32]:
        """Return a copy of a tensor of 32-bit floats, wherever it lies: [rows, columns].

        Raises:
            ModelError: it is none of so many columns.
        """
        shape = self._rows(tensor), columns
        values = np.empty(shape, np.float32)
        if (
            self._elements(tensor) != values.size
            or self._bytes(tensor) != values.nbytes
            or not self._contiguous(tensor)
        ):
            raise ModelError(
                f"llama.cpp multiplies a weight by {self.name(tensor)}, which is not of "
                f"{columns} columns of 32-bit floats: no importance matrix can be made with it"
            )
        self._get(tensor, values.ctypes.data, 0, values.nbytes)
        return values
