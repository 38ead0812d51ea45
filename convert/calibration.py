"""The text that shows a quantizer which weights matter: what the model reads and writes at work.

A sample is ERank's prompt for an example (instruction, query, document), followed by what the
model itself generates then, reasoning and answer, as token ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO

from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.score import ScoreGuide, ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.models.cache import exclusive, identity
from erank_lite.models.checkpoint import Checkpoint
from erank_lite.text.tokenizer import clean
from erank_lite.types import Request
from erank_lite.util.cache_folder import cache_folder
from erank_lite.util.reporter import SILENT, Reporter
from erank_lite.util.units import duration

_log = logging.getLogger(__name__)

DEFAULT = Path(__file__).with_name("calibration.jsonl")
"""The examples in this package, written for it."""

TYPE = "Q8_0"
"""The quantization type that generates the text: near the original, half its size."""

_FIRST, _FIRST_SECONDS = 8, 5.0  # prompts and seconds, after which the rest can be forecast

Samples = Sequence[Sequence[int]]
OpenEngine = Callable[[Path, int, Reporter], Engine]
"""From a checkpoint's folder, a context length in tokens, and a reporter for the conversion that
may be needed first, to an engine that runs the checkpoint as `TYPE`."""


@dataclass(frozen=True, slots=True)
class CalibrationExample:
    """What one calibration prompt is made of; `instruction` is a name or free text."""

    instruction: str
    query: str
    document: str


def read_examples(path: Path) -> list[CalibrationExample]:
    """Read examples from a JSONL file: objects with `instruction`, `query` and `document`.

    Blank lines are skipped, other keys ignored.

    Raises:
        InputError: the file cannot be read, a line is broken, or there is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(
            f"the calibration file `{path}` cannot be read: {error.strerror}"
        ) from None
    examples = [
        _example(line, f"`{path}`, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not examples:
        raise InputError(
            f"the calibration file `{path}` is empty",
            "give a JSON object a line, with instruction, query and document",
        )
    return examples


def _example(line: bytes, where: str) -> CalibrationExample:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a JSON object, not a {type(value).__name__}")
    found = {}
    for key in (f.name for f in fields(CalibrationExample)):
        text = value.get(key)
        if not isinstance(text, str) or not text.strip():
            wrong = "is missing" if key not in value else "must be a string with text in it"
            raise InputError(f"{where}: {key!r} {wrong}")
        found[key] = clean(text)
    return CalibrationExample(**found)


def digest(content: Iterable[CalibrationExample] | Samples) -> str:
    """Return the SHA-256 of examples, or of lists of token ids, whatever file they came from."""
    entries = [astuple(c) if isinstance(c, CalibrationExample) else list(c) for c in content]
    return hashlib.sha256(json.dumps(entries, ensure_ascii=False).encode()).hexdigest()


class SelfGeneratedCalibration:
    """Prompts for examples, and what the model generates after them.

    Attributes:
        prompts: one for each example.
        context_length: tokens that the longest prompt and its completion may take.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        examples: Sequence[CalibrationExample],
        open_engine: OpenEngine | None = None,
    ) -> None:
        """Make the prompts.

        Args:
            checkpoint: the model.
            examples: as `read_examples` returns them.
            open_engine: opens what generates the samples that are not in the cache.

        Raises:
            InputError: an example cannot be made a prompt.
            ModelError: the checkpoint's tokenizer or chat template cannot be used.
        """
        self._checkpoint, self._open_engine = checkpoint, open_engine
        tokenizer = checkpoint.tokenizer()
        builder = PromptBuilder(tokenizer, checkpoint.chat_template())
        context = checkpoint.config["max_position_embeddings"]
        vocabulary = ScoreVocabulary(tokenizer, checkpoint.end_ids(tokenizer))
        self._guides = ScoreGuides(vocabulary, "full", checkpoint.max_new_tokens, context)
        self._max_tokens = self._guides.max_tokens()
        self.prompts = []
        for number, example in enumerate(examples, 1):
            try:
                query = builder.query(example.query, example.instruction)
                self.prompts.append(query.document(example.document, context - self._max_tokens))
            except InputError as error:
                message = f"calibration example {number}: {error.message}"
                raise InputError(message, error.hint) from None
        self.context_length = max(len(p.ids) for p in self.prompts) + self._max_tokens

    @property
    def tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(p.ids) for p in self.prompts)

    @property
    def folder(self) -> Path:
        """Where in the user's cache the completions are, and what is made of them."""
        group, state, _ = identity(self._checkpoint.path)
        key = hashlib.sha256(f"{state} {TYPE} {self._guides.max_new_tokens}".encode())
        for prompt in self.prompts:
            key.update(array("I", [len(prompt.ids), *prompt.ids]).tobytes())
        return cache_folder() / "calibration" / group / key.hexdigest()[:16]

    def samples(self, reporter: Reporter = SILENT) -> list[tuple[int, ...]]:
        """Return each prompt with the model's own completion.

        Completions are kept in the user's cache as they finish, so a run that was stopped is
        resumed, and another one reads them.

        Args:
            reporter: gets the tokens of the prompts that are done, and, where it takes long, a
                message that says how long it still takes.

        Raises:
            InputError: there is nothing to generate a completion that is missing.
            ModelError: the model cannot be used, or no completion came.
        """
        file = self.folder / "completions.jsonl"
        with exclusive(file):
            completions = _read_completions(file)
            missing = [i for i in range(len(self.prompts)) if i not in completions]
            if missing:
                if self._open_engine is None:
                    raise InputError(
                        "nothing was given to generate the calibration text",
                        "pass `open_engine`, such as erank_lite.load.engine_for_calibration",
                    )
                engine = self._open_engine(self._checkpoint.path, self.context_length, reporter)
                with engine, file.open("a", encoding="ascii") as stream:
                    for index, ids in self._generate(engine, missing, reporter):
                        completions[index] = ids
                        _append(stream, index, ids)
        if not completions:
            raise ModelError("the model completed none of the calibration prompts")
        return [self.prompts[i].ids + completions[i] for i in sorted(completions)]

    def _generate(
        self, engine: Engine, which: Sequence[int], reporter: Reporter
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield (index of the prompt, ids of its completion) as they finish."""

        def request(index: int) -> Request[ScoreGuide]:
            prompt = self.prompts[index]
            return Request(index, prompt, lambda: self._guides.guide(prompt), self._max_tokens)

        sizes = {i: len(self.prompts[i].ids) for i in which}
        done, total, start, forecast = 0, sum(sizes.values()), time.monotonic(), False
        reporter.progress("reasoning", 0, total, "tokens")
        for count, completion in enumerate(engine.run(map(request, which)), 1):
            done += sizes[completion.key]
            reporter.progress("reasoning", done, total, "tokens")
            taken = time.monotonic() - start
            if not forecast and count >= _FIRST and taken > _FIRST_SECONDS:
                forecast = True
                left = duration(taken * (total - done) / done)
                reporter.message(
                    f"the model writes its calibration text first: about {left}; it is kept"
                )
            if completion.failure is not None:
                _log.warning("a calibration prompt is left out: %s", completion.failure)
                continue
            yield completion.key, completion.guide.ids


def _append(stream: IO[str], index: int, ids: tuple[int, ...]) -> None:
    stream.write(json.dumps({"prompt": index, "ids": ids}) + "\n")
    stream.flush()


def _read_completions(file: Path) -> dict[int, tuple[int, ...]]:
    """Return what a completions file holds; a line that a killed run left unfinished is removed."""
    if not file.is_file():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        file.write_bytes(whole)
    try:
        return {e["prompt"]: tuple(e["ids"]) for e in map(json.loads, whole.splitlines())}
    except (ValueError, KeyError, TypeError):
        _log.warning("%s is damaged: the calibration text is generated again", file)
        file.unlink()
        return {}
