"""The engine against transformers in float32: same greedy tokens, same log-probabilities."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from erank_lite.convert.gguf.convert import convert_gguf
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.load import load
from erank_lite.models.checkpoint import BUNDLED_FOLDER, BUNDLED_MODEL
from erank_lite.models.gguf import GGUFFile
from erank_lite.testing.guides import counting_request
from erank_lite.types import Prompt

pytestmark = pytest.mark.reference

TOKENS = 24
TOPICS = (  # noqa: SIM905
    "rivers, bread, chess, volcanoes, violins, tides, bees, glaciers, trains, mirrors, salt, ink"
).split(", ")


def smollm2_in_float32(smollm2: Path, out: Path) -> None:
    """Write SmolLM2's file anew with every weight as float32."""
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


@pytest.fixture(scope="module", params=["SmolLM2", BUNDLED_MODEL])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A trained model in float32: as a GGUF file, and in transformers."""
    torch = pytest.importorskip("torch", reason="pip install 'erank-lite[reference]'")
    transformers = pytest.importorskip("transformers")
    file = tmp_path_factory.mktemp("f32") / "model.gguf"
    folder, options = BUNDLED_FOLDER, {}
    if request.param == BUNDLED_MODEL:
        convert_gguf(folder, file, "F32")
    else:
        smollm2_in_float32(request.getfixturevalue("smollm2"), file)
        folder, options = file.parent / "checkpoint", {"gguf_file": file.name}
        folder.mkdir()
        shutil.copy(file, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **options
    )
    return file, model.eval()


@pytest.fixture(scope="module")
def prompts(models: tuple[Path, Any]) -> list[Prompt]:
    with load(models[0], "llama.cpp") as engine:
        core = PromptBuilder(engine.tokenizer, engine.chat_template)
        query = core.query("What is known about it, and since when?")
        return [query.document(f"A short note about {topic}, old and new.") for topic in TOPICS]


@pytest.mark.parametrize("sequences", [1, 16])
def test_greedy_tokens_and_log_probabilities(
    models: tuple[Path, Any], prompts: list[Prompt], sequences: int
) -> None:
    """Every token is the one that transformers finds most probable after the same beginning."""
    import torch

    file, reference = models
    with load(file, "llama.cpp", {"sequences": sequences, "kv_type": "f32"}) as engine:
        requests = [counting_request(i, p, TOKENS) for i, p in enumerate(prompts)]
        guides = {c.key: c.guide for c in engine.run(requests)}
    assert len(guides) == len(TOPICS) == 12
    near_ties = []
    for key, guide in guides.items():
        ids = prompts[key].ids
        with torch.no_grad():
            logits = reference(torch.tensor([[*ids, *guide.tokens]])).logits[0, len(ids) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        chosen = expected[range(TOKENS), guide.tokens]
        assert chosen.numpy() == pytest.approx(np.array(guide.logprobs), abs=1e-3)
        gaps = (expected.max(-1).values - chosen).numpy()
        near_ties += [(TOPICS[key], place, float(gaps[place])) for place in gaps.nonzero()[0]]
    # Named where they happen: two tokens whose probabilities differ by less than the noise.
    assert all(gap < 1e-3 for _, _, gap in near_ties), near_ties
    assert len(near_ties) <= 2, near_ties
