"""Checkpoints become GPTQ checkpoints: what is written, who reads it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.answers import agreement, everyday, in_order, results_of
from support.checkpoints import write_checkpoint
from support.command import COMMAND, is_a_clear_line, json_lines, run, said
from support.recording import run as run_engine
from support.tokenizers import ADDED

from erank_lite.convert.calibration import DEFAULT, SelfGeneratedCalibration, digest, read_examples
from erank_lite.convert.gptq.convert import convert_gptq
from erank_lite.errors import ErankLiteError, InputError, ModelError
from erank_lite.load import engine_for_calibration, load
from erank_lite.models.checkpoint import BUNDLED_FOLDER, Checkpoint
from erank_lite.reranker import Reranker
from erank_lite.types import Prompt

pytestmark = pytest.mark.gptq

SIZE = 256 + len(ADDED) + 1
# Largest difference of a logit between Transformers and GPTQModel on the same kernel, and between
# kernels, which multiply in 16 bits in another order.
SAME, KERNELS = 0.0, 0.15
TRIPLES = [
    {"instruction": "beir", "query": "how bread keeps", "document": "A box keeps SECRETLOAF soft."},
    {"instruction": "bright", "query": "why tea cools", "document": "Heat goes into the air."},
]


def random_ids(count: int = 12, length: int = 60) -> list[list[int]]:
    draw = random.Random(0)
    return [draw.choices(range(SIZE), k=length + i) for i in range(count)]


def small(folder: Path, **options: Any) -> Path:
    return write_checkpoint(folder, width=128, ffn=256, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("source") / "m", tied=False, inline_template=False)


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    out = source.with_name("made")
    convert_gptq(source, out, samples=random_ids(), device="cpu")
    assert sorted(p.name for p in out.parent.iterdir()) == ["m", "made"]
    return out


@pytest.fixture
def command_cache(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"ERANK_LITE_CACHE": str(tmp_path / "cache")}


def logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float()


def in_transformers(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", **options)


def in_gptqmodel(folder: Path, backend: str = "auto") -> Any:
    import torch
    from gptqmodel import BACKEND, GPTQModel

    torch._dynamo.config.disable = True  # compiling takes half a minute
    return GPTQModel.load(str(folder), device="cpu", backend=BACKEND(backend)).model


def test_transformers_and_gptqmodel_read_the_same_numbers(made: Path) -> None:
    from transformers import GPTQConfig

    kernel = "gptq_torch_aten"
    ids = random_ids(1)[0]
    theirs = logits(in_gptqmodel(made, kernel), ids)
    plain = logits(
        in_transformers(made, quantization_config=GPTQConfig(bits=4, backend=kernel)), ids
    )
    assert (plain - theirs).abs().max().item() <= SAME
    assert (logits(in_gptqmodel(made, "gptq_torch"), ids) - theirs).abs().max().item() <= KERNELS


def chosen(model: Any, ids: list[int], tokens: list[int]) -> Any:
    """Return the log-probabilities of `tokens` after `ids`, all computed at once."""
    import torch

    probable = torch.log_softmax(logits(model, [*ids, *tokens]), -1)[len(ids) - 1 : -1]
    return probable[range(len(tokens)), tokens]


def by_the_engine(folder: Path, ids: list[int], count: int) -> tuple[list[int], Any]:
    """Return the tokens that the engine writes and their log-probabilities."""
    import torch

    with load(folder, "gptq", {"device": "cpu"}) as engine:
        recorder = run_engine(engine, [Prompt(tuple(ids), 0)], [count])[0]
    return recorder.tokens, torch.tensor(recorder.logprobs)


def exact(folder: Path) -> Any:
    """Return the model with its quantized weights as they are, multiplied in 32 bits."""
    import torch
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    model = in_gptqmodel(folder, "gptq_torch")
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseQuantLinear):
            weight = module.dequantize_weight().T.float().contiguous()
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight.data = weight
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
    return model.float()


def test_the_engine_computes_the_same_as_gptqmodel(made: Path) -> None:
    ids = random_ids(1)[0]
    tokens, ours = by_the_engine(made, ids, 12)
    theirs = chosen(in_gptqmodel(made, "gptq_torch_aten"), ids, tokens)
    assert (ours - theirs).abs().max() < KERNELS


def test_qwen2_is_quantized_and_run(source: Path, tmp_path: Path) -> None:
    """With the biases of queries, keys and values, which are not quantized."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=SIZE + 3, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
        max_position_embeddings=2048, eos_token_id=256, bos_token_id=256,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    folder, out = tmp_path / "rank1", tmp_path / "rank1-gptq"
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder)
    convert_gptq(folder, out, samples=random_ids(), device="cpu")
    whole, kept = model.state_dict(), in_gptqmodel(out, "gptq_torch_aten").state_dict()
    biases = [name for name in whole if name.endswith("bias")]
    assert len(biases) == 6
    for name in biases:
        assert torch.allclose(kept[name].float(), whole[name].float(), atol=1e-2), name
    ids = random_ids(1)[0]
    tokens, ours = by_the_engine(out, ids, 12)
    theirs = chosen(in_gptqmodel(out, "gptq_torch_aten"), ids, tokens)
    assert (ours - theirs).abs().max() < KERNELS


