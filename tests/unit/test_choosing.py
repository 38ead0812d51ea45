"""Which engine runs what, and as which type, on machines of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint

from erank_lite import ErankLiteError, InputError, ModelError, Reranker
from erank_lite.engines import engine_class
from erank_lite.engines.choosing import Form, Offer, choose
from erank_lite.load import offer
from erank_lite.machine.hardware import Gpu, Hardware, LlamaBuild
from erank_lite.machine.planning import PUBLISHED, ModelShape

GIB = 1 << 30
B4, B14, B32 = PUBLISHED
CPU, CUDA, METAL = ("cpu",), ("cpu", "cuda"), ("cpu", "metal")


def machine(
    memory: float, *gpus: float, build: tuple[str, ...] = CUDA, torch: str = "none", busy: float = 0
) -> Hardware:
    """Return a machine by its memory and that of each GPU, in GiB.

    Args:
        memory: of the processor.
        gpus: of each card, or of Apple's GPU where the build is for Metal.
        build: what llama.cpp was built for.
        torch: "none", "cpu" or "cuda".
        busy: GiB of each card that other programs hold.
    """
    kind = "metal" if build == METAL else "cuda"
    return Hardware(
        system="made up", processor="made up", cores=8, instructions=(),
        memory_total=int(memory * GIB), memory_free=int(0.85 * memory * GIB),
        gpus=tuple(
            Gpu(f"{g} GB", kind, int(g * GIB), int((g - busy) * 0.95 * GIB), shared=kind == "metal")
            for g in gpus
        ),
        llama=LlamaBuild("0.3.36", build), torch_has_cuda=torch == "cuda",
        extras=dict.fromkeys(("torch", "transformers", "accelerate")[: 3 * (torch != "none")], "1"),
    )  # fmt: skip


def published(name: str) -> Offer:
    return Offer("checkpoint", lambda kind: ModelShape.published(name, kind))


@pytest.mark.parametrize(
    ("what", "hardware", "name", "engine", "kind"),
    [
        ("a laptop of 8 GB", machine(8), B4, "llama.cpp", "Q4_K_M"),
        ("a workstation without a GPU", machine(256), B4, "llama.cpp", "Q4_K_M"),
        ("a MacBook of 16 GB", machine(16, 12, build=METAL), B4, "llama.cpp", "Q4_K_M"),
        ("a MacBook of 64 GB", machine(64, 48, build=METAL), B14, "llama.cpp", "Q8_0"),
        ("6 GB card", machine(16, 6), B4, "llama.cpp", "Q4_K_M"),
        ("12 GB card", machine(32, 12), B4, "llama.cpp", "Q4_K_M"),
        ("16 GB card", machine(32, 16), B4, "llama.cpp", "Q8_0"),
        ("24 GB card", machine(64, 24), B4, "llama.cpp", "Q8_0"),
        ("24 GB card that is in use", machine(64, 24, busy=15), B4, "llama.cpp", "Q8_0"),
        ("24 GB card, the middle model", machine(64, 24), B14, "llama.cpp", "Q6_K"),
        ("24 GB card, the large model", machine(64, 24), B32, "llama.cpp", "Q4_K_M"),
        ("two cards of 24 GB", machine(64, 24, 24), B32, "llama.cpp", "Q6_K"),
        ("an H100", machine(128, 80), B32, "llama.cpp", "Q8_0"),
        ("a card that nothing can use", machine(64, 24, build=CPU), B4, "llama.cpp", "Q4_K_M"),
        ("torch without CUDA", machine(64, 24, build=CPU, torch="cpu"), B4, "llama.cpp", "Q4_K_M"),
        ("only torch can use it", machine(64, 24, build=CPU, torch="cuda"), B4, "transformers",
         None),
        ("only torch can, but it is small", machine(64, 8, build=CPU, torch="cuda"), B4,
         "llama.cpp", "Q4_K_M"),
        ("only torch can, but the model is large", machine(64, 24, build=CPU, torch="cuda"), B32,
         "llama.cpp", "Q4_K_M"),
        ("both can", machine(64, 24, torch="cuda"), B4, "llama.cpp", "Q8_0"),
        ("an H100 that only torch can use", machine(128, 80, build=CPU, torch="cuda"), B14,
         "transformers", None),
    ],
)  # fmt: skip
def test_machines(what: str, hardware: Hardware, name: str, engine: str, kind: str | None) -> None:
    choice = choose(published(name), hardware)
    assert (choice.engine, choice.type) == (engine, kind), what
    assert choice.reasons and choice.plan is not None


def test_what_was_passed_over_is_told_with_the_reason() -> None:
    small = choose(published(B4), machine(64, 8, build=CPU, torch="cuda"))
    assert "does not fit" in small.refused[0] and "Transformers" in small.refused[0]
    bare = replace(machine(64, 24, build=CPU, torch="cuda"), extras={"torch": "2.13.0"})
    assert "erank-lite[reference]" in choose(published(B4), bare).refused[0]
    large = choose(published(B4), machine(64, 24, build=CPU, torch="cuda"))
    assert "built without" in large.refused[0]


def test_a_type_does_not_change_with_what_is_free() -> None:
    for busy in (0, 5, 20):
        assert choose(published(B4), machine(64, 24, busy=busy)).type == "Q8_0"


def test_a_wish_is_kept() -> None:
    hardware = machine(64, 24, torch="cuda")
    for engine in ("llama.cpp", "transformers"):
        choice = choose(published(B4), hardware, engine)
        assert choice.engine == engine and "as asked for" in choice.reasons[0]


@pytest.mark.parametrize(
    ("form", "engine"),
    [("checkpoint", "gptq"), ("checkpoint", "remote"), ("gptq", "llama.cpp"), ("package", "gptq"),
     ("gptq", "transformers"), ("gguf", "transformers"), ("server", "llama.cpp")],
)  # fmt: skip
def test_an_engine_that_does_not_read_the_model_is_refused(form: Form, engine: str) -> None:
    with pytest.raises(
        InputError, match=f"the {engine} engine runs .*, and the model is .*: leave"
    ):
        choose(Offer(form), machine(64), engine)


def test_what_is_on_offer_is_told_by_the_name(tmp_path: Path, tiny_gguf: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain")
    quantized = write_checkpoint(
        tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4}
    )
    old = write_checkpoint(tmp_path / "old")
    (old / "quantize_config.json").write_text('{"bits": 4, "group_size": 128}')
    for name, form in (
        (plain, "checkpoint"),
        (quantized, "gptq"),
        (old, "gptq"),
        (tiny_gguf, "gguf"),
        (f"{plain}:Q8_0", "gguf"),
        ("erank-tiny", "package"),
        ("Alibaba-NLP/ERank-4B", "checkpoint"),
        ("Alibaba-NLP/ERank-4B:Q6_K", "gguf"),
        ("OWNER/NAME/file.gguf", "gguf"),
        ("http://127.0.0.1:8000", "server"),
        ("HTTPS://host/v1", "server"),
    ):
        assert offer(name).form == form, name
    assert offer("Alibaba-NLP/ERank-14B").facts("Q4_K_M").layers == 40  # type: ignore[misc]
    for name in ("nosuch.gguf", "ftp://x", "erank-tiny:Q9", "erank-tiny:", f"{quantized}:Q4_K_M"):
        with pytest.raises(ErankLiteError):
            offer(name)


def test_expected_sizes_are_near_the_published_ones() -> None:
    config = {
        "num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": True,
    }  # fmt: skip
    for kind in ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"):
        expected = ModelShape.of_config(config, kind, 4096)
        exact = ModelShape.published(B4, kind)
        assert expected.size == pytest.approx(exact.size, rel=0.02)
        assert replace(expected, size=0, layer_sizes=(), output_size=0) == replace(
            exact, size=0, layer_sizes=(), output_size=0
        )
    with pytest.raises(ModelError, match="hidden_size"):
        ModelShape.of_config(config | {"hidden_size": "wide"}, "Q8_0", 4096)


def test_a_missing_extra_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("erank_lite.engines.torch.transformers", "erank_lite.engines.torch.engine",
                 "erank_lite.engines.torch.kv_cache"):  # fmt: skip
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModelError, match=r"pip install 'erank-lite\[reference\]'"):
        engine_class("transformers")


def test_an_option_of_another_engine_is_one_line(tiny_gguf: Path) -> None:
    with pytest.raises(InputError, match=r"llama.cpp engine has no option dtype"):
        Reranker(tiny_gguf, dtype="float32")
    with pytest.raises(InputError, match="did you mean 'gptq'"):
        Reranker(tiny_gguf, engine="gptqq")


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = str(Path(sys.executable).with_name("erank-lite"))
    return subprocess.run([command, "plan", *arguments], capture_output=True, text=True)


def test_the_command() -> None:
    done = plan("Alibaba-NLP/ERank-4B", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] and found["reasons"] and found["plan"]["memory"] > 0
    assert "ERank-4B" in plan("Alibaba-NLP/ERank-4B").stdout
    assert "GiB of memory" in plan("Alibaba-NLP/ERank-4B:Q6_K").stdout
    for arguments in (["no-such-thing"], ["erank-tiny", "--engine", "vllm"]):
        done = plan(*arguments)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
