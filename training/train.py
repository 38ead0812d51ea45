"""Train one phase.

    python -m training.train WORK --phase match|reason|settle --start FOLDER --end FOLDER --pairs N

- match: the grade of a pair, without reasoning, as a distribution around the teacher's; and, from
  the last token of query and document, the teacher's embedding of each.
- reason: the same, half of the pairs with reasoning.
- settle: the model's own expected score of `match` and `reason` becomes the answer, said with a
  certainty that makes `score × Pr(score)` rise with it.

FOLDERs are names in WORK; every ten minutes the model is saved as FOLDER.partial. A processor and a
GPU take the same steps; only the pace differs.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

from training.examples import Example, Pairs
from training.model import Qwen3, Shape, load_checkpoint, save_checkpoint
from training.pairs import device

SIZES = {64: 32, 96: 22, 128: 16, 192: 10}  # examples of up to so many tokens: how many at once
_SPREAD = 0.55  # standard deviation of the grades' distribution, in points
_THINKING = {"match": 0.0, "reason": 0.5, "settle": 0.5}
_EMBEDDING_SIZE = 384
_READ = 12  # places of a prompt whose next token is to be predicted


class Scores:
    """The eleven scores in the vocabulary, where 10 is `1` and then `0`."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self.digits = [tokenizer.token_to_id(str(d)) for d in range(10)]
        self.close = tokenizer.token_to_id("</answer>")

    def probabilities(self, first: Tensor, after_one: Tensor) -> Tensor:
        """Return (batch, 11) from the logits at the answer and those after a `1`."""
        p = first.softmax(-1)[:, self.digits]
        zero = after_one.softmax(-1)[:, self.digits[0]]
        return torch.cat([p[:, :1], p[:, 1:2] * (1 - zero[:, None]), p[:, 2:],
                          p[:, 1:2] * zero[:, None]], 1)  # fmt: skip


def around(scores: Tensor) -> Tensor:
    """Return (batch, 11) distributions around scores from 0 to 10."""
    distance = torch.arange(11, device=scores.device) - scores[:, None]
    return (-0.5 * (distance / _SPREAD) ** 2).softmax(-1)


def settled(expected: Tensor) -> Tensor:
    """Return (batch, 11) distributions whose `score × Pr(score)` rises with `expected`.

    The most probable score is the nearest, s. At the lower end of its stretch its probability is
    0.5 + 0.04 (s − 1), and from there it rises so that s × Pr(s) goes on where that of s − 1
    ended. What is left goes to both neighbours, the nearer first.
    """
    s = expected.round().clamp(0, 10)
    part = (expected - (s - 0.5)).clamp(0, 1)
    low, high = s * (0.46 + 0.04 * s), (s + 1) * (0.5 + 0.04 * s)
    p = (low + (high - low) * part) / s.clamp(min=1)
    p = torch.where(s == 0, 0.95 - 0.4 * part, torch.where(s == 10, 0.86 + 0.25 * part, p))
    p = p.clamp(max=0.985)
    share = part.clamp(0.1, 0.9)
    share = torch.where(s == 0, torch.ones_like(share), share)
    share = torch.where(s == 10, torch.zeros_like(share), share)
    result = torch.zeros(len(s), 13, device=s.device)
    at = s.long()[:, None]
    result.scatter_(1, at + 1, p[:, None])
    result.scatter_(1, at + 2, ((1 - p) * share)[:, None])
    result.scatter_(1, at, ((1 - p) * (1 - share))[:, None])
    return result[:, 1:12]