def test_smollm2_is_quantized_and_run(smol: Callable[..., Path], tmp_path: Path) -> None:
    """A trained model of Llama's architecture still knows English, in groups that fit it.

    Through its 30 layers the noise of 16 bits grows: the engine, which goes token by token, may be
    as far from the exact numbers as GPTQModel is with the same kernel, which reads all at once.
    """
    source, out = smol("100MB"), tmp_path / "smol-gptq"
    tokenizer = Checkpoint.open(source).tokenizer()
    triples = read_examples(DEFAULT)[:24]
    samples = [tokenizer.encode(t.document).ids[:200] for t in triples]
    convert_gptq(source, out, group_size=64, samples=samples, device="cpu")
    ids = tokenizer.encode("The capital of France is").ids
    tokens, ours = by_the_engine(out, ids, 24)
    assert "Paris" in tokenizer.decode(tokens[:4])
    true = chosen(exact(out), ids, tokens)
    theirs = chosen(in_gptqmodel(out, "gptq_torch_aten"), ids, tokens)
    assert (ours - true).abs().mean() < 1.5 * (theirs - true).abs().mean()


def test_a_checkpoint_as_autogptq_wrote_it_is_run(made: Path, tmp_path: Path) -> None:
    """Its configuration lies in quantize_config.json alone, and its file is named by its bits."""
    old = tmp_path / "old"
    shutil.copytree(made, old)
    config = json.loads((old / "config.json").read_text())
    quantization = config.pop("quantization_config")
    (old / "config.json").write_text(json.dumps(config))
    kept = {k: quantization[k] for k in ("bits", "group_size", "desc_act", "sym", "damp_percent")
            if k in quantization}  # fmt: skip
    kept |= {"model_file_base_name": "gptq_model-4bit-128g", "true_sequential": True}
    (old / "quantize_config.json").write_text(json.dumps(kept))
    (old / "model.safetensors").rename(old / "gptq_model-4bit-128g.safetensors")
    prompts = [Prompt(tuple(random_ids(1)[0]), 0)]
    texts = []
    for folder in (made, old):
        with load(folder, "gptq", {"device": "cpu"}) as engine:
            texts.append(run_engine(engine, prompts, [10])[0].tokens)
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "awq", "format": "gemm"}, "awq"),
        ({"format": "gptq_v2", "checkpoint_format": "gptq_v2"}, "gptq_v2"),
        ({"bits": 3}, "3 bits"),
        ({"bits": "four"}, "'four' bits"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_not_gptq_of_this_kind_is_refused(
    made: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(made, other)
    for name in ("config.json", "quantize_config.json"):
        content = json.loads((other / name).read_text())
        content.get("quantization_config", content).update(change)
        (other / name).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message) as raised:
        Reranker(other)
    assert "\n" not in raised.value.message + (raised.value.hint or "")


def test_a_checkpoint_that_lacks_a_tensor_is_refused(made: Path, tmp_path: Path) -> None:
    """GPTQModel would take what is missing for random, and say nothing."""
    from safetensors.torch import load_file, save_file

    for name in ("model.layers.1.input_layernorm.weight", "model.layers.0.mlp.up_proj.scales"):
        less = tmp_path / name
        shutil.copytree(made, less)
        tensors = load_file(less / "model.safetensors")
        del tensors[name]
        save_file(tensors, less / "model.safetensors")
        with pytest.raises(ModelError, match=f"lacks the tensor {name}"):
            Reranker(less)


def test_a_half_copied_checkpoint_is_refused(made: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(made, half)
    weights = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="download it again"):
        Reranker(half)
    (half / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        Reranker(half)


def test_a_second_run_gives_the_same_bytes(source: Path, made: Path) -> None:
    again = source.with_name("again")
    convert_gptq(source, again, samples=random_ids(), device="cpu")
    assert files_of(again) == files_of(made)


def test_all_but_the_weights_is_the_sources(source: Path, made: Path) -> None:
    theirs, ours = files_of(source), files_of(made)
    assert set(ours) == {
        "model.safetensors", "config.json", "quantize_config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    for name in ours.keys() - {"model.safetensors", "config.json", "quantize_config.json"}:
        assert ours[name] == theirs[name], name
    config = json.loads(ours["config.json"])
    quantization = config.pop("quantization_config")
    assert config == json.loads(theirs["config.json"])
    assert quantization == json.loads(ours["quantize_config.json"])
    expected = {
        "quant_method": "gptq", "format": "gptq", "checkpoint_format": "gptq", "bits": 4,
        "group_size": 128, "desc_act": False, "sym": True,
    }  # fmt: skip
    assert {key: quantization[key] for key in expected} == expected
    noted = quantization["meta"]["erank_lite"]
    assert noted["source"] == "m"
    assert noted["calibration"]["samples"] == 12
    assert noted["calibration"]["ids_sha256"] == digest(random_ids())
    text = " ".join(v.decode() for n, v in ours.items() if n.endswith(".json"))
    assert "do_sample" not in text and "offload" not in text
    assert str(source.parent) not in text and "/tmp" not in text


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"bits": 8}, {"dtype": "F16"}),
        ({"group_size": 32, "desc_act": True}, {"dtype": "F32"}),
        ({"bits": 8, "group_size": -1}, {"shards": 3}),
    ],
    ids=lambda v: "-".join(map(str, v.values())),
)
def test_other_options_and_sources(
    tmp_path: Path, options: dict[str, Any], shape: dict[str, Any]
) -> None:
    source, out = small(tmp_path / "m", **shape), tmp_path / "out"
    estimate = convert_gptq(source, out, samples=random_ids(4), **options)
    quantization = Checkpoint.open(out).quantization
    assert {key: quantization[key] for key in options} == options
    size = (out / "model.safetensors").stat().st_size
    assert estimate.size < size < estimate.size + 20_000  # a header's
    ids = random_ids(1)[0]
    before, after = logits(in_transformers(source), ids), logits(in_gptqmodel(out), ids)
    error = ((after - before).std() / before.std()).item()
    assert error < (0.1 if options.get("bits") == 8 else 0.5)


