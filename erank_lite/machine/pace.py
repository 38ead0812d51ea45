"""How fast a machine reads and writes with a model: learnt as it runs, kept, and foretold from.

The time of a step is taken as a sum of four costs, each proportional to what has to be done:

    weights   bytes of weights that pass by once, whatever is computed with them
    reading   operations for the prompt tokens of the step
    writing   operations for the tokens that were written
    looking   operations for all that these tokens look back at

The four rates are fitted to the steps that were measured (least squares, drawn a little to the
rates assumed before, so that what a job does not show stays as it was). What is kept is the sums
that this takes, by model and by all that changes its speed. Of a model that was not measured here,
the rates of the nearest that was are taken, the less the more it differs in size, or those of a
usual machine: its forecast is marked as assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from erank_lite.machine.answers import AnswerLengths
from erank_lite.machine.hardware import cpu_name
from erank_lite.machine.kept import keep, kept
from erank_lite.machine.plan import Plan
from erank_lite.machine.shapes import ModelShape
from erank_lite.util.units import duration

USUAL_DOCUMENTS, USUAL_DOCUMENT = 100, 300
"""Documents of a usual job, and tokens of each."""

_FILE = "pace.json"
_DRAW = 1e-3  # how much the rates assumed before count, against what was measured
_FADE = 0.5  # what was measured in earlier runs counts so much less with each run
_LEAST, _SHORTEST = 8, 2.0  # steps, and seconds, below which nothing is kept
_FIRST = 2  # steps that do not count: the weights come from the disk
_FIELDS = {"size", "costs", "answers"}
_NEAR = 4  # times as large or small, within which a model's rates are taken for another's

# Of a usual machine: bytes and operations a second of one CPU core, and of a GPU.
_AROUND = 40  # tokens of a prompt beside the document: before it, shared, and after it
_LIMITS: dict[str | int, int] = {"none": 24}  # tokens that an answer without reasoning may take
_CORE = (8e9, 80e9, 60e9, 40e9)
_GPU = (500e9, 50e12, 20e12, 10e12)


@dataclass(frozen=True)
class Work:
    """What a job asks for, in tokens.

    Attributes:
        documents: how many.
        prompt: tokens of each prompt, the part that documents share left out.
        answer: tokens that each answer takes, its reasoning included.
        shared: tokens at the beginning of all prompts of a query.
        assumed: no such answers were seen here.
    """

    documents: int
    prompt: float
    answer: float
    shared: float = 0.0
    assumed: bool = False


@dataclass(frozen=True)
class Pace:
    """Seconds that each kind of cost takes, of one model on this machine.

    Attributes:
        costs: seconds per byte of weights, per operation of reading, of writing and of looking.
        shape: of the model.
        answers: how long its answers are.
        assumed: nothing was measured with this model here.
    """

    costs: tuple[float, float, float, float]
    shape: ModelShape
    answers: AnswerLengths = field(default_factory=AnswerLengths)
    assumed: bool = True

    def forecast(self, work: Work, together: int) -> Forecast:
        """Return how long a job takes.

        Args:
            work: the job.
            together: documents that are decoded together.
        """
        rows = max(1, min(together, work.documents))
        each = self.document(work.prompt, work.answer, rows, work.shared)
        return Forecast(work.documents * each, self.assumed or work.assumed)

    def document(self, prompt: float, answer: float, together: int, shared: float = 0.0) -> float:
        """Return the seconds of one document's share of a step's time, from first to last."""
        weights, looking = _per_token(self.shape)
        looked = prompt * (shared + prompt / 2) + answer * (shared + prompt + answer / 2)
        done = (
            self.shape.passed_by * answer / together,
            2 * weights * prompt,
            2 * (weights + self.shape.output_weights) * answer,
            looking * looked,
        )
        return sum(cost * amount for cost, amount in zip(self.costs, done, strict=True))


@dataclass(frozen=True)
class Forecast:
    """How long a job is expected to take.

    Attributes:
        seconds: from the first document to the last; loading not counted.
        assumed: this model has not run on this machine, or not in this mode of thinking.
    """

    seconds: float
    assumed: bool

    def __str__(self) -> str:
        """Return it in words.

        Example:
            >>> str(Forecast(2770, assumed=True)), str(Forecast(12, assumed=False))
            ('about 46 min (assumed: not yet measured here)', 'about 12 s')
        """
        doubt = " (assumed: not yet measured here)" if self.assumed else ""
        return f"about {duration(self.seconds)}{doubt}"


class Meter:
    """Measures an engine's steps, and keeps what was learnt when it is done.

    Example:
        >>> shape = ModelShape.published("ERank-4B", "Q4_K_M")
        >>> meter = Meter(shape, Plan(engine="llama.cpp", device="cpu", threads=2))
        >>> for _ in range(100):
        ...     for past in (500, 700):
        ...         meter.wrote(past)
        ...     meter.step_took(0.9)
        >>> job = Work(documents=2, prompt=0, answer=200)
        >>> print(meter.pace.forecast(job, together=2))
        about 3 min
    """

    def __init__(self, shape: ModelShape, plan: Plan) -> None:
        """Begin with what is kept of this model, or assumed."""
        self._shape, self._key = shape, _key(shape, plan)
        self._together = plan.sequences or 1
        self._pace = find_pace(shape, plan)
        self._fitted = 0
        self.answers = self._pace.answers
        self._before = np.array(self._pace.costs)
        self._squares = np.zeros((4, 4))
        self._products = np.zeros(4)
        self._time = self._seconds = 0.0
        self._steps = -_FIRST
        self._read = self._written = self._looked = 0

    def read(self, past: int, count: int) -> None:
        """Take that this step read `count` tokens after `past` others."""
        self._read += count
        self._looked += count * past + count * (count + 1) // 2

    def wrote(self, past: int) -> None:
        """Take that this step wrote a token after `past` others."""
        self._written += 1
        self._looked += past + 1

    def step_took(self, seconds: float) -> None:
        """Take how long the step took, and begin the next."""
        read, written, looked = self._read, self._written, self._looked
        self._read = self._written = self._looked = 0
        if not read and not written:
            return
        self._steps += 1
        if self._steps <= 0:
            return
        weights, looking = _per_token(self._shape)
        done = np.array(
            (
                self._shape.passed_by,
                2 * weights * read,
                2 * (weights + self._shape.output_weights) * written,
                looking * looked,
            ),
            float,
        )
        self._squares += np.outer(done, done)
        self._products += done * seconds
        self._time += seconds**2
        self._seconds += seconds

    @property
    def pace(self) -> Pace:
        """What is known by now."""
        # Ever more seldom: to fit takes as long as a step of a small model.
        if self._steps >= max(_LEAST, 2 * self._fitted):
            self._fitted = self._steps
            costs = _fit(self._squares, self._products, self._time, self._before)
            self._pace = replace(self._pace, costs=tuple(costs.tolist()), assumed=False)
        return self._pace

    def share(self, prompt: int, past: int, limit: int) -> float:
        """Return how much of a document is done, from 0 to almost 1.

        Args:
            prompt: tokens of its prompt.
            past: tokens that were computed, those written included.
            limit: tokens that its answer may take.
        """
        answer, written = self.answers.mean(limit), max(0, past - prompt)
        done = self.pace.document(min(past, prompt), written, self._together)
        return min(0.95, done / self.pace.document(prompt, answer, self._together))

    def keep(self) -> None:
        """Write what was learnt to the cache; where that cannot be written, nothing is kept."""
        if self._steps < _LEAST or self._seconds < _SHORTEST:
            return
        keep(_FILE, self._key, self._entry)

    def _entry(self, old: dict[str, Any]) -> dict[str, Any]:
        squares = self._squares + _FADE * np.array(old.get("squares", np.zeros((4, 4))))
        products = self._products + _FADE * np.array(old.get("products", np.zeros(4)))
        time = self._time + _FADE * old.get("time", 0.0)
        return {
            "size": self._shape.size,
            "costs": _fit(squares, products, time, self._before).tolist(),
            "squares": squares.tolist(),
            "products": products.tolist(),
            "time": time,
            "answers": self.answers.known,
        }


def find_pace(shape: ModelShape, plan: Plan) -> Pace:
    """Return how fast a model runs here as planned: as measured, or assumed."""
    key = _key(shape, plan)
    entries = [entry for entry in kept(_FILE) if entry.keys() >= _FIELDS]
    same = [e for e in entries if e["key"] == key]
    if same:
        known = {int(limit): lengths for limit, lengths in same[-1]["answers"].items()}
        return Pace(tuple(same[-1]["costs"]), shape, AnswerLengths(known), assumed=False)
    rates = _CORE if plan.device in ("cpu", None) else _GPU
    cores = (plan.threads or 1) if rates is _CORE else 1
    costs = [1 / (rate * cores) for rate in rates]
    place = ("cpu", "engine", "device", "threads", "gpu_layers")
    alike = [e for e in entries if all(e["key"].get(name) == key[name] for name in place)]
    if alike:
        nearest = min(alike, key=lambda e: _times(e["size"], shape.size))
        # A model of quite another size says little: small ones reach less of what a machine can do.
        trust = min(1.0, _NEAR / _times(nearest["size"], shape.size))
        costs = [a ** (1 - trust) * b**trust for a, b in zip(costs, nearest["costs"], strict=True)]
    return Pace(tuple(costs), shape)  # type: ignore[arg-type]


def _times(a: int, b: int) -> float:
    """Return how many times as large the larger is."""
    return max(a, b, 1) / max(1, min(a, b))


def foretell(
    shape: ModelShape,
    plan: Plan,
    documents: int = USUAL_DOCUMENTS,
    document_tokens: int = USUAL_DOCUMENT,
    thinking: str | int = "full",
) -> Forecast:
    """Return how long a job takes as planned, nothing but its size known.

    Args:
        shape: of the model.
        plan: how it runs.
        documents: how many are ranked.
        document_tokens: of each.
        thinking: "full", a budget in tokens, or "none".

    Example:
        >>> shape = ModelShape.published("ERank-4B", "Q4_K_M")
        >>> slow = Plan(engine="llama.cpp", device="cpu", threads=2, sequences=16)
        >>> short = foretell(shape, slow, thinking="none").seconds
        >>> short < foretell(shape, slow, thinking=100).seconds < foretell(shape, slow).seconds
        True
    """
    pace = find_pace(shape, plan)
    limit = _LIMITS.get(thinking, shape.max_new_tokens)
    if isinstance(thinking, int):
        limit = thinking + _LIMITS["none"]
    answer, known = pace.answers.mean(limit), pace.answers.knows(limit)
    work = Work(documents, document_tokens + _AROUND, answer, _AROUND, not known)
    return pace.forecast(work, plan.documents or plan.sequences or 1)


def _per_token(shape: ModelShape) -> tuple[float, float]:
    """Return weights that a token is multiplied by, and operations for each token looked at."""
    return shape.layer_weights, 4.0 * shape.layers * shape.heads * shape.head_size


def _key(shape: ModelShape, plan: Plan) -> dict[str, Any]:
    """Return all that the pace depends on."""
    return {
        "cpu": cpu_name(),
        "engine": plan.engine,
        "device": plan.device,
        "threads": plan.threads,
        "gpu_layers": plan.gpu_layers,
        "flash_attention": plan.flash_attention,
        "flash_reading": plan.flash_reading,
    } | _sizes(shape)


def _sizes(shape: ModelShape) -> dict[str, int]:
    """Return what tells a model from others."""
    return {
        "layers": shape.layers,
        "width": shape.width,
        "inner_width": shape.inner_width,
        "vocabulary": shape.vocabulary,
        # To a step of 6 %: sizes that are foretold are nearly those of the files.
        "size": round(math.log(max(1, shape.size)) / 0.06),
    }


def _fit(
    squares: npt.NDArray[np.float64],
    products: npt.NDArray[np.float64],
    time: float,
    before: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the costs, none negative, that fit best: coordinate descent, in units of `before`."""
    a = squares * np.outer(before, before) + _DRAW * time * np.eye(4)
    b = products * before + _DRAW * time
    found = np.ones(4)
    for _ in range(500):
        for i in range(4):
            found[i] = max(0.0, found[i] + (b[i] - a[i] @ found) / a[i, i])
    return np.maximum(found, 1e-3) * before
