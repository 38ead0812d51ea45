"""What this machine has. Facts only: nothing is decided here, and nothing heavy is imported.

Limits that a container sets (control groups, versions 1 and 2) count as the machine's own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

EXTRAS = (
    "gptqmodel", "optimum", "torch", "transformers", "accelerate", "bm25s", "ir-measures",
)  # fmt: skip
"""Packages outside the base whose presence opens an engine or a command."""

_CPU_BACKENDS = {"cpu", "blas"}
_INSTRUCTIONS = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One accelerator. Sizes in bytes."""

    name: str
    backend: str
    """"cuda" or "metal" where its maker's own tools list it, "llama.cpp" where that does."""
    total: int
    free: int
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    shared: bool = False
    """Its memory is the CPU's."""


@dataclass(frozen=True)
class LlamaBuild:
    """The installed llama.cpp."""

    version: str
    """Of llama-cpp-python."""
    backends: tuple[str, ...]
    """What it was built for, by the libraries that lie beside it: "cpu", "cuda", "metal", …"""
    gpus: tuple[Gpu, ...] = ()
    """The GPUs that it can use, in its own order."""


@dataclass(frozen=True)
class Hardware:
    """This machine, as far as this process may use it. Sizes in bytes."""

    system: str
    cpu: str
    cores: int
    instructions: tuple[str, ...]
    memory_total: int
    memory_free: int
    gpus: tuple[Gpu, ...]
    llama: LlamaBuild | None
    extras: dict[str, str]
    """Versions of those of `EXTRAS` that are installed."""
    torch_has_cuda: bool = False
    """The torch that is installed can use NVIDIA's GPUs."""


def probe() -> Hardware:
    """Return what this machine has. What cannot be found out is left out, never an error."""
    total, free = memory()
    llama = llama_build()
    gpus = (*_nvidia(), *_apple(total, free))
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cores=usable_cores(),
        instructions=_instructions(),
        memory_total=total,
        memory_free=free,
        gpus=gpus or (llama.gpus if llama else ()),
        llama=llama,
        extras={name: found for name in EXTRAS if (found := _version(name)) is not None},
        torch_has_cuda=_torch_has_cuda(),
    )


def usable_by_llama(machine: Hardware) -> Hardware:
    """Return the machine with the GPUs that the installed llama.cpp can use."""
    return replace(machine, gpus=machine.llama.gpus if machine.llama else ())


def usable_by_torch(machine: Hardware) -> Hardware:
    """Return the machine with the GPUs that the installed torch was built for."""
    backends = ("cuda",) * machine.torch_has_cuda + ("metal",) * ("torch" in machine.extras)
    return replace(machine, gpus=tuple(g for g in machine.gpus if g.backend in backends))


def usable_cores(root: Path = Path("/")) -> int:
    """Return the physical cores that this process may use, by its affinity and its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    shares = [quota / period for quota, period in _cpu_limits(root)]
    return max(1, min(allowed or 1, physical or allowed or 1, *(math.ceil(s) for s in shares)))


def memory(root: Path = Path("/")) -> tuple[int, int]:
    """Return the bytes of memory that this process may use, and of these the free ones."""
    system = psutil.virtual_memory()
    total, free = system.total, system.available
    for limit, used in _memory_limits(root):
        total, free = min(total, limit), min(free, limit - used)
    return total, max(0, free)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, the innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = base / path.strip("/")
        # Within a container its own group is mounted at the base, under another path.
        yield from (f for f in (folder, *folder.parents) if f == base or base in f.parents)


def _numbers(file: Path) -> list[int | None]:
    """Return the numbers of a file, `None` for "max"; empty if it cannot be read."""
    try:
        return [None if w == "max" else int(w) for w in file.read_text().split()]
    except (OSError, ValueError):
        return []


def _cpu_limits(root: Path) -> Iterator[tuple[int, int]]:
    for group in _groups(root, "cpu"):
        found = _numbers(group / "cpu.max") or [
            *_numbers(group / "cpu.cfs_quota_us"), *_numbers(group / "cpu.cfs_period_us")
        ]  # fmt: skip
        if len(found) == 2 and found[0] and found[0] > 0 and found[1]:
            yield found[0], found[1]


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    for group in _groups(root, "memory"):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            total, used = _numbers(group / limit), _numbers(group / usage)
            if total and total[0] is not None and used and used[0] is not None:
                # Cached file pages are given back when memory is wanted.
                yield total[0], max(0, used[0] - _cached(group / "memory.stat"))


def _cached(file: Path) -> int:
    """Return the bytes of file pages, in the groups below too (which version 1 names apart)."""
    try:
        rows = dict(line.split(None, 1) for line in file.read_text().splitlines())
        return sum(
            int(rows.get(f"total_{kind}", rows.get(kind, "0")))
            for kind in ("active_file", "inactive_file")
        )
    except (OSError, ValueError):
        return 0


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_name() -> str:
    """Return the processor's name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _instructions() -> tuple[str, ...]:
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def _nvidia() -> list[Gpu]:
    """Return NVIDIA's devices by NVML, which needs the driver only."""
    import pynvml

    gpus = []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    with contextlib.suppress(pynvml.NVMLError):
        driver = pynvml.nvmlSystemGetDriverVersion()
        for i in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # one of them may tell nothing
                device = pynvml.nvmlDeviceGetHandleByIndex(i)
                if not _visible(i, pynvml.nvmlDeviceGetUUID(device)):
                    continue
                sizes = pynvml.nvmlDeviceGetMemoryInfo(device)
                gpus.append(
                    Gpu(
                        pynvml.nvmlDeviceGetName(device), "cuda", sizes.total, sizes.free,
                        tuple(pynvml.nvmlDeviceGetCudaComputeCapability(device)), driver,
                    )
                )  # fmt: skip
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return gpus


def _visible(index: int, uuid: str) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES lets this process use the device."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return True
    parts = [part.strip() for part in named.split(",") if part.strip()]
    return any(part == str(index) or (len(part) > 4 and uuid.startswith(part)) for part in parts)


def _apple(total: int, free: int) -> Iterator[Gpu]:
    """Yield Apple's GPU, which shares the CPU's memory."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        # Metal lets a process keep about three quarters of the memory resident on the GPU.
        usable = total * 3 // 4
        yield Gpu(cpu_name(), "metal", usable, min(free, usable), shared=True)


def llama_build() -> LlamaBuild | None:
    """Return what the installed llama-cpp-python is; it is loaded only where it can use a GPU."""
    found = importlib.util.find_spec("llama_cpp")
    installed = _version("llama-cpp-python")
    if found is None or found.origin is None or installed is None:
        return None
    named = os.environ.get("LLAMA_CPP_LIB_PATH")
    folder = Path(named) if named else Path(found.origin).parent / "lib"
    try:
        files = [f.name for f in folder.iterdir() if "ggml-" in f.name]
    except OSError:
        files = []
    parts = {name.split("ggml-", 1)[1].split(".")[0].split("-")[0] for name in files} - {"base"}
    gpus: tuple[Gpu, ...] = ()
    if parts - _CPU_BACKENDS:
        from erank_lite.machine.llama_library import gpu_devices

        gpus = tuple(
            Gpu(name, "llama.cpp", total, free, shared=shared)
            for name, total, free, shared in gpu_devices()
        )
    return LlamaBuild(installed, tuple(sorted(parts)), gpus)


def _torch_has_cuda() -> bool:
    """Return whether torch was built for CUDA, by the library that lies in it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    folder = Path(found.origin).parent / "lib"
    return any((folder / name).is_file() for name in ("libtorch_cuda.so", "torch_cuda.dll"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
