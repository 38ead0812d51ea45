"""The peak of a process's memory.

It is the resident set: what the process allocated, and the pages of files that it mapped and
touched. llama.cpp maps a GGUF, so that its weights count (once, though the system could take these
pages back); where it rearranges weights for the CPU, the rearranged copy counts too.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import psutil


def peak_memory(process: int | None = None) -> int | None:
    """Return the peak of the resident bytes, of this process or of the one with that id.

    None where the system does not say. (`getrusage` is not asked on Linux: there a new process
    begins with the peak of the one that started it.)
    """
    process_id = os.getpid() if process is None else process
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        info = psutil.Process(process_id).memory_info()
    except psutil.Error:
        return None
    peak: int | None = getattr(info, "peak_wset", None)  # Windows
    if peak is None and process is None and sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak or int(info.rss)
