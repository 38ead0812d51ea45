"""The engine against transformers in float32: same greedy tokens, same log-probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from erank_lite.engines.llama_cpp import LlamaCppEngine
from erank_lite.gguf_file import GGUFFile
from erank_lite.prompt import PromptCore
from erank_lite.types import Prompt, Request, Step

pytestmark = pytest.mark.reference

TOKENS = 64
TOPICS = (  # noqa: SIM905
    "rivers, bread, chess, volcanoes, violins, tides, bees, glaciers, trains, mirrors, salt, ink, "
    "comets, looms, maps, orchids, kites, clocks, deserts, whales, paper, storms, honey, bridges, "
    "lenses, silk, caves, ropes, owls, ferries, anvils, tea"
).split(", ")


class Recorder:
    """Generates `TOKENS` tokens and keeps them with their log-probabilities."""

    capacity = TOKENS + 1

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []

    def begin(self) -> Step:
        return Step(measure=())

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        assert logprobs is not None
        self.tokens.append(token)
        self.logprobs.append(logprobs[token])
        return Step(measure=(), done=len(self.tokens) == TOKENS)


@pytest.fixture(scope="module")
def float32_model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with every weight as float32."""
    out = tmp_path_factory.mktemp("f32") / "model.gguf"
    source = gguf.GGUFReader(smollm2)
    writer = gguf.GGUFWriter(out, "llama")
    for key, value in GGUFFile.read(smollm2).metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, source.fields[key].types[0])
    for tensor in source.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.fixture(scope="module")
def reference(float32_model: Path) -> Any:
    """The same weights in transformers."""
    torch = pytest.importorskip("torch", reason="pip install 'erank-lite[reference]'")
    transformers = pytest.importorskip("transformers")
    folder = float32_model.parent / "checkpoint"
    folder.mkdir()
    shutil.copy(float32_model, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=float32_model.name, dtype=torch.float32
    )
    return model.eval()


@pytest.fixture(scope="module")
def prompts(float32_model: Path) -> list[Prompt]:
    with LlamaCppEngine(float32_model) as engine:
        core = PromptCore(engine.tokenizer, engine.chat_template)
        query = core.query("What is known about it, and since when?")
        return [query.document(f"A short note about {topic}, old and new.") for topic in TOPICS]


@pytest.mark.parametrize("sequences", [1, 16])
def test_greedy_tokens_and_log_probabilities(
    float32_model: Path, reference: Any, prompts: list[Prompt], sequences: int
) -> None:
    """Every token is the one that transformers finds most probable after the same beginning."""
    import torch

    with LlamaCppEngine(float32_model, sequences=sequences, kv_type="f32") as engine:
        requests = [Request(i, p, Recorder) for i, p in enumerate(prompts)]
        readers = {c.key: c.reader for c in engine.run(requests)}
    assert len(readers) == len(TOPICS) == 32
    near_ties = []
    for key, reader in readers.items():
        assert isinstance(reader, Recorder)
        ids = prompts[key].ids
        with torch.no_grad():
            logits = reference(torch.tensor([[*ids, *reader.tokens]])).logits[0, len(ids) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        chosen = expected[range(TOKENS), reader.tokens]
        assert chosen.numpy() == pytest.approx(np.array(reader.logprobs), abs=1e-3)
        gaps = (expected.max(-1).values - chosen).numpy()
        near_ties += [(TOPICS[key], place, float(gaps[place])) for place in gaps.nonzero()[0]]
    # Named where they happen: two tokens whose probabilities differ by less than the noise.
    assert all(gap < 1e-3 for _, _, gap in near_ties), near_ties
    assert len(near_ties) <= 2, near_ties
