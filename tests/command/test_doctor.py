"""`erank-lite doctor`, on this machine and on made-up ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from erank_lite.cli import doctor
from erank_lite.machine.hardware import Gpu, LlamaBuild, probe
from erank_lite.machine.planning import PUBLISHED

GIB = 1 << 30
CARD = Gpu("RTX 4060", "cuda", 8 * GIB, 7 * GIB, (8, 9), "580.1")


def test_this_machine() -> None:
    command = str(Path(sys.executable).with_name("erank-lite"))
    done = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["hardware"]["cores"] >= 1 and "cpu" in found["hardware"]["llama"]["backends"]
    assert set(found["plans"]) == set(PUBLISHED)
    assert all(p["reasons"] and p["plan"]["memory"] for p in found["plans"].values())


def test_what_is_installed_may_still_not_load() -> None:
    command = str(Path(sys.executable).with_name("erank-lite"))
    done = subprocess.run([command, "doctor", "--json", "--deep"], capture_output=True, text=True)
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
    machine = replace(probe(), gpus=gpus, llama=LlamaBuild("0.3.36", backends), memory_free=memory)
    patch.setattr("erank_lite.load.probe", lambda: machine)
    doctor.run(as_json=False, deep=False)
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
    monkeypatch.setattr("erank_lite.load.probe", lambda: replace(probe(), gpus=(CARD,), llama=None))
    doctor.run(as_json=False, deep=False)
    text = capsys.readouterr().out
    assert "pip install llama-cpp-python" in text and "CMAKE_ARGS" not in text


def test_gpus_of_other_makers_are_asked_of_llama_cpp(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    radeon = Gpu("Radeon RX 7600", "llama.cpp", 8 * GIB, 7 * GIB)
    monkeypatch.setattr("erank_lite.engines.llama_cpp.bindings.gpu_devices", lambda: [radeon])
    text = printed(capsys, monkeypatch, (), ("cpu", "vulkan"))
    assert "Radeon RX 7600" in text
    line = next(line for line in text.splitlines() if line.startswith("ERank-4B "))
    assert line.split()[1:5] == ["llama.cpp", "Q4_K_M", "yes", "37"]
