"""Train one phase.

    python -m training.train WORK --phase match|reason|settle --start FOLDER --end FOLDER --pairs N

- match: the grade of a pair, as a distribution around the teacher's, in a plain question of few
  words. Two more losses find the way there: a linear probe reads the grade at every place of the
  document and after it, and the last tokens of query and document give the teacher's embeddings.
- reason: the same in ERank's prompt, half of the pairs with reasoning.
- settle: the model's own expected score of `match` and `reason`, stretched to the grades' scale,
  becomes the answer, with probabilities that make `score × Pr(score)` rise with it.

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
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

from training.examples import Example, Pairs
from training.model import Qwen3, Shape, load_checkpoint, save_checkpoint
from training.pairs import device

# Examples of up to so many tokens: how many at once.
SIZES = {64: 32, 96: 22, 128: 16, 192: 10, 320: 6}
_SPREAD = 0.55  # standard deviation of the grades' distribution, in points
_THINKING = {"match": 0.0, "reason": 0.5, "settle": 0.5}
_EMBEDDING_SIZE = 384
_FOR_LEVELS = 1_000  # pairs that show how much of the scale the expected scores use
_FROZEN = 3  # first layers that stay, with the old tokens' embeddings, what SmolLM2's are
_NEW_FASTER = 10  # how much higher the rate is for new tokens' embeddings, which have far to go


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


def settled(score: Tensor) -> Tensor:
    """Return (batch, 11) distributions whose `score × Pr(score)` rises with `score`, from 0 to 10.

    A stretch of two points around it, in parts of one: the most probable score always has a half,
    whichever it is, and the others go to its neighbours without a jump. (A certainty that rises
    between two scores would have to fall at once where the next takes over, which a network does
    not follow.)
    """
    edges = torch.arange(12, device=score.device) - 0.5
    below = ((edges - score[:, None] + 1) / 2).clamp(0, 1)
    below[:, 0], below[:, -1] = 0, 1
    return below.diff(dim=1)


class Trainer:
    def __init__(self, work: Path, start: str, phase: str) -> None:
        self.tokenizer = HFTokenizer.from_file(str(work / start / "tokenizer.json"))
        self.data = Pairs(work, self.tokenizer, short=phase == "match")
        self.scores = Scores(self.tokenizer)
        self.device = device()
        self.phase = phase
        shape, state = load_checkpoint(work / start)
        # Layer by layer, since all layers are the same program: one for each length, trained or
        # not, with gradients or without.
        torch._dynamo.config.recompile_limit = 16 * len(SIZES)
        self.model = self._ready(shape, state)
        self.own = self._ready(shape, state) if phase == "settle" else None
        for layer in self.model.layers[:_FROZEN]:
            layer.requires_grad_(False)
        # Of the embeddings, those of the new tokens: they begin as the mean of what they stand for,
        # and so could never be told from it where they are to be written.
        self.new = torch.tensor(sorted(self.tokenizer.get_added_tokens_decoder()))
        self.new = self.new.to(self.device)
        self.new_rows = self.model.embedding.weight.detach()[self.new].float()
        self.trained = [
            p for n, p in self.model.named_parameters() if p.requires_grad and "embedding" not in n
        ]
        self.master = [p.detach().float() for p in self.trained]
        self.heads = nn.ModuleDict(
            {
                "embeddings": nn.Linear(shape.width, 2 * _EMBEDDING_SIZE),
                "grade": nn.Linear(shape.width, 1),
            }
        ).to(self.device)
        heads = work / start / "heads.pt"
        if heads.exists():
            self.heads.load_state_dict(torch.load(heads, weights_only=True))
        if self.own is not None:
            self.quantiles = self.levels()

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
            target = settled(self.settled_score(examples))
        digits = torch.cat([target[:, :1], target[:, 1:2] + target[:, 10:], target[:, 2:10]], 1)
        of_score = -(digits * first[:, self.scores.digits]).sum(-1).mean()
        next_ids = ids[rows, torch.tensor([a + 2 for a in answer], device=self.device)]
        is_one = ids[rows, torch.tensor([a + 1 for a in answer], device=self.device)]
        weight = torch.where(is_one == self.scores.digits[1], 1.0, 0.05)
        of_end = -(weight * second[rows, next_ids]).mean()
        tens = [i for i, e in enumerate(examples) if round(e.score) == 10]
        if tens:
            after = [answer[i] + 2 for i in tens]
            third = self.model.logits(states[tens, after]).log_softmax(-1)
            of_end = of_end - third[:, self.scores.close].mean()
        total = of_score + of_end
        parts = {"score": of_score.item(), "end": of_end.item()}
        spans = [(i, p) for i, e in enumerate(examples) for p in range(*e.reasoning)]
        if spans:
            i, p = torch.tensor(spans, device=self.device).T
            of_words = F.cross_entropy(self.model.logits(states[i, p]), ids[i, p + 1])
            total = total + 0.5 * of_words
            parts["reasoning"] = of_words.item()
        if self.phase != "settle":
            of_grade = self._grade_loss(states, examples, score)
            of_meaning = self._meaning_loss(
                at([e.query_end for e in examples]), at([e.document_end for e in examples]),
                examples,
            )  # fmt: skip
            total = total + 2 * of_grade + of_meaning
            parts |= {"grade": of_grade.item(), "meaning": of_meaning.item()}
        return total, parts

    def _grade_loss(self, states: Tensor, examples: list[Example], score: Tensor) -> Tensor:
        """Return how badly the probe reads the grade, from the document to the answer."""
        first, last = (
            torch.tensor(places, device=self.device)[:, None]
            for places in ([e.query_end + 1 for e in examples], [e.answer for e in examples])
        )
        place = torch.arange(states.shape[1], device=self.device)
        logits = self.heads["grade"](states.float())[..., 0]
        losses = F.binary_cross_entropy_with_logits(
            logits, (score / 10)[:, None].expand_as(logits), reduction="none"
        )
        return losses[(place >= first) & (place <= last)].mean()

    def _meaning_loss(self, query: Tensor, document: Tensor, examples: list[Example]) -> Tensor:
        """Return 1 minus the mean cosine of the embeddings guessed and the teacher's."""
        of_query, of_document = self.heads["embeddings"](
            torch.stack([query, document]).float()
        ).split(_EMBEDDING_SIZE, -1)
        pairs = self.data.pairs[[e.pair for e in examples]]
        wanted = torch.from_numpy(
            np.stack([self.data.of_queries[pairs[:, 0]], self.data.of_documents[pairs[:, 1]]])
        ).to(self.device)
        guessed = torch.stack([of_query[0], of_document[1]])
        return 1 - F.cosine_similarity(guessed, wanted.float(), dim=-1).mean()

    def levels(self) -> tuple[Tensor, Tensor]:
        """Return the quantiles of expected scores, by the model at the start, and of grades."""
        pairs = np.random.default_rng(5).choice(self.data.train, _FOR_LEVELS, replace=False)
        part = torch.linspace(0, 1, _FOR_LEVELS // 20 + 1)
        expected = self._expected_of(self.own, pairs).quantile(part)
        return expected, torch.from_numpy(self.data.scores[pairs]).quantile(part)

    @torch.no_grad()
    def settled_score(self, examples: list[Example]) -> Tensor:
        """Return the expected scores by the model at the start, stretched to the whole scale."""
        expected = self._expected(self.own, examples).cpu()
        return torch.from_numpy(np.interp(expected, *self.quantiles)).float().to(self.device)

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
        expected = self._expected_of(self.model, pairs)
        return float(spearmanr(expected, self.data.scores[pairs]).statistic)

    @torch.no_grad()
    def _expected_of(self, model: nn.Module, pairs: npt.NDArray[np.int64]) -> Tensor:
        examples = [self.data.example(int(p), False, max(SIZES)) for p in pairs]
        expected = torch.zeros(len(self.data.pairs))
        for part in _filled(examples):
            expected[[e.pair for e in part]] = self._expected(model, part).cpu()
        return expected[pairs]

    def train(
        self, count: int, schedule: int, rate: float, work: Path, end: str, start: str
    ) -> None:
        """Train on `count` pairs; the rate would reach its end after `schedule` pairs."""
        chance = np.random.default_rng([7, *self.phase.encode()])  # other pairs in each phase
        pairs = np.concatenate(
            [chance.permutation(self.data.train) for _ in range(-(-count // len(self.data.train)))]
        )[:count]
        parameters = [p.requires_grad_() for p in self.master]
        rows = self.new_rows.requires_grad_()
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
                {"params": list(self.heads.parameters()), "weight_decay": 0.01},
                {"params": [rows], "weight_decay": 0.0, "faster": _NEW_FASTER},
            ],
            lr=rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        done, last, begun = 0, time.time(), time.time()
        sums: dict[str, list[float]] = {}
        step = 0
        for length, examples in self.data.batches(pairs, _THINKING[self.phase], SIZES, 3):
            share = min(1.0, done / schedule)
            warm = min(1.0, (step + 1) / 100)
            for group in optimizer.param_groups:
                now = rate * group.get("faster", 1)
                group["lr"] = now * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
            total, parts = self.loss(examples, length)
            total.backward()
            for p, q in zip(parameters, self.trained, strict=True):
                p.grad, q.grad = q.grad.float(), None
            embedding = self.model.embedding.weight
            rows.grad, embedding.grad = embedding.grad[self.new].float(), None
            nn.utils.clip_grad_norm_([*parameters, rows, *self.heads.parameters()], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for p, q in zip(parameters, self.trained, strict=True):
                    q.copy_(p)
                embedding[self.new] = rows.to(embedding.dtype)
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
        save_checkpoint(self.model.shape, self.model.state_dict(), folder)
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
    parser.add_argument("--rate", type=float, default=3e-4, help="the highest, after 100 steps")
    parser.add_argument(
        "--schedule", type=int, help="pairs over which it falls, along a cosine (all of --pairs)"
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    trainer = Trainer(arguments.work, arguments.start, arguments.phase)
    trainer.train(
        arguments.pairs, arguments.schedule or arguments.pairs, arguments.rate, arguments.work,
        arguments.end, arguments.start,
    )  # fmt: skip


if __name__ == "__main__":
    main()
