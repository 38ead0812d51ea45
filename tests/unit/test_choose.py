"""Which engine runs what, and as which type, on machines of every kind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.command import is_a_clear_line, run_in_process
from support.machines import CPU, METAL, machine

from erank_lite import ErankLiteError, InputError, ModelError, Reranker
from erank_lite.engines import engine_class
from erank_lite.engines.choose import plan
from erank_lite.machine.hardware import Hardware
from erank_lite.machine.shapes import PUBLISHED, WEIGHT_BYTES, Format, ModelInfo, ModelShape
from erank_lite.models.inspect import inspect
from erank_lite.models.ref import TYPES, ModelRef

B4, B14, B32 = PUBLISHED


def published(name: str) -> ModelInfo:
    return ModelInfo("checkpoint", None, lambda kind: ModelShape.published(name, kind))


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
    choice = plan(published(name), hardware)
    assert (choice.engine, choice.type) == (engine, kind), what
    assert choice.reasons and choice.complete and choice.sequences


def test_what_was_passed_over_is_told_with_the_reason() -> None:
    small = plan(published(B4), machine(64, 8, build=CPU, torch="cuda"))
    assert "does not fit" in small.alternatives[0] and "Transformers" in small.alternatives[0]
    bare = replace(machine(64, 24, build=CPU, torch="cuda"), extras={"torch": "2.13.0"})
    assert "erank-lite[reference]" in plan(published(B4), bare).alternatives[0]
    asked = plan(published(B4), bare, "transformers").reasons[-1]
    assert asked == "not installed: transformers, accelerate; pip install 'erank-lite[reference]'"
    large = plan(published(B4), machine(64, 24, build=CPU, torch="cuda"))
    assert "built without" in large.alternatives[0]


def test_a_type_does_not_change_with_what_is_free() -> None:
    for busy in (0, 5, 20):
        assert plan(published(B4), machine(64, 24, busy=busy)).type == "Q8_0"


def test_a_wish_is_kept() -> None:
    hardware = machine(64, 24, torch="cuda")
    for engine in ("llama.cpp", "transformers"):
        choice = plan(published(B4), hardware, engine)
        assert choice.engine == engine and "as asked for" in choice.reasons[0]


@pytest.mark.parametrize(
    ("form", "engine"),
    [("checkpoint", "gptq"), ("checkpoint", "remote"), ("gptq", "llama.cpp"), ("bundled", "gptq"),
     ("gptq", "transformers"), ("gguf", "transformers"), ("server", "llama.cpp")],
)  # fmt: skip
def test_an_engine_that_does_not_read_the_model_is_refused(form: Format, engine: str) -> None:
    with pytest.raises(
        InputError, match=f"the {engine} engine runs .*, and the model is .*\nhint: leave"
    ):
        plan(ModelInfo(form), machine(64), engine)


def test_what_is_on_offer_is_told_by_the_name(tmp_path: Path, tiny_gguf: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain")
    quantized = write_checkpoint(
        tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4}
    )
    settings = {"bits": 4, "group_size": 128, "desc_act": False}
    shouted = write_checkpoint(
        tmp_path / "shouted", quantization_config=settings | {"quant_method": "GPTQ"}
    )
    unnamed = write_checkpoint(tmp_path / "unnamed", quantization_config=settings)
    old = write_checkpoint(tmp_path / "old")
    (old / "quantize_config.json").write_text('{"bits": 4, "group_size": 128}')
    for name, form in (
        (plain, "checkpoint"),
        (quantized, "gptq"),
        (shouted, "gptq"),
        (unnamed, "gptq"),
        (old, "gptq"),
        (tiny_gguf, "gguf"),
        (f"{plain}:Q8_0", "gguf"),
        ("erank-tiny", "bundled"),
        ("Alibaba-NLP/ERank-4B", "checkpoint"),
        ("Alibaba-NLP/ERank-4B:Q6_K", "gguf"),
        ("OWNER/NAME/file.gguf", "gguf"),
        ("http://127.0.0.1:8000", "server"),
        ("HTTPS://host/v1", "server"),
    ):
        assert inspect(ModelRef.parse(name)).format == form, name
    erank = inspect(ModelRef.parse("Alibaba-NLP/ERank-14B"))
    assert erank.shape is not None and erank.shape("Q4_K_M").layers == 40
    for name in ("nosuch.gguf", "ftp://x", "erank-tiny:Q9", "erank-tiny:", f"{quantized}:Q4_K_M"):
        with pytest.raises(ErankLiteError):
            inspect(ModelRef.parse(name))


def test_expected_sizes_are_near_the_published_ones() -> None:
    config = {
        "num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": True,
    }  # fmt: skip
    for kind in ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"):
        expected = ModelShape.from_config(config, kind, 4096)
        exact = ModelShape.published(B4, kind)
        assert expected.size == pytest.approx(exact.size, rel=0.02)
        assert replace(expected, size=0, layer_sizes=(), output_size=0) == replace(
            exact, size=0, layer_sizes=(), output_size=0
        )
    assert set(TYPES) == WEIGHT_BYTES.keys()  # a plan can be made for every type
    with pytest.raises(ModelError, match="hidden_size"):
        ModelShape.from_config(config | {"hidden_size": "wide"}, "Q8_0", 4096)


def test_a_missing_extra_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("erank_lite.engines.torch.transformers", "erank_lite.engines.torch.engine",
                 "erank_lite.engines.torch.kv_cache"):  # fmt: skip
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModelError, match=r"pip install 'erank-lite\[reference\]'"):
        engine_class("transformers")


def test_an_option_of_another_engine_is_one_line(tiny_gguf: Path) -> None:
    with pytest.raises(InputError, match=r"an option of transformers, not of llama.cpp") as raised:
        Reranker(tiny_gguf, dtype="float32")
    assert "kv_type" in str(raised.value.hint)
    with pytest.raises(InputError, match="did you mean gptq"):
        Reranker(tiny_gguf, engine="gptqq")


def test_the_command() -> None:
    done = run_in_process("plan", "Alibaba-NLP/ERank-4B", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] and found["reasons"] and found["memory"] > 0
    assert b"ERank-4B" in run_in_process("plan", "Alibaba-NLP/ERank-4B").stdout
    assert b"GiB of memory" in run_in_process("plan", "Alibaba-NLP/ERank-4B:Q6_K").stdout
    asked = run_in_process("plan", "Alibaba-NLP/ERank-4B", "-o", "threads=1", "--json")
    assert json.loads(asked.stdout)["threads"] == 1
    for arguments in (
        ["no-such-thing"], ["erank-tiny", "--engine", "vllm"], ["erank-tiny", "-o", "colour=red"],
    ):  # fmt: skip
        is_a_clear_line(run_in_process("plan", *arguments))
