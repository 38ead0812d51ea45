"""Have a model write questions that passages of a folder answer, in other words than theirs.

    python -m erank_lite.benchmarks.search.questions FOLDER MODEL.gguf --count 100 --out FILE.jsonl

Passages are drawn at random, at most one of a file. A question that shares more than a third of its
words with its passage is thrown away: finding it again would take no reading. What is finished is
kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erank_lite.search.chunks import chunks
from erank_lite.search.files import FOREIGN, NoText, Unreadable, read_file
from erank_lite.search.walk import walk
from erank_lite.text.words import Stemmer

_MOST_SHARED = 1 / 3
_WORDS = (40, 300)  # of a passage
_ASK = (
    "Here is a passage of a file:\n\n{passage}\n\nWrite one short question that this passage "
    "answers, as somebody would ask it who has never seen it: use other words than the passage. "
    "Answer with the question alone."
)


def passages(folder: Path, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (path below the folder, passage), one of a file, in random order."""
    draw = random.Random(seed)
    files = [Path(e.path) for e in walk(folder, lambda path, why: None)]
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
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    from llama_cpp import Llama

    folder, stemmer = arguments.folder.resolve(), Stemmer("questions", "search")
    done = arguments.out.read_text("utf-8").splitlines() if arguments.out.is_file() else []
    asked = {json.loads(line)["path"] for line in done}
    good = sum(json.loads(line)["query"] is not None for line in done)
    model: Any = Llama(str(arguments.model), n_ctx=2048, n_threads=arguments.threads, verbose=False)
    with arguments.out.open("a", encoding="utf-8") as out:
        for path, passage in passages(folder):
            if good >= arguments.count:
                break
            if path in asked:
                continue
            said = model.create_chat_completion(
                [{"role": "user", "content": _ASK.format(passage=passage)}],
                max_tokens=40, temperature=0.0,
            )["choices"][0]["message"]["content"]  # fmt: skip
            question = " ".join(said.split()).strip("\"' ")
            kept = question.endswith("?") and shared(question, passage, stemmer) <= _MOST_SHARED
            good += kept
            row = {"query": question if kept else None, "path": path}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            print(f"{good} of {arguments.count}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
