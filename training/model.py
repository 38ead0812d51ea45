"""Qwen3 in a form that a processor trains fast, and its way to and from a checkpoint.

The arithmetic is that of `transformers`' Qwen3ForCausalLM; what differs is that everything is
bfloat16 with float32 where sums need it, matrices that read the same input are one, and
attention is two batched products, so that `torch.compile` joins all that lies between them. On a
processor with bfloat16 units this trains twice as fast as the library's own model does compiled.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab: int
    layers: int = 17
    width: int = 512
    ffn: int = 768
    heads: int = 12
    kv_heads: int = 3
    head: int = 64
    theta: float = 100_000.0
    context: int = 4096
    eps: float = 1e-6


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return (y if weight is None else y * weight.float()).to(x.dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = s = shape
        self.norm_1 = nn.Parameter(torch.ones(s.width))
        self.qkv = nn.Linear(s.width, (s.heads + 2 * s.kv_heads) * s.head, bias=False)
        self.norm_q = nn.Parameter(torch.ones(s.head))
        self.norm_k = nn.Parameter(torch.ones(s.head))
        self.out = nn.Linear(s.heads * s.head, s.width, bias=False)
        self.norm_2 = nn.Parameter(torch.ones(s.width))
        self.gate_up = nn.Linear(s.width, 2 * s.ffn, bias=False)
        self.down = nn.Linear(s.ffn, s.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        s, (batch, length, _) = self.shape, x.shape
        group = s.heads // s.kv_heads
        states = self.qkv(rms_norm(x, self.norm_1, s.eps)).view(batch, length, -1, s.head)
        q, k, v = states.split([s.heads, s.kv_heads, s.kv_heads], 2)
        q = rotated(rms_norm(q, self.norm_q, s.eps), cos, sin)
        k = rotated(rms_norm(k, self.norm_k, s.eps), cos, sin)
        # The heads of a group read the same keys: their queries stand below one another.
        q = q.view(batch, length, s.kv_heads, group, s.head).permute(0, 2, 3, 1, 4)
        q = q.reshape(batch * s.kv_heads, group * length, s.head)
        k = k.permute(0, 2, 3, 1).reshape(batch * s.kv_heads, s.head, length)
        v = v.permute(0, 2, 1, 3).reshape(batch * s.kv_heads, length, s.head)
        weights = torch.bmm(q, k).view(batch, -1, length, length).float() * s.head**-0.5 + mask
        weights = weights.softmax(-1).to(x.dtype).view(-1, group * length, length)
        y = torch.bmm(weights, v).view(batch, s.kv_heads, group, length, s.head)
        x = x + self.out(y.permute(0, 3, 1, 2, 4).reshape(batch, length, -1))
        gate, up = self.gate_up(rms_norm(x, self.norm_2, s.eps)).split(s.ffn, -1)
        return x + self.down(F.silu(gate) * up)


class Qwen3(nn.Module):
    """Token ids to the last hidden states, normed; `logits` applies the tied head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.layers)])
        self.norm = nn.Parameter(torch.ones(shape.width))

    def forward(
        self, ids: Tensor, places: Tensor | None = None, branches: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the last states and those of the middle layer, (batch, length, width) each.

        Args:
            ids: (batch, length), padded on the right if at all.
            places: (batch, length); in their order where not given.
            branches: (batch, length). A token reads those before it of its own branch and of
                branch 0, so that several texts go on from one beginning, which is computed once.
        """
        s, length = self.shape, ids.shape[1]
        if places is None:
            places = torch.arange(length, device=ids.device)[None]
        rates = s.theta ** (-torch.arange(0, s.head, 2, device=ids.device) / s.head)
        angles = (places[..., None] * rates)[:, :, None]
        hidden = torch.ones((1, length, length), dtype=torch.bool, device=ids.device).triu(1)
        if branches is not None:
            own = branches[:, :, None] == branches[:, None, :]
            hidden = hidden | ~(own | (branches == 0)[:, None, :])
        mask = torch.where(hidden, -1e9, 0.0)[:, None]
        x = middle = self.embedding(ids)
        for number, layer in enumerate(self.layers):
            x = layer(x, angles.cos(), angles.sin(), mask)
            if number == s.layers // 2:
                middle = x
        return rms_norm(x, self.norm, s.eps), middle

    def logits(self, states: Tensor) -> Tensor:
        return (states.to(self.embedding.weight.dtype) @ self.embedding.weight.T).float()


_NAMES = {
    "norm_1": "input_layernorm.weight",
    "norm_q": "self_attn.q_norm.weight",
    "norm_k": "self_attn.k_norm.weight",
    "out.weight": "self_attn.o_proj.weight",
    "norm_2": "post_attention_layernorm.weight",
    "down.weight": "mlp.down_proj.weight",
}


def save_checkpoint(shape: Shape, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write config.json and model.safetensors (BF16), as `transformers` does.

    The tokenizer's files and the model card are the caller's.
    """
    tensors = {
        "model.embed_tokens.weight": state["embedding.weight"],
        "model.norm.weight": state["norm"],
    }
    kv = shape.kv_heads * shape.head
    for i in range(shape.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        for name, published in _NAMES.items():
            tensors[theirs + published] = state[ours + name]
        q, k, v = state[ours + "qkv.weight"].split([shape.heads * shape.head, kv, kv])
        gate, up = state[ours + "gate_up.weight"].chunk(2)
        for part, tensor in zip("qkv", (q, k, v), strict=True):
            tensors[f"{theirs}self_attn.{part}_proj.weight"] = tensor
        tensors[theirs + "mlp.gate_proj.weight"] = gate
        tensors[theirs + "mlp.up_proj.weight"] = up
    save_file(
        {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": 2,
        "head_dim": shape.head,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.eps,
        "rope_scaling": None,
        "rope_theta": shape.theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocab,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def save_as(folder: Path, shape: Shape, state: Mapping[str, Tensor], like: Path) -> None:
    """Write a whole checkpoint to `folder`, which is made, with the tokenizer of `like`."""
    folder.mkdir(exist_ok=True)
    save_checkpoint(shape, state, folder)
    for name in ("tokenizer", "tokenizer_config", "generation_config"):
        shutil.copy(like / f"{name}.json", folder)


def load_checkpoint(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Return what `save_checkpoint` was given, in BF16."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    shape = Shape(
        config["vocab_size"], config["num_hidden_layers"], config["hidden_size"],
        config["intermediate_size"], config["num_attention_heads"], config["num_key_value_heads"],
        config["head_dim"], config["rope_theta"], config["max_position_embeddings"],
        config["rms_norm_eps"],
    )  # fmt: skip
    tensors = load_file(folder / "model.safetensors")
    state = {
        "embedding.weight": tensors["model.embed_tokens.weight"],
        "norm": tensors["model.norm.weight"],
    }
    for i in range(shape.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        for name, published in _NAMES.items():
            state[ours + name] = tensors[theirs + published]
        state[ours + "qkv.weight"] = torch.cat(
            [tensors[f"{theirs}self_attn.{part}_proj.weight"] for part in "qkv"]
        )
        state[ours + "gate_up.weight"] = torch.cat(
            [tensors[f"{theirs}mlp.{part}_proj.weight"] for part in ("gate", "up")]
        )
    return shape, state