class Trainer:
    def __init__(self, work: Path, start: str, phase: str) -> None:
        self.tokenizer = HFTokenizer.from_file(str(work / start / "tokenizer.json"))
        self.data = Pairs(work, self.tokenizer)
        self.scores = Scores(self.tokenizer)
        self.device = device()
        self.phase = phase
        shape, state = load_checkpoint(work / start)
        # Layer by layer, since all layers are the same program; one for each length.
        torch._dynamo.config.recompile_limit = 4 * len(SIZES)
        self.model = self._ready(shape, state)
        self.own = self._ready(shape, state) if phase == "settle" else None
        self.master = [p.detach().float() for p in self.model.parameters()]
        self.heads = nn.Linear(shape.width, 2 * _EMBEDDING_SIZE).to(self.device)
        heads = work / start / "heads.pt"
        if heads.exists():
            self.heads.load_state_dict(torch.load(heads, weights_only=True))

    def _ready(self, shape: Shape, state: dict[str, Tensor]) -> Qwen3:
        model = Qwen3(shape)
        model.load_state_dict(state)
        for layer in model.layers:
            layer.compile(dynamic=False)
        return model.to(self.device, torch.bfloat16)

    def ids_of(self, examples: list[Example], length: int) -> Tensor:
        rows = [e.ids + [0] * (length - len(e.ids)) for e in examples]
        return torch.tensor(rows, device=self.device)

    def loss(self, examples: list[Example], length: int) -> tuple[Tensor, dict[str, float]]:
        ids = self.ids_of(examples, length)
        states = self.model(ids)
        rows = torch.arange(len(examples), device=self.device)

        def at(places: list[int]) -> Tensor:
            return states[rows, torch.tensor(places, device=self.device)]

        answer = [e.answer for e in examples]
        first = self.model.logits(at(answer)).log_softmax(-1)
        second = self.model.logits(at([a + 1 for a in answer])).log_softmax(-1)
        score = torch.tensor([e.score for e in examples], device=self.device)
        target = around(score)
        if self.own is not None:
            target = settled(self.expected(examples))
        digits = torch.cat([target[:, :1], target[:, 1:2] + target[:, 10:], target[:, 2:10]], 1)
        of_score = -(digits * first[:, self.scores.digits]).sum(-1).mean()
        next_ids = ids[rows, torch.tensor([a + 2 for a in answer], device=self.device)]
        is_one = ids[rows, torch.tensor([a + 1 for a in answer], device=self.device)]
        weight = torch.where(is_one == self.scores.digits[1], 1.0, 0.05)
        of_end = -(weight * second[rows, next_ids]).mean()
        total = of_score + of_end
        parts = {"score": of_score.item(), "end": of_end.item()}
        # A few places of each prompt, so that the model goes on knowing text.
        ends = torch.tensor([[e.document_end] for e in examples])
        read = (torch.rand(len(examples), _READ) * ends).long().to(self.device)
        of_text = F.cross_entropy(
            self.model.logits(states[rows[:, None], read]).flatten(0, 1),
            ids[rows[:, None], read + 1].flatten(),
        )
        total = total + 0.1 * of_text
        parts["text"] = of_text.item()
        spans = [(i, p) for i, e in enumerate(examples) for p in range(*e.reasoning)]
        if spans:
            i, p = torch.tensor(spans, device=self.device).T
            of_words = F.cross_entropy(self.model.logits(states[i, p]), ids[i, p + 1])
            total = total + 0.5 * of_words
            parts["reasoning"] = of_words.item()
        if self.phase == "match":
            guessed = self.heads(
                torch.stack([at([e.query_end for e in examples]),
                             at([e.document_end for e in examples])]).float()
            )  # fmt: skip
            pairs = self.data.pairs[[e.pair for e in examples]]
            wanted = torch.from_numpy(
                np.stack([self.data.of_queries[pairs[:, 0]], self.data.of_documents[pairs[:, 1]]])
            ).to(self.device)
            guessed = torch.stack(
                [guessed[0, :, :_EMBEDDING_SIZE], guessed[1, :, _EMBEDDING_SIZE:]]
            )
            of_meaning = 1 - F.cosine_similarity(guessed, wanted.float(), dim=-1).mean()
            total = total + 2 * of_meaning
            parts["meaning"] = of_meaning.item()
        return total, parts

    @torch.no_grad()
    def expected(self, examples: list[Example]) -> Tensor:
        """Return the expected scores by the model that training started from."""
        return self._expected(self.own, examples)

    def _expected(self, model: nn.Module, examples: list[Example]) -> Tensor:
        one = self.scores.digits[1]
        plain = [self.data.example(e.pair, False, max(SIZES)) for e in examples]
        length = next(n for n in SIZES if n >= max(len(e.ids) for e in plain))
        ids = self.ids_of(plain, length)
        rows = torch.arange(len(plain), device=self.device)
        places = torch.tensor([e.answer for e in plain], device=self.device)
        ids[rows, places + 1] = one
        states = model(ids)
        p = self.scores.probabilities(
            self.model.logits(states[rows, places]), self.model.logits(states[rows, places + 1])
        )
        return (p * torch.arange(11, device=self.device)).sum(-1) / p.sum(-1)

    @torch.no_grad()
    def correlation(self, count: int) -> float:
        """Return Spearman's correlation of expected scores and grades, on held-out pairs."""
        pairs = self.data.held_out[:: max(1, len(self.data.held_out) // count)]
        examples = [self.data.example(int(p), False, max(SIZES)) for p in pairs]
        expected = torch.zeros(len(self.data.pairs))
        for part in _filled(examples):
            expected[[e.pair for e in part]] = self._expected(self.model, part).cpu()
        return float(spearmanr(expected[pairs], self.data.scores[pairs]).statistic)

    def train(self, count: int, rate: float, work: Path, end: str, start: str) -> None:
        chance = np.random.default_rng(7)
        pairs = np.concatenate(
            [chance.permutation(self.data.train) for _ in range(-(-count // len(self.data.train)))]
        )[:count]
        parameters = [p.requires_grad_() for p in self.master]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
                {"params": list(self.heads.parameters()), "weight_decay": 0.01},
            ],
            lr=rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        done, last, begun = 0, time.time(), time.time()
        sums: dict[str, list[float]] = {}
        step = 0
        for length, examples in self.data.batches(pairs, _THINKING[self.phase], SIZES, 3):
            share = done / count
            warm = min(1.0, (step + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
            total, parts = self.loss(examples, length)
            total.backward()
            for p, q in zip(parameters, self.model.parameters(), strict=True):
                p.grad, q.grad = q.grad.float(), None
            nn.utils.clip_grad_norm_([*parameters, *self.heads.parameters()], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for p, q in zip(parameters, self.model.parameters(), strict=True):
                    q.copy_(p)
            done, step = done + len(examples), step + 1
            for name, value in parts.items():
                sums.setdefault(name, []).append(value)
            if step % 50 == 0:
                line = {n: round(sum(v) / len(v), 4) for n, v in sums.items()}
                line |= {"pairs": done, "seconds": round(time.time() - begun)}
                sums = {}
                if step % 200 == 0:
                    line["correlation"] = round(self.correlation(400), 4)
                print(json.dumps(line), flush=True)
            if time.time() - last > 600:
                self.save(work / f"{end}.partial", work / start)
                last = time.time()
        self.save(work / f"{end}.partial", work / start)
        (work / f"{end}.partial").rename(work / end)
        print(json.dumps({"pairs": done, "correlation": round(self.correlation(2000), 4)}))

    def save(self, folder: Path, start: Path) -> None:
        folder.mkdir(exist_ok=True)
        names = [n for n, _ in self.model.named_parameters()]
        save_checkpoint(self.model.shape, dict(zip(names, self.master, strict=True)), folder)
        torch.save(self.heads.state_dict(), folder / "heads.pt")
        for name in ("tokenizer", "tokenizer_config", "generation_config"):
            shutil.copy(start / f"{name}.json", folder)


def _filled(examples: list[Example]) -> Iterator[list[Example]]:
    """Yield examples in batches of the sizes that are compiled already, the last of each filled."""
    for shorter, length in zip([0, *SIZES], SIZES, strict=False):
        fitting = [e for e in examples if shorter < len(e.ids) <= length]
        for at in range(0, len(fitting), SIZES[length]):
            part = fitting[at : at + SIZES[length]]
            yield part + part[-1:] * (SIZES[length] - len(part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--phase", choices=list(_THINKING), required=True)
    parser.add_argument("--start", required=True)
    parser.add_argument("--end", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--rate", type=float, default=4e-4)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    trainer = Trainer(arguments.work, arguments.start, arguments.phase)
    trainer.train(arguments.pairs, arguments.rate, arguments.work, arguments.end, arguments.start)


if __name__ == "__main__":
    main()
