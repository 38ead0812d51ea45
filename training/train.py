"""Train one phase.

    python -m training.train WORK --phase match|rank|settle --start FOLDER --end FOLDER --queries N

- match: the grade of a pair, as a distribution around the teacher's, in a plain question of few
  words; for a model that starts from SmolLM2's weights.
- rank: the same in ERank's prompt. The reasoning is empty, whether the prompt closes it or the
  model: scores are the same with and without.
- settle: the model's own expected score of `rank`, stretched to the grades' scale, becomes the
  answer, with probabilities that make `score × Pr(score)` rise with it; the same where a document
  stands within others.

In `match` and `rank` the documents of one query are seen together, and besides each one's grade it
is learnt which of them is the better one (the cross entropy of both softmaxes, as in ListNet: Cao
et al., ICML 2007); a linear probe reads the grade at every place of a document and after it.

FOLDER is a path, or a name in WORK. Every five minutes the model is saved as END.partial with the
optimizer's state, and the same command goes on from there. The rate stays at its highest until
`--fall` of the queries are left, and then falls to nothing: a phase can be made longer from
END.partial (`--keep` leaves it there). Numbers go to END.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

from training.examples import Example, Groups, Vectors
from training.model import Qwen3, Shape, load_checkpoint, save_as
from training.sets import PLAIN, SET
from training.teachers import device

LONGEST = 960  # tokens of an example
_STEP = 6  # queries
_TOKENS = 4_096  # of a part of a step, padding included
_LONGER = 1.2  # how much longer than the shortest row of its part a row may be
_ROW = 200  # of a row, where a query's documents share their beginning
_SPREAD = 0.55  # standard deviation of the grades' distribution, in points
_ANSWERS = 9  # the least grade of a text that answers
_SURE = 0.3  # of a settled score of 0, how much lies around it
_SHARPNESS = 1.0  # of the softmaxes of grades, in points
_LONG = {"match": 0.0, "rank": 0.0, "settle": 0.06}  # share of documents that stand within others
_FORMED = 9  # every how manieth example also teaches the way from the prompt to the answer
_FOR_LEVELS = 150  # queries that show how much of the scale the expected scores use
_FROZEN = 4  # first layers that stay what they are, with the old tokens' embeddings
_NEW_FASTER = 10  # how much higher the rate is for new tokens' embeddings, which have far to go
_SAVE_EVERY, _EVALUATE_EVERY = 300, 900  # seconds


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

    The first part is a stretch of two points around it, in parts of one: the most probable score
    always has a half, whichever it is, and the others go to its neighbours without a jump. (A
    certainty that rises between two scores would have to fall at once where the next takes over,
    which a network does not follow.) The second part is the same for all scores that are one
    token. The first part grows with `score`, so that the order does not end at the whole number.
    """
    edges = torch.arange(12, device=score.device) - 0.5
    below = ((edges - score[:, None] + 1) / 2).clamp(0, 1)
    below[:, 0], below[:, -1] = 0, 1
    anywhere = torch.full((11,), 0.1, device=score.device)
    anywhere[10] = 0
    return torch.lerp(anywhere, below.diff(dim=1), (_SURE + (1 - _SURE) * score / 10)[:, None])


def precision() -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, float32 elsewhere."""
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def in_rows(examples: list[Example]) -> list[list[int]]:
    """Return the places of examples that begin alike, their query's, in rows.

    The beginning is computed once in a row, and each example goes on from it.
    """
    made: list[list[int]] = []
    room = 0
    for place, e in enumerate(examples):
        shared = e.document_place[0]
        own = len(e.ids) - shared
        before = examples[place - 1]
        if place == 0 or own > room or e.ids[:shared] != before.ids[: before.document_place[0]]:
            made.append([])
            room = _ROW - shared
        made[-1].append(place)
        room -= own
    return made


def parts(examples: list[Example]) -> Iterator[tuple[list[list[int]], int]]:
    """Yield rows alike long, in parts of at most `_TOKENS` tokens, and each part's length."""

    def length(row: list[int]) -> int:
        first = examples[row[0]].document_place[0]
        return first + sum(len(examples[i].ids) - first for i in row)

    part: list[list[int]] = []
    for row in sorted(in_rows(examples), key=length):
        full = (len(part) + 1) * length(row) > _TOKENS
        if part and (full or length(row) > _LONGER * length(part[0])):
            yield part, length(part[-1])
            part = []
        part.append(row)
    yield part, length(part[-1])


