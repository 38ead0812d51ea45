"""What the machine has, on made-up machines and on this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from erank_lite.machine import hardware


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Write a made-up /proc and /sys, and return their root."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_groups_is_the_whole_machine(tmp_path: Path) -> None:
    total, free = hardware.memory(tmp_path)
    assert total == psutil.virtual_memory().total
    assert 0 < free <= total
    assert 1 <= hardware.usable_cores(tmp_path) <= (psutil.cpu_count() or 1)


def test_memory_of_a_container_of_version_2(tmp_path: Path) -> None:
    root = machine(
        tmp_path, "0::/\n",
        {
            "sys/fs/cgroup/memory.max": "1000000\n",
            "sys/fs/cgroup/memory.current": "700000\n",
            "sys/fs/cgroup/memory.stat": "anon 300000\ninactive_file 400000\n",
        },
    )  # fmt: skip
    assert hardware.memory(root) == (1_000_000, 700_000)


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path, "0::/slice/job\n",
        {
            "sys/fs/cgroup/slice/job/memory.max": "max\n",
            "sys/fs/cgroup/slice/job/memory.current": "5\n",
            "sys/fs/cgroup/slice/memory.max": "900000\n",
            "sys/fs/cgroup/slice/memory.current": "100000\n",
        },
    )  # fmt: skip
    assert hardware.memory(root) == (900_000, 800_000)


def test_memory_of_a_container_of_version_1(tmp_path: Path) -> None:
    """Its own group lies at the base, though its path is that of the host."""
    root = machine(
        tmp_path, "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
            "sys/fs/cgroup/memory/memory.stat": (
                "inactive_file 7\ntotal_inactive_file 300000\ntotal_active_file 200000\n"
            ),
        },
    )  # fmt: skip
    assert hardware.memory(root) == (2_000_000, 1_000_000)


def test_more_used_than_allowed_is_nothing_free(tmp_path: Path) -> None:
    root = machine(
        tmp_path, "0::/\n",
        {"sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "20\n"},
    )  # fmt: skip
    assert hardware.memory(root) == (10, 0)


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/memory.max": "9223372036854771712\n", "sys/fs/cgroup/memory.current": "1"},
        {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1\n"},
        {"sys/fs/cgroup/memory.max": "lots\n", "sys/fs/cgroup/memory.current": "1\n"},
        {"sys/fs/cgroup/memory.max": "\n", "sys/fs/cgroup/memory.current": "\n"},
        {"sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"sys/fs/cgroup/cpu.max": "0 0\n"},
        {
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "1\n",
            "sys/fs/cgroup/memory.stat": "inactive_file many\n",
        },
    ],
)
def test_no_limit_and_nonsense_are_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    root = machine(tmp_path, "0::/\nnonsense\n", files)
    assert hardware.memory(root)[0] == psutil.virtual_memory().total
    assert hardware.usable_cores(root) == hardware.usable_cores(tmp_path / "none")


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "100000 100000\n"}),
        (
            "3:cpu,cpuacct:/x\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
)
def test_cores_of_a_container(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert hardware.usable_cores(machine(tmp_path, cgroup, files)) == 1


def test_nvidia_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    sizes = SimpleNamespace(total=24 << 30, free=20 << 30)
    for name, result in {
        "nvmlInit": None, "nvmlShutdown": None, "nvmlSystemGetDriverVersion": "580.1",
        "nvmlDeviceGetCount": 1, "nvmlDeviceGetUUID": "GPU-12345678",
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetMemoryInfo": sizes, "nvmlDeviceGetName": "NVIDIA GeForce RTX 4090",
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
    }.items():  # fmt: skip
        monkeypatch.setattr(pynvml, name, lambda *_, result=result: result)
    (gpu,) = hardware.probe().gpus
    assert gpu == hardware.Gpu(
        "NVIDIA GeForce RTX 4090", "cuda", 24 << 30, 20 << 30, (8, 9), "580.1"
    )
    for visible, count in (("", 0), ("1", 0), ("0", 1), ("GPU-1234", 1), ("GPU-9", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert len(hardware.probe().gpus) == count, visible


def test_a_broken_driver_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def broken(*_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", broken)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", broken)
    assert hardware.probe().gpus == ()


def test_an_apple_machine_shares_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    (gpu,) = hardware.probe().gpus
    total, free = hardware.memory()
    assert gpu.backend == "metal" and gpu.total == total * 3 // 4
    assert abs(gpu.free - min(free, gpu.total)) < 1 << 30


@pytest.mark.parametrize(
    ("files", "backends"),
    [
        (["libggml-base.so", "libggml-cpu.so", "libggml.so", "libllama.so"], ("cpu",)),
        (["libggml-base.so", "libggml-cpu.so", "libggml-cuda.so"], ("cpu", "cuda")),
        (["libggml-base.dylib", "libggml-cpu.dylib", "libggml-metal.dylib"], ("cpu", "metal")),
        (["ggml-base.dll", "ggml-cpu-haswell.dll", "ggml-vulkan.dll"], ("cpu", "vulkan")),
        ([], ()),
    ],
)
def test_what_llama_cpp_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], backends: tuple[str, ...]
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    build = hardware.llama_build()
    assert build is not None and build.backends == backends


def test_the_installed_build_has_a_processor_backend() -> None:
    build = hardware.llama_build()
    assert build is not None and "cpu" in build.backends


def test_looking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from erank_lite.machine.hardware import probe; probe(); "
        "heavy = {'torch', 'transformers', 'llama_cpp', 'numpy', 'gptqmodel'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
