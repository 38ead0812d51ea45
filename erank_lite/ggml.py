"""Functions of ggml (`ggml.h`, `ggml-backend.h`), which llama.cpp computes with.

llama_cpp's own `_ggml` loads the library that lies in the package, whatever LLAMA_CPP_LIB_PATH
says: with that variable set, a second ggml would be in the process, with devices and types of its
own. What is found here is in the library that llama.cpp itself was loaded with.
"""

from __future__ import annotations

from typing import Any


def function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of ggml.

    Args:
        name: its name in C.
        result: the ctypes type of what it returns, or None.
        arguments: the ctypes types of its arguments.
    """
    # Here, since it takes half a second, and the library is not there in every environment.
    import llama_cpp.llama_cpp as lib

    # By its index, the function is a new object, so that nobody else's types are changed. A symbol
    # is looked for in libllama and in the libraries that it was linked with.
    found = lib._lib[name]
    found.restype, found.argtypes = result, arguments
    return found
