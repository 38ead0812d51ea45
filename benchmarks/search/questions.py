"""Have a model write questions that passages of a folder answer, in other words than theirs.

    python -m erank_lite.benchmarks.search.questions FOLDER MODEL.gguf --count 100 --out FILE.jsonl

Passages are drawn at random, at most one of a file, and several questions are drafted for each.
Drafts that share more than a third of their words with the passage are thrown away: finding it
again would take no reading. Of the others the one is kept that the passage makes likelier by most,
compared with another passage: it is about this one. Where none is likelier by enough, the passage
is left out. What is finished is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from erank_lite.engines.base import Engine
from erank_lite.errors import ErankLiteError
from erank_lite.families.prompts import Template
from erank_lite.families.text import TextGuide, TextReading
from erank_lite.load import load
from erank_lite.search.chunks import chunks
from erank_lite.search.files import FOREIGN, NoText, Unreadable, read_file
from erank_lite.search.walk import walk
from erank_lite.text.words import Stemmer
from erank_lite.types import Prompt, Request, Sampling, Step

_MOST_SHARED = 1 / 3
_WORDS, _SHOWN = (60, 400), 140  # of a passage; the model is shown its first ones
_DRAFTS = 8
_LEAST_GAIN = 1.0  # nats a token
_LENGTH = (4, 16)  # words of a question
_TOGETHER = 8  # passages
_SYSTEM = (
    "You write what people type who look for help and do not know the technical terms. Use "
    "everyday words, none of the passage's own."
)
_EXAMPLES = (
    (
        "tar -z: Filter the archive through gzip(1). The option can be given when creating or "
        "extracting.",
        "how do I make a folder smaller before mailing it",
    ),
    (
        "The chmod command changes the file mode bits of each given file according to mode.",
        "stop others from opening my diary",
    ),
    (
        "cron(8) examines all stored crontabs, checking each command to see if it should be run "
        "in the current minute.",
        "have a job done by itself every morning",
    ),
)


class MeasuringGuide:
    """Measures how likely given tokens are. See `erank_lite.types.Guide`.

    Attributes:
        logprob: the sum over the tokens measured so far, natural logarithm.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        """Prepare to measure `ids`, which are read after the prompt."""
        self._ids, self._read, self.logprob = tuple(ids), 0, 0.0

    def begin(self) -> Step:
        """Return the first step."""
        return Step(logprobs_for=self._ids[:1])

    def feed(self, token: int, logprobs: Mapping[int, float] | None) -> Step:
        """Take the probability of the next token, and have it read."""
        wanted = self._ids[self._read]
        self.logprob += (logprobs or {}).get(wanted, -math.inf)
        self._read += 1
        if self._read == len(self._ids):
            return Step(done=True)
        return Step(1, (wanted,), 1, (self._ids[self._read],))


@dataclass
class _Passage:
    """A passage, and what was drafted for it."""

    path: str
    text: str
    prompt: Prompt
    drafts: list[str] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)


class Writer:
    """Writes questions with one model."""

    def __init__(self, engine: Engine) -> None:
        """Take the model."""
        self._engine, self._stemmer = engine, Stemmer("questions", "search")
        messages = [("system", _SYSTEM)]
        for passage, question in _EXAMPLES:
            messages += [("user", passage), ("assistant", question)]
        self._template = Template.of_messages(
            engine.tokenizer, engine.chat_template, [*messages, ("user", "{doc}")], ("doc",)
        )
        self._reading = TextReading(engine.tokenizer, engine.end_ids, 24)

    def questions(self, passages: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str | None]]:
        """Yield (path, question) of each passage; None where no draft was good enough."""
        rows = []
        for path, text in passages:
            shown = " ".join(text.split()[:_SHOWN])
            prompt = self._template.prompt({"doc": shown})
            # Its drafts share all of it but the last token, which must be computed.
            rows.append(
                _Passage(path, text, Prompt(prompt.ids, len(prompt.ids) - 1, prompt.think_prefix))
            )
        self._draft(rows)
        self._measure(rows)
        for row in rows:
            best = max(row.gains, key=lambda draft: row.gains[draft], default=None)
            good = best is not None and row.gains[best] >= _LEAST_GAIN
            yield row.path, best if good else None

    def _draft(self, rows: Sequence[_Passage]) -> None:
        requests = [
            Request(
                number * _DRAFTS + draft, row.prompt, lambda: TextGuide(self._reading),
                self._reading.max_tokens(), sampling=Sampling(1.0, 0.95, draft),
            )
            for number, row in enumerate(rows)
            for draft in range(_DRAFTS)
        ]  # fmt: skip
        for done in self._engine.run(iter(requests)):
            row = rows[done.key // _DRAFTS]
            text = " ".join(done.guide.text.split()).strip("\"' ")
            known = text in (question for _, question in _EXAMPLES)
            if known or not _LENGTH[0] <= len(text.split()) <= _LENGTH[1]:
                continue
            if shared(text, row.text, self._stemmer) <= _MOST_SHARED:
                row.drafts.append(text)

    def _measure(self, rows: Sequence[_Passage]) -> None:
        """Find by how much each draft's passage makes it likelier than the next one does."""
        requests: list[Request[MeasuringGuide]] = []
        of: list[tuple[_Passage, str, int, int]] = []
        for number, row in enumerate(rows):
            other = rows[(number + 1) % len(rows)]
            for draft in sorted(set(row.drafts)):
                ids = self._engine.tokenizer.encode(draft).ids
                for sign, prompt in ((1, row.prompt), (-1, other.prompt)):
                    of.append((row, draft, sign, len(ids)))
                    requests.append(
                        Request(len(requests), prompt, partial(MeasuringGuide, ids), len(ids) + 2)
                    )
        for done in self._engine.run(iter(requests)):
            row, draft, sign, length = of[done.key]
            gain = sign * done.guide.logprob / length
            row.gains[draft] = row.gains.get(draft, 0.0) + gain


def passages(folder: Path, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (path below the folder, passage), one of a file, in random order."""
    draw = random.Random(seed)
    files = sorted(Path(e.path) for e in walk(folder, lambda path, why: None))
    draw.shuffle(files)
    for path in files:
        if path.suffix.lower() in FOREIGN:
            continue
        try:
            found = [
                c.text for c in chunks(read_file(path))
                if _WORDS[0] <= len(c.text.split()) <= _WORDS[1]
            ]  # fmt: skip
        except (Unreadable, NoText, OSError):
            continue
        if found:
            yield path.relative_to(folder).as_posix(), draw.choice(found)


def shared(question: str, passage: str, stemmer: Stemmer) -> float:
    """Return which part of a question's words its passage has."""
    words = set(stemmer.terms(question))
    return len(words & set(stemmer.terms(passage))) / max(1, len(words))


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", help="as rerank takes it; an instruction-tuned model")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    done = arguments.out.read_text("utf-8").splitlines() if arguments.out.is_file() else []
    asked = {json.loads(line)["path"] for line in done}
    good = sum(json.loads(line)["query"] is not None for line in done)
    try:
        with (
            load(arguments.model, options={"context_length": 2048}) as engine,
            arguments.out.open("a", encoding="utf-8") as out,
        ):
            writer = Writer(engine)
            rest = (pair for pair in passages(folder) if pair[0] not in asked)
            while good < arguments.count and (some := [*itertools.islice(rest, _TOGETHER)]):
                for path, question in writer.questions(some):
                    good += question is not None
                    row = {"query": question, "path": path}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                out.flush()
                print(f"{good} of {arguments.count}", file=sys.stderr)
    except ErankLiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
