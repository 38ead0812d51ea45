"""Have an instruction-tuned model write what people would type to find a document.

    python -m training.written WORK MODEL.gguf [--count 2000]

reads WORK/documents.jsonl and writes WORK/written.jsonl: `id` of the document, `form`, `text`. For
each document drawn, four forms in one answer: keywords, a question, a problem in everyday words, a
how or why. What is finished is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
import time
from pathlib import Path

from erank_lite.families.prompts import Template
from erank_lite.families.text import TextGuide, TextReading
from erank_lite.load import load
from erank_lite.types import Request, Sampling

FORMS = ("keywords", "question", "problem", "how or why")
_TOGETHER = 16
_BUDGET = 72  # tokens of the four lines
_LEAST_WORDS = 35  # of a document
_SYSTEM = (
    "You write what four different people would type into a search box to find the text: a few "
    "keywords, a question, a problem in everyday words, and a question that begins with how or "
    "why. Each can be understood by someone who has not seen the text. Do not copy its sentences."
)
_EXAMPLES = (
    (
        "Chlorophyll in the leaves absorbs red and blue light and reflects green. With the energy "
        "of that light the plant turns water and carbon dioxide into sugar, and gives off oxygen.",
        "keywords: photosynthesis leaf pigment sunlight\n"
        "question: what do plants need to make their own food\n"
        "problem: houseplant in a dark corner does not grow\n"
        "how or why: why are leaves green",
    ),
    (
        "The Treaty of Tordesillas, signed in 1494, divided the newly reached lands outside Europe "
        "between Portugal and Castile along a meridian west of the Cape Verde islands.",
        "keywords: tordesillas 1494 meridian portugal spain\n"
        "question: which treaty divided the new world between spain and portugal\n"
        "problem: cannot remember why brazil belonged to portugal\n"
        "how or why: how did spain and portugal split the americas",
    ),
)


def _documents(work: Path) -> list[dict[str, str]]:
    """Return the documents in the order in which they are written for, sources by turns."""
    chance = random.Random(3)
    by_source: dict[str, list[dict[str, str]]] = {}
    with (work / "documents.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if len(row["text"].split()) >= _LEAST_WORDS:
                by_source.setdefault(row["source"], []).append(row)
    for rows in by_source.values():
        chance.shuffle(rows)
    keyed = [
        ((place + chance.random()) / len(rows) ** 0.5, row)
        for rows in by_source.values()
        for place, row in enumerate(rows)
    ]
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _read(answer: str) -> dict[str, str]:
    """Return what is written for each form."""
    found = {}
    for line in answer.splitlines():
        form, colon, text = line.partition(":")
        text = re.sub(r"\s+", " ", text).strip(" \"'*")
        if colon and form.strip(" *-").lower() in FORMS and 2 <= len(text.split()) <= 20:
            found[form.strip(" *-").lower()] = text
    return found


def main(work: Path, model: str, count: int) -> None:
    path = work / "written.jsonl"
    known = {text for _, example in _EXAMPLES for text in _read(example).values()}
    done = set()
    if path.exists():
        done = {json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()}
    waiting = iter([d for d in _documents(work)[:count] if d["id"] not in done])
    total, begun, made = count - len(done), time.time(), 0
    with (
        load(model, options={"context_length": 1024}) as engine,
        path.open("a", encoding="utf-8") as out,
    ):
        messages = [("system", _SYSTEM)]
        for document, example in _EXAMPLES:
            messages += [("user", document), ("assistant", example)]
        messages.append(("user", "{doc}"))
        template = Template.of_messages(engine.tokenizer, engine.chat_template, messages, ("doc",))
        reading = TextReading(engine.tokenizer, engine.end_ids, _BUDGET)
        while some := list(itertools.islice(waiting, _TOGETHER)):
            requests = [
                Request(
                    number, template.prompt({"doc": row["text"]}), lambda: TextGuide(reading),
                    reading.max_tokens(), sampling=Sampling(0.8, 0.95, number),
                )
                for number, row in enumerate(some)
            ]  # fmt: skip
            for answered in engine.run(iter(requests)):
                row = some[answered.key]
                written = _read(answered.guide.text)
                rows = [(f, t) for f, t in written.items() if t not in known] or [("none", "")]
                for form, text in rows:
                    line = {"id": row["id"], "form": form, "text": text}
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
            made += len(some)
            left = (time.time() - begun) / made * (total - made) / 60
            print(f"{made} of {total} documents, {left:.0f} minutes left", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", help="as erank-lite rerank takes it; an instruction-tuned model")
    parser.add_argument("--count", type=int, default=2_000, help="documents")
    arguments = parser.parse_args()
    main(arguments.work, arguments.model, arguments.count)
