"""Machines that are made up."""

from __future__ import annotations

from erank_lite.machine.hardware import Gpu, Hardware, LlamaBuild

GIB = 1 << 30
CPU, CUDA, METAL = ("cpu",), ("cpu", "cuda"), ("cpu", "metal")


def machine(
    memory: float, *gpus: float, build: tuple[str, ...] = CUDA, torch: str = "none", busy: float = 0
) -> Hardware:
    """Return a machine by its memory and that of each GPU, in GiB.

    Args:
        memory: of the CPU.
        gpus: of each card, or of Apple's GPU where the build is for Metal.
        build: what llama.cpp was built for.
        torch: "none", "cpu" or "cuda".
        busy: GiB of each card that other programs hold.
    """
    backend = "metal" if build == METAL else "cuda"
    cards = tuple(
        Gpu(f"{g} GB", backend, int(g * GIB), int((g - busy) * 0.95 * GIB),
            shared=backend == "metal")
        for g in gpus
    )  # fmt: skip
    return Hardware(
        system="made up", cpu="made up", cores=8, instructions=(),
        memory_total=int(memory * GIB), memory_free=int(0.85 * memory * GIB), gpus=cards,
        llama=LlamaBuild("0.3.36", build, cards if backend in build else ()),
        torch_has_cuda=torch == "cuda",
        extras=dict.fromkeys(("torch", "transformers", "accelerate")[: 3 * (torch != "none")], "1"),
    )  # fmt: skip
