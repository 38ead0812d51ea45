"""The text that tells a quantizer which weights matter: what the model will see at work.

A sample is ERank's prompt for a (instruction, query, document) triple, followed by what the model
itself writes then, reasoning and answer, as token ids.
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

from erank_lite.engines import engine_class
from erank_lite.engines.base import Engine
from erank_lite.errors import InputError, ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.score import MAX_NEW_TOKENS, ScoreGuide
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.models.checkpoint import CheckpointFolder
from erank_lite.models.prepare import cache_folder, exclusive, identity, model_file
from erank_lite.text.tokenizer import clean
from erank_lite.types import Progress, Prompt, Request

_log = logging.getLogger(__name__)

DEFAULT = Path(__file__).with_name("calibration.jsonl")
"""The set that comes along: written for this package."""

# The model's own text is written by this form of it: near the original, half its size.
_TYPE = "Q8_0"
_FIRST, _FIRST_SECONDS = 8, 5.0  # documents and seconds, after which the rest can be told

Samples = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class CalibrationExample:
    """What one calibration prompt is made of; `instruction` is a name or free text."""

    instruction: str
    query: str
    document: str


def read_examples(path: Path) -> list[CalibrationExample]:
    """Read triples from a JSONL file: objects with `instruction`, `query` and `document`.

    Blank lines are skipped, other keys ignored.

    Raises:
        InputError: the file cannot be read, a line is broken, or there is none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"the calibration file {path} cannot be read: {error.strerror}") from None
    triples = [
        _triple(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not triples:
        raise InputError(
            f"the calibration file {path} is empty: give a JSON object a line, with instruction, "
            "query and document"
        )
    return triples


def _triple(line: bytes, place: str) -> CalibrationExample:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place} must be a JSON object, not a {type(value).__name__}")
    found = {}
    for key in (f.name for f in fields(CalibrationExample)):
        text = value.get(key)
        if not isinstance(text, str) or not text.strip():
            wrong = "is missing" if key not in value else "must be a string with text in it"
            raise InputError(f"{place}: {key!r} {wrong}")
        found[key] = clean(text)
    return CalibrationExample(**found)


def digest(content: Iterable[CalibrationExample] | Samples) -> str:
    """Return the SHA-256 of triples, or of lists of token ids, whatever file they came from."""
    entries = [astuple(c) if isinstance(c, CalibrationExample) else list(c) for c in content]
    return hashlib.sha256(json.dumps(entries, ensure_ascii=False).encode()).hexdigest()


class SelfGeneratedCalibration:
    """Prompts for triples, and what the model writes after them."""

    def __init__(self, source: CheckpointFolder, triples: Sequence[CalibrationExample]) -> None:
        """Make the prompts.

        Args:
            source: the model's checkpoint.
            triples: as `read_examples` returns them.

        Raises:
            InputError: a triple cannot be made a prompt.
            ModelError: the checkpoint's tokenizer or chat template cannot be used.
        """
        self.source = source
        tokenizer = source.tokenizer()
        core = PromptBuilder(tokenizer, source.chat_template())
        context = source.config["max_position_embeddings"]
        # A short context keeps at least half of its room for the prompt, as in `Reranker`.
        self._limit = min(source.max_new_tokens or MAX_NEW_TOKENS, context // 2)
        vocabulary = ScoreVocabulary(tokenizer, source.end_ids(tokenizer))
        capacity = ScoreGuide(vocabulary, Prompt((), 0), "full", self._limit).max_tokens
        self.prompts = []
        for number, triple in enumerate(triples, 1):
            try:
                query = core.query(triple.query, triple.instruction)
                self.prompts.append(query.document(triple.document, context - capacity))
            except InputError as error:
                raise InputError(f"calibration triple {number}: {error}") from None
        self.context = max(len(p.ids) for p in self.prompts) + capacity

    @property
    def tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(p.ids) for p in self.prompts)

    @property
    def folder(self) -> Path:
        """Where in the user's cache the completions are, and what is made of them."""
        group, state, _ = identity(self.source.path)
        key = hashlib.sha256(f"{state} {_TYPE} {self._limit}".encode())
        for prompt in self.prompts:
            key.update(array("I", [len(prompt.ids), *prompt.ids]).tobytes())
        return cache_folder() / "calibration" / group / key.hexdigest()[:16]

    def samples(
        self,
        engine: Engine | None = None,
        *,
        calibrating: Callable[[float], None] = lambda seconds: None,
        progress: Progress = lambda stage, done, total: None,
    ) -> list[tuple[int, ...]]:
        """Return each prompt with the model's own completion.

        Completions are kept in the user's cache as they finish, so a run that was stopped goes on
        where it was, and another one reads them.

        Args:
            engine: runs the model; None converts the checkpoint to GGUF, once, and takes
                llama.cpp. What another engine writes is not kept.
            calibrating: called once, with the seconds that are left, when that can be told.
            progress: called as it goes on.

        Raises:
            ModelError: the model cannot be used, or no completion came.
        """
        if engine is not None:
            written = dict(self._write(engine, range(len(self.prompts)), calibrating, progress))
        else:
            written = self._kept(calibrating, progress)
        if not written:
            raise ModelError("the model completed none of the calibration prompts")
        return [self.prompts[i].ids + written[i] for i in sorted(written)]

    def _kept(
        self, calibrating: Callable[[float], None], progress: Progress
    ) -> dict[int, tuple[int, ...]]:
        """Return all completions: those in the cache, and the missing ones, which go there."""
        file = self.folder / "completions.jsonl"
        with exclusive(file):
            written = _read_completions(file)
            missing = [i for i in range(len(self.prompts)) if i not in written]
            if not missing:
                return written
            path = model_file(f"{self.source.path}:{_TYPE}", progress)
            kind = engine_class("llama.cpp")
            engine = kind(path, context_length=self.context)  # type: ignore[call-arg]
            with engine, file.open("a", encoding="ascii") as stream:
                for index, ids in self._write(engine, missing, calibrating, progress):
                    written[index] = ids
                    _append(stream, index, ids)
        return written

    def _write(
        self,
        engine: Engine,
        which: Sequence[int],
        calibrating: Callable[[float], None],
        progress: Progress,
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield (number of the prompt, ids of its completion) as they finish."""
        vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)

        def request(index: int) -> Request:
            prompt = self.prompts[index]
            return Request(
                index, prompt, lambda: ScoreGuide(vocabulary, prompt, "full", self._limit)
            )

        sizes = {i: len(self.prompts[i].ids) for i in which}
        done, total, start, told = 0, sum(sizes.values()), time.monotonic(), False
        progress("reasoning", 0, total)
        for count, completion in enumerate(engine.run(map(request, which)), 1):
            done += sizes[completion.key]
            progress("reasoning", done, total)
            taken = time.monotonic() - start
            if not told and count >= _FIRST and taken > _FIRST_SECONDS:
                told = True
                calibrating(taken * (total - done) / done)
            if completion.failure is not None:
                _log.warning("a calibration prompt is left out: %s", completion.failure)
                continue
            assert isinstance(completion.guide, ScoreGuide)
            yield completion.key, completion.guide.ids


def _append(stream: IO[str], index: int, ids: tuple[int, ...]) -> None:
    stream.write(json.dumps({"prompt": index, "ids": ids}) + "\n")
    stream.flush()


def _read_completions(file: Path) -> dict[int, tuple[int, ...]]:
    """Return what a completions file holds; a line that a killed run left unfinished goes."""
    if not file.is_file():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        file.write_bytes(whole)
    try:
        return {e["prompt"]: tuple(e["ids"]) for e in map(json.loads, whole.splitlines())}
    except (ValueError, KeyError, TypeError):
        _log.warning("%s is damaged: the calibration text is written anew", file)
        file.unlink()
        return {}
