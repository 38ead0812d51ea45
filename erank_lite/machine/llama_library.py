"""llama.cpp's library in this process: started once, its log kept off the terminal, its GPUs."""

from __future__ import annotations

import ctypes
import logging
import re
import sys
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib

from erank_lite import ggml

_log = logging.getLogger(__name__)
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_GPU, _INTEGRATED_GPU = 1, 2  # GGML_BACKEND_DEVICE_TYPE_…
_messages: deque[str] = deque(maxlen=50)
_started = False


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _collect(level: int, text: bytes, _: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR and line:
        _messages.append(line)
    if line:
        _log.debug("%s", line)


def start() -> None:
    """Initialize llama.cpp once; its log goes to Python's, and its errors are kept for `reason`."""
    global _started
    if not _started:
        lib.llama_log_set(_collect, None)
        lib.llama_backend_init()
        _started = True
    _messages.clear()


def reason() -> str:
    """Return llama.cpp's first complaint since `start`, without the name of its function."""
    return re.sub(r"^\w+: ", "", _messages[0]) if _messages else "llama.cpp gave no reason"


def gpu_devices() -> list[tuple[str, int, int, bool]]:
    """Return the GPUs that llama.cpp uses here: integrated ones where there is no other.

    Returns:
        (name, bytes in all, bytes free, whether its memory is the CPU's) of each, in its order.
    """
    start()  # looking for devices writes to the log
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    numbers = ctypes.POINTER(size)
    count = ggml.function("ggml_backend_dev_count", size)
    get = ggml.function("ggml_backend_dev_get", pointer, size)
    type_of = ggml.function("ggml_backend_dev_type", ctypes.c_int, pointer)
    name = ggml.function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
    memory = ggml.function("ggml_backend_dev_memory", None, pointer, numbers, numbers)
    devices: list[tuple[str, int, int, bool]] = []
    integrated: list[bool] = []
    for i in range(count()):
        device = get(i)
        device_type = type_of(device)
        if device_type in (_GPU, _INTEGRATED_GPU):
            free, total = size(), size()
            memory(device, ctypes.byref(free), ctypes.byref(total))
            integrated.append(device_type == _INTEGRATED_GPU)
            shared = integrated[-1] or sys.platform == "darwin"
            devices.append(((name(device) or b"?").decode(), total.value, free.value, shared))
    discrete = [d for d, i in zip(devices, integrated, strict=True) if not i]
    return discrete or devices
