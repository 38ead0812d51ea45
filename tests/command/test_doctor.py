"""`erank-lite doctor`, on this machine and on made-up ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.command import run_in_process

from erank_lite.cli import doctor
from erank_lite.machine.hardware import Gpu, LlamaBuild, probe
from erank_lite.machine.shapes import PUBLISHED

GIB = 1 << 30
CARD = Gpu("RTX 4060", "cuda", 8 * GIB, 7 * GIB, (8, 9), "580.1")


def test_this_machine() -> None:
    done = run_in_process("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["hardware"]["cores"] >= 1 and "cpu" in found["hardware"]["llama"]["backends"]
    assert set(found["plans"]) == set(PUBLISHED)
    assert all(p["reasons"] and p["memory"] for p in found["plans"].values())


def test_what_is_installed_may_still_not_load() -> None:
    done = run_in_process("doctor", "--json", "--deep")
    found = json.loads(done.stdout)["loaded"]
    assert found["llama_cpp"].startswith("loads: GPU:")
    for name in ("torch", "transformers", "gptqmodel"):
        assert found[name].startswith(("loads: ", "not installed", "does not load: ")), found
    assert doctor._loaded("raise OSError('a library is missing')") == (
        "does not load: OSError: a library is missing"
    )
    assert doctor._loaded("import no_such_package") == "not installed"


def printed(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...],
    backends: tuple[str, ...], memory: int = 28 * GIB,
) -> str:  # fmt: skip
    usable = tuple(gpu for gpu in gpus if gpu.backend in (*backends, "llama.cpp"))
    llama = LlamaBuild("0.3.36", backends, usable)
    machine = replace(probe(), gpus=gpus, llama=llama, memory_free=memory)
    patch.setattr("erank_lite.machine.hardware.probe", lambda: machine)
    doctor.doctor(as_json=False, deep=False)
    return capsys.readouterr().out


def test_a_build_without_cuda_is_told_how_to_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, monkeypatch, (CARD,), ("cpu",))
    assert 'CMAKE_ARGS="-DGGML_CUDA=on" pip install' in text
    line = next(line for line in text.splitlines() if line.startswith("ERank-4B "))
    assert line.split()[1:5] == ["llama.cpp", "Q4_K_M", "yes", "0"]


def test_a_build_with_cuda_uses_the_card(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, monkeypatch, (CARD,), ("cpu", "cuda"))
    assert "build it again" not in text and "compute capability 8.9" in text
    line = next(line for line in text.splitlines() if line.startswith("ERank-4B "))
    assert line.split()[1:5] == ["llama.cpp", "Q4_K_M", "yes", "37"]


def test_too_little_memory_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, monkeypatch, (), ("cpu",), memory=2 * GIB)
    assert "2.0 GiB is free" in text and "erank-tiny" in text


def test_no_llama_cpp_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(probe(), gpus=(CARD,), llama=None)
    monkeypatch.setattr("erank_lite.machine.hardware.probe", lambda: machine)
    doctor.doctor(as_json=False, deep=False)
    text = capsys.readouterr().out
    assert "pip install llama-cpp-python" in text and "CMAKE_ARGS" not in text


def test_a_gpu_that_only_llama_cpp_lists_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    radeon = Gpu("Radeon RX 7600", "llama.cpp", 8 * GIB, 7 * GIB)
    text = printed(capsys, monkeypatch, (radeon,), ("cpu", "vulkan"))
    assert "Radeon RX 7600" in text
    line = next(line for line in text.splitlines() if line.startswith("ERank-4B "))
    assert line.split()[1:5] == ["llama.cpp", "Q4_K_M", "yes", "37"]