class States(NamedTuple):
    """An example's (tokens, width) states."""

    last: Tensor
    middle: Tensor


class Trainer:
    def __init__(self, work: Path, start: Path, phase: str, sets: int, plain: int = 0) -> None:
        self.sets_a_step, self.plain_a_step = sets, plain
        self.tokenizer = HFTokenizer.from_file(str(start / "tokenizer.json"))
        self.data = Groups(work, self.tokenizer, short_prompt=phase == "match")
        self.scores = Scores(self.tokenizer)
        self.device, self.dtype = device(), precision()
        self.phase = phase
        shape, state = load_checkpoint(start)
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
        self.master = [p.detach().float().clone() for p in self.trained]
        self.probe = nn.Linear(shape.width, 1).to(self.device)
        self.vectors = Vectors(work, self.data)
        self.meaning = nn.Linear(shape.width, self.vectors.width).to(self.device)
        if self.own is not None:
            self.quantiles = self.levels()

    def _ready(self, shape: Shape, state: dict[str, Tensor]) -> Qwen3:
        model = Qwen3(shape)
        model.load_state_dict(state)
        # All layers are the same program, for any number of examples and tokens.
        torch._dynamo.config.recompile_limit = 64
        for layer in model.layers:
            layer.compile(dynamic=True)
        return model.to(self.device, self.dtype)

    def states(self, model: Qwen3, examples: list[Example], filled: bool) -> list[States]:
        """Return each example's hidden states.

        Where not `filled`, as in `expected`, a `1` stands where the answer begins.
        """
        found: dict[int, States] = {}
        for part, longest in parts(examples):
            length = -(-longest // 16) * 16
            ids, places, branches = (np.zeros((len(part), length), np.int64) for _ in range(3))
            branches[:] = -1  # what fills the rows up
            spans: list[tuple[int, int, int, int]] = []
            for n, row in enumerate(part):
                shared = at = examples[row[0]].document_place[0]
                ids[n, :at], branches[n, :at] = examples[row[0]].ids[:at], 0
                places[n, :at] = range(at)
                for branch, i in enumerate(row, 1):
                    own = list(examples[i].ids[shared:])
                    if not filled:
                        own[examples[i].answer + 1 - shared] = self.scores.digits[1]
                    end = at + len(own)
                    ids[n, at:end], branches[n, at:end] = own, branch
                    places[n, at:end] = range(shared, len(examples[i].ids))
                    spans.append((i, n, at, end))
                    at = end
            inputs = (torch.from_numpy(a).to(self.device) for a in (ids, places, branches))
            last, middle = model(*inputs)
            for i, n, at, end in spans:
                first = examples[i].document_place[0]
                found[i] = States(
                    torch.cat([last[n, :first], last[n, at:end]]),
                    torch.cat([middle[n, :first], middle[n, at:end]]),
                )
        return [found[i] for i in range(len(examples))]

    def loss(self, examples: list[Example]) -> tuple[Tensor, dict[str, float]]:
        states = self.states(self.model, examples, filled=self.own is None)

        def logits(places: list[int]) -> Tensor:
            at = torch.stack([s.last[p] for s, p in zip(states, places, strict=True)])
            return self.model.logits(at)

        answer = [e.answer for e in examples]
        score = torch.tensor([e.score for e in examples], device=self.device)
        first = logits(answer).log_softmax(-1)
        second = logits([a + 1 for a in answer]).log_softmax(-1)
        target = around(score)
        if self.own is not None:
            target = settled(self.settled_score(examples))
        digits = torch.cat([target[:, :1], target[:, 1:2] + target[:, 10:], target[:, 2:10]], 1)
        of_score = -(digits * first[:, self.scores.digits]).sum(-1).mean()
        of_end = self._end_loss(second, target, examples)
        tens = [i for i, e in enumerate(examples) if round(e.score) == 10]
        if tens:
            after = torch.stack([states[i].last[answer[i] + 2] for i in tens])
            of_end = of_end - self.model.logits(after).log_softmax(-1)[:, self.scores.close].mean()
        total = of_score + of_end
        numbers = {"score": of_score.item(), "end": of_end.item()}
        formed = [(i, p) for i in range(0, len(examples), _FORMED)
                  for p in range(*examples[i].form)]  # fmt: skip
        if formed:
            at = torch.stack([states[i].last[p] for i, p in formed])
            wanted = torch.tensor([examples[i].ids[p + 1] for i, p in formed], device=self.device)
            of_form = F.cross_entropy(self.model.logits(at), wanted)
            total = total + of_form
            numbers["form"] = of_form.item()
        if self.phase != "settle":
            of_order = self._order_loss(first, second, score, examples)
            of_grade = self._grade_loss(states, examples)
            of_meaning = self._meaning_loss(states, examples)
            total = total + of_order + of_grade + of_meaning
            numbers |= {"order": of_order.item(), "grade": of_grade.item()}
            numbers["meaning"] = of_meaning.item()
        return total, numbers

    def _end_loss(self, second: Tensor, target: Tensor, examples: list[Example]) -> Tensor:
        """Return how far what follows the answer's first digit is from the target, in nats."""
        if self.own is not None:  # after a `1` in every example: 1 and 10 have what the target says
            one, ten = second[:, self.scores.close], second[:, self.scores.digits[0]]
            return -(target[:, 1] * one + target[:, 10] * ten).mean()
        # After a `1` it must be told whether it is 1 or 10; after another digit it ends.
        written = [e.ids[e.answer + 1] for e in examples]
        following = torch.tensor([e.ids[e.answer + 2] for e in examples], device=self.device)
        weight = torch.tensor(
            [1.0 if w == self.scores.digits[1] else 0.05 for w in written], device=self.device
        )
        return -(weight * second.gather(1, following[:, None])[:, 0]).mean()

    def _order_loss(
        self, first: Tensor, second: Tensor, score: Tensor, examples: list[Example]
    ) -> Tensor:
        """Return how far the order of each query's documents is from the teacher's, in nats.

        Whether a `1` becomes a 10 is known where the answer read it, and nearly always where not:
        no score is as far from 10 as 1.
        """
        p = first[:, self.scores.digits].exp()
        ten = second[:, self.scores.digits[0]].exp()
        is_one = torch.tensor([round(e.score) in (1, 10) for e in examples], device=self.device)
        high = torch.where(is_one, ten, (score > 5).float())
        points = torch.arange(10, device=self.device).float().repeat(len(examples), 1)
        points[:, 1] = 1 + 9 * high.detach()
        expected = (p * points).sum(-1) / p.sum(-1)
        losses = []
        numbers = [e.query for e in examples]
        for number in dict.fromkeys(numbers):
            rows = torch.tensor([n == number for n in numbers], device=self.device)
            wanted = (score[rows] / _SHARPNESS).softmax(-1)
            guessed = (expected[rows] / _SHARPNESS).log_softmax(-1)
            losses.append((wanted * (wanted.log() - guessed)).sum())
        return torch.stack(losses).mean()

    def _meaning_loss(self, states: list[States], examples: list[Example]) -> Tensor:
        """Return how far the middle states of texts are from the first teacher's vectors.

        One linear map reads both from the mean of their tokens' states.
        """
        read, wanted = [], []
        for state, e in zip(states, examples, strict=True):
            pairs = [(e.query_place, self.vectors.query(e.query))]
            pairs.append((e.document_place, self.vectors.document(e.document)))
            for (begin, end), vector in pairs:
                if vector is not None and end > begin:
                    read.append(state.middle[begin:end].float().mean(0))
                    wanted.append(torch.from_numpy(vector))
        targets = torch.stack(wanted).float().to(self.device)
        return 1 - F.cosine_similarity(self.meaning(torch.stack(read)), targets).mean()

    def _grade_loss(self, states: list[States], examples: list[Example]) -> Tensor:
        """Return how badly the probe reads the grade, from the document to the answer."""
        losses = []
        for state, e in zip(states, examples, strict=True):
            logits = self.probe(state.last[e.document_place[0] : e.answer + 1].float())[:, 0]
            wanted = torch.full_like(logits, e.score / 10)
            losses.append(F.binary_cross_entropy_with_logits(logits, wanted))
        return torch.stack(losses).mean()

    def levels(self) -> tuple[Tensor, Tensor]:
        """Return the quantiles of expected scores, by the model at the start, and of grades."""
        assert self.own is not None
        chosen = self._order(_FOR_LEVELS, np.random.default_rng(5))
        examples = [e for n in chosen for e in self.data.examples(int(n), LONGEST)]
        expected = self.expected(self.own, examples)
        part = torch.linspace(0, 1, len(examples) // 20 + 1)
        grades = torch.tensor([e.score for e in examples])
        return expected.quantile(part), grades.quantile(part)

    @torch.no_grad()
    def settled_score(self, examples: list[Example]) -> Tensor:
        """Return the expected scores by the model at the start, stretched to the whole scale."""
        assert self.own is not None
        numbers = list(dict.fromkeys(e.query for e in examples))
        plain = [e for n in numbers for e in self.data.examples(n, LONGEST)]
        expected = self.expected(self.own, plain)
        return torch.from_numpy(np.interp(expected, *self.quantiles)).float().to(self.device)

    @torch.no_grad()
    def expected(self, model: Qwen3, examples: list[Example]) -> Tensor:
        """Return the expected score of each example."""
        found = []
        for at in range(0, len(examples), 64):
            some = examples[at : at + 64]
            states = self.states(model, some, filled=False)
            first = torch.stack([s.last[e.answer] for s, e in zip(states, some, strict=True)])
            second = torch.stack([s.last[e.answer + 1] for s, e in zip(states, some, strict=True)])
            p = self.scores.probabilities(model.logits(first), model.logits(second))
            points = torch.arange(11, device=self.device)
            found.append(((p * points).sum(-1) / p.sum(-1)).cpu())
        return torch.cat(found)

    def evaluate(self, queries: int = 100) -> dict[str, float]:
        """Return how the order of held-out queries' documents agrees with their grades.

        By form of query: the share of pairs of documents, a point or more apart, in its order; of
        the written sets, in how many a text that answers comes first; and over all pairs
        Spearman's correlation.
        """
        some = self.data.held_out[:: -(-len(self.data.held_out) // queries)]
        examples = [e for n in some for e in self.data.examples(n, LONGEST)]
        expected = self.expected(self.model, examples).numpy()
        right: dict[str, list[float]] = {}
        by_query: dict[int, list[tuple[float, float]]] = {}
        for e, value in zip(examples, expected, strict=True):
            by_query.setdefault(e.query, []).append((e.score, float(value)))
        for number, rows in by_query.items():
            form = self.data.groups[number].form.split(",")[0]
            for i, (grade, value) in enumerate(rows):
                for other_grade, other_value in rows[:i]:
                    if abs(grade - other_grade) >= 1:
                        agrees = (grade > other_grade) == (value > other_value)
                        right.setdefault(form, []).append(float(agrees))
        first = [
            max(rows, key=lambda row: row[1])[0] >= _ANSWERS
            for number, rows in by_query.items()
            if self.data.groups[number].form in (SET, PLAIN)
        ]
        found = {form: round(float(np.mean(values)), 4) for form, values in sorted(right.items())}
        scores = [e.score for e in examples]
        found["answer first"] = round(float(np.mean(first)), 4)
        found["correlation"] = round(float(spearmanr(expected, scores).statistic), 4)
        return found

    def _order(self, count: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return queries in the order in which they are learnt, each step's of all kinds."""
        steps = -(-count // _STEP)

        def drawn(numbers: Sequence[int], a_step: int) -> npt.NDArray[np.int64]:
            rounds = -(-steps * a_step // len(numbers)) if a_step else 1
            every = np.concatenate([chance.permutation(numbers) for _ in range(rounds)])
            return every[: steps * a_step].reshape(steps, a_step)

        all_kinds = [
            drawn(self.data.sets, self.sets_a_step),
            drawn(self.data.plain_sets, self.plain_a_step),
            drawn(self.data.graded, _STEP - self.sets_a_step - self.plain_a_step),
        ]
        return np.concatenate(all_kinds, 1).reshape(-1)

    def train(
        self, count: int, fall: float, rate: float, end: Path, start: Path, keep: bool
    ) -> None:
        """Train on `count` queries; see the top of this file."""
        chance = np.random.default_rng([7, *self.phase.encode()])
        order = self._order(count, chance)
        parameters = [p.requires_grad_() for p in self.master]
        rows = self.new_rows.requires_grad_()
        heads = [*self.probe.parameters(), *self.meaning.parameters()]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
                {"params": heads, "weight_decay": 0.0, "faster": 5},
                {"params": [rows], "weight_decay": 0.0, "faster": _NEW_FASTER},
            ],
            lr=rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        partial = end.with_name(f"{end.name}.partial")
        done, spent = self._resumed(partial, optimizer)
        begun = saved = evaluated = time.time()
        sums: dict[str, list[float]] = {}
        step = 0
        while done < count:
            # Seeded by the place, so that a run that was cut off goes on with the same queries.
            draw = random.Random(done)
            examples = [
                e
                for n in order[done : done + _STEP]
                for e in self.data.examples(int(n), LONGEST, draw, _LONG[self.phase])
            ]
            left = (count - done) / max(1, fall * count)
            now = rate * min(1.0, max(left, 0.02)) * min(1.0, (done // _STEP + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = now * group.get("faster", 1)
            total, numbers = self.loss(examples)
            total.backward()
            self._step(parameters, rows, optimizer)
            done, step = done + _STEP, step + 1
            for name, value in numbers.items():
                sums.setdefault(name, []).append(value)
            if step % 25 == 0:
                line: dict[str, Any] = {n: round(float(np.mean(v)), 4) for n, v in sums.items()}
                line |= {"queries": done, "seconds": round(spent + time.time() - begun)}
                sums = {}
                if time.time() - evaluated > _EVALUATE_EVERY:
                    line |= self.evaluate()
                    evaluated = time.time()
                self._log(line, end)
                if time.time() - saved > _SAVE_EVERY:
                    save_as(partial, self.model.shape, self.model.state_dict(), start)
                    self._keep_state(partial, optimizer, done, spent + time.time() - begun)
                    saved = time.time()
        save_as(end, self.model.shape, self.model.state_dict(), start)
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)
        self._log({"queries": done, "seconds": round(spent + time.time() - begun),
                   **self.evaluate(len(self.data.held_out))}, end)  # fmt: skip

    def _step(
        self, parameters: list[Tensor], rows: Tensor, optimizer: torch.optim.Optimizer
    ) -> None:
        for p, q in zip(parameters, self.trained, strict=True):
            assert q.grad is not None
            p.grad, q.grad = q.grad.float(), None
        embedding = self.model.embedding.weight
        assert embedding.grad is not None
        rows.grad, embedding.grad = embedding.grad[self.new].float(), None
        nn.utils.clip_grad_norm_([*parameters, rows], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for p, q in zip(parameters, self.trained, strict=True):
                q.copy_(p)
            embedding[self.new] = rows.to(embedding.dtype)

    @staticmethod
    def _log(line: dict[str, Any], end: Path) -> None:
        print(json.dumps(line), flush=True)
        with end.with_name(f"{end.name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _keep_state(
        self, partial: Path, optimizer: torch.optim.Optimizer, done: int, spent: float
    ) -> None:
        state = {
            "master": self.master, "rows": self.new_rows, "probe": self.probe.state_dict(),
            "meaning": self.meaning.state_dict(),
            "optimizer": optimizer.state_dict(), "done": done, "spent": spent,
        }  # fmt: skip
        torch.save(state, partial / "state.pt.new")
        (partial / "state.pt.new").rename(partial / "state.pt")

    def _resumed(self, partial: Path, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Take up what an earlier run left; return how many queries it saw, and its seconds."""
        path = partial / "state.pt"
        if not path.exists():
            return 0, 0.0
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            for p, q, kept in zip(self.master, self.trained, state["master"], strict=True):
                p.copy_(kept)
                q.copy_(kept)
            self.new_rows.copy_(state["rows"])
            embedding = self.model.embedding.weight
            embedding[self.new] = self.new_rows.to(embedding.dtype)
        self.probe.load_state_dict(state["probe"])
        self.meaning.load_state_dict(state["meaning"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["done"]), float(state["spent"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--phase", choices=list(_LONG), required=True)
    parser.add_argument("--start", required=True)
    parser.add_argument("--end", required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument(
        "--sets", type=int, default=3, help=f"how many of {_STEP} queries are written sets"
    )
    parser.add_argument(
        "--plain", type=int, default=0, help="how many more are sets with plain answers"
    )
    parser.add_argument("--rate", type=float, default=2e-4, help="the highest")
    parser.add_argument("--fall", type=float, default=0.3, help="last part, in which it falls")
    parser.add_argument("--keep", action="store_true", help="leave END.partial as it was last")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    start = arguments.work / arguments.start  # a path of its own stays what it is
    trainer = Trainer(arguments.work, start, arguments.phase, arguments.sets, arguments.plain)
    trainer.train(
        arguments.queries, arguments.fall, arguments.rate, arguments.work / arguments.end, start,
        arguments.keep,
    )  # fmt: skip


if __name__ == "__main__":
    main()