def test_the_command_calibrates_on_the_models_own_text(
    tmp_path: Path, command_cache: dict[str, str]
) -> None:
    source, out = small(tmp_path / "m"), tmp_path / "out"
    triples = json_lines(tmp_path / "c.jsonl", TRIPLES)
    arguments = ("convert", "gptq", source, out, "--calibration", triples, "--device", "cpu")
    done = run(*arguments, env=command_cache, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == b"", done.stderr.decode()
    assert {p.name for p in tmp_path.iterdir()} == {"m", "out", "c.jsonl", "cache"}
    lines = said(done.stderr)
    assert "on the way it takes" in lines[0] and lines[-1].startswith(str(out))
    assert len(lines) < 8, lines
    noted = Checkpoint.open(out).quantization["meta"]["erank_lite"]["calibration"]
    assert noted["sha256"] == digest(read_examples(triples)) and noted["samples"] == 2
    assert b"SECRETLOAF" not in b"".join(files_of(out).values())
    first = files_of(out)
    assert "already there" in is_a_clear_line(run(*arguments, env=command_cache))
    assert run(*arguments, "--force", env=command_cache).returncode == 0
    assert files_of(out) == first
    assert not list(tmp_path.glob("out?*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_it_leaves_no_result_and_starts_again(
    tmp_path: Path, command_cache: dict[str, str], how: signal.Signals
) -> None:
    source, out = small(tmp_path / "m"), tmp_path / "out"
    triples = json_lines(tmp_path / "c.jsonl", TRIPLES)
    command = [*COMMAND, "convert", "gptq", str(source), str(out), "--calibration", str(triples)]
    process = subprocess.Popen(command, env=command_cache, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out.partial" / "layers").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(60)
    assert not out.exists()
    if how is signal.SIGTERM:
        assert not list(tmp_path.glob("out*"))
    done = run(*command[1:], env=command_cache)
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out"]
    assert logits(in_gptqmodel(out), random_ids(1)[0]).isfinite().all()


def test_erank_tiny_answers_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two forms of BF16, Transformers and llama.cpp, give 94 % of these 160 pairs the same score,
    # and their rank scores differ by 0.021 in the mean; with 8 bits it was 92 % and 0.029.
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path / "cache"))
    checkpoint = Checkpoint.open(BUNDLED_FOLDER)
    triples = read_examples(DEFAULT)[:16]
    samples = SelfGeneratedCalibration(checkpoint, triples, engine_for_calibration).samples()
    convert_gptq(BUNDLED_FOLDER, tmp_path / "out", bits=8, samples=samples, device="cpu")
    assert not in_transformers(tmp_path / "out").generation_config.do_sample
    exact, rounded = (
        in_order(results_of(everyday(20), model, engine=engine))
        for model, engine in ((BUNDLED_FOLDER, "transformers"), (tmp_path / "out", "gptq"))
    )
    same, difference = agreement(rounded, exact)
    assert same >= 0.88 and difference < 0.05


def changed(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("options", "damage", "message"),
    [
        ({"bits": 3}, None, "bits must be 4 or 8, not 3"),
        ({"group_size": 16}, None, "group size must be one of 32, 64, 128, -1"),
        ({"device": "tpu"}, None, "device must be cpu or cuda"),
        ({}, changed(quantization_config={"quant_method": "awq"}), "quantized already \\(awq\\)"),
        ({}, changed(architectures=["GPT2LMHeadModel"]), "architecture is GPT2LMHeadModel"),
        ({}, lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        ({}, lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    ],
)
def test_what_cannot_be_quantized(
    tmp_path: Path,
    options: dict[str, Any],
    damage: Callable[[Path], None] | None,
    message: str,
) -> None:
    source = small(tmp_path / "m")
    if damage is not None:
        damage(source)
    with pytest.raises(ErankLiteError, match=message) as caught:
        convert_gptq(source, tmp_path / "out", **options)
    assert "\n" not in caught.value.message + (caught.value.hint or "") and not list(
        tmp_path.glob("out*")
    )


def test_groups_that_do_not_fit(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", ffn=160)
    with pytest.raises(
        InputError, match="64, 160 and 256 columns\nhint: use a group size of 32 or -1"
    ):
        convert_gptq(source, tmp_path / "out", group_size=64)
    odd = write_checkpoint(tmp_path / "odd", ffn=100)
    with pytest.raises(ModelError, match="convert the checkpoint to GGUF instead"):
        convert_gptq(odd, tmp_path / "out", group_size=-1)


def test_places_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, mine = small(tmp_path / "m"), tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for out, force, message in (
        (tmp_path / "no" / "out", False, "there is no folder"),
        (mine, False, "is not a GPTQ checkpoint"),
        (link, True, "is a link to nothing"),
        (mine, True, "is not a GPTQ checkpoint"),
        (mine / "letter.txt", True, "is a file"),
        (source, True, "is not a GPTQ checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            convert_gptq(source, out, force=force)
    assert (mine / "letter.txt").read_text() == "dear"
    samples = random_ids()
    with (
        FileLock(tmp_path / "b.lock"),
        pytest.raises(InputError, match="another process is writing"),
    ):
        convert_gptq(source, tmp_path / "b", samples=samples)
    with pytest.raises(InputError, match="samples are empty"):
        convert_gptq(source, tmp_path / "b", samples=[])
    little = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    with pytest.raises(ModelError, match="free, but the conversion takes"):
        convert_gptq(source, tmp_path / "c", samples=samples)
    assert [p.name for p in tmp_path.glob("[bc]*")] in ([], ["b.lock"])


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gptqmodel" else find(name)
    )
    with pytest.raises(ModelError, match=r"pip install 'erank-lite\[gptq\]'"):
        convert_gptq(small(tmp_path / "m"), tmp_path / "out")
