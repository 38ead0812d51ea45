"""Collections, first stages, runs and measures."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support import judged
from support.judged import DOCUMENTS, QRELS, beir, followir, json_lines

pytest.importorskip("ir_measures", reason="pip install 'erank-lite[eval]'")
pytest.importorskip("bm25s", reason="pip install 'erank-lite[eval]'")

from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.datasets import open_collections
from erank_lite.benchmarks.quality.first_stage import bm25, candidates_from_run, read_run, write_run
from erank_lite.benchmarks.quality.measures import mean_measures, measures_by_query, p_mrr
from erank_lite.benchmarks.quality.paper import paper_figures
from erank_lite.errors import InputError


def collection(qrels: dict[str, dict[str, int]], **more: object) -> Collection:
    return Collection("made", "beir", dict.fromkeys(qrels, "text"), lambda: iter(()), qrels, **more)


# Collections on disk


def test_a_folder_in_beirs_layout(tmp_path: Path) -> None:
    folder = beir(tmp_path / "animals")
    corpus = [{"_id": "d1", "title": "Cats", "text": "sleep"}, {"_id": "d2", "text": "bark"}]
    json_lines(folder / "corpus.jsonl", corpus)
    (found,) = open_collections(str(folder))
    assert found.name == "animals" and found.benchmark == "beir"
    assert list(found.queries) == ["q1", "q2"]  # q3 has no judgement
    assert dict(found.read()) == {"d1": "Cats sleep", "d2": "bark"}
    assert found.qrels["q1"] == {"d1": 2, "d3": 1, "d4": 0}


def test_judgements_may_lack_the_header(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    judged.qrels(folder / "qrels" / "test.tsv", QRELS, header=False)
    assert open_collections(str(folder))[0].qrels == QRELS


def test_a_query_that_is_a_document_is_not_ranked_for_itself(tmp_path: Path) -> None:
    documents = DOCUMENTS | {"q1": "sleeping cats"}
    (found,) = open_collections(str(beir(tmp_path / "arguana", documents)))
    assert "q1" not in dict(bm25(found, 10)["q1"])
    (found,) = open_collections(str(beir(tmp_path / "other", documents)))
    assert bm25(found, 10)["q1"][0][0] == "q1"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_brights_excluded_documents_never_count(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "BRIGHT"
    documents = [{"id": i, "content": t} for i, t in DOCUMENTS.items()]
    examples = [
        {"id": "0", "query": "sleeping cats", "gold_ids": ["d3"], "excluded_ids": ["d1", "d2"]},
        {"id": "1", "query": "postman", "gold_ids": ["d2"], "excluded_ids": ["N/A"]},
    ]
    for name, rows in (("documents", documents), ("examples", examples)):
        for subset in ("biology", "theoremqa_theorems"):
            if kind == "jsonl":
                json_lines(folder / name / f"{subset}.jsonl", rows)
            else:
                pa = pytest.importorskip("pyarrow")
                from pyarrow import parquet

                (folder / name).mkdir(parents=True, exist_ok=True)
                file = folder / name / f"{subset}-00000-of-00001.parquet"
                parquet.write_table(pa.Table.from_pylist(rows), file)
    found, theorems = open_collections(str(folder))
    assert (found.name, theorems.name) == ("bright/biology", "bright/theoremqa-t")
    assert [c.name for c in open_collections(str(folder / "biology"))] == ["bright/biology"]
    candidates = bm25(found, 10)
    assert [name for name, _ in candidates["0"]] == ["d3"]
    assert dict(candidates["1"]).keys() == {"d2"}
    run = tmp_path / "first.trec"
    write_run(run, {"0": [("d1", 9.0), ("d2", 8.0), ("d3", 1.0)], "1": []}, "other")
    assert candidates_from_run(run, found, 1)["0"] == [("d3", 1.0)]
    # Whoever made a ranking: they are dropped before it is judged.
    with_them = mean_measures({"0": ["d1", "d2", "d3"], "1": ["d2"]}, found, 100)
    assert with_them == mean_measures({"0": ["d3"], "1": ["d2"]}, found, 100)
    assert with_them["nDCG@10"] == 1.0


def test_followir_asks_each_topic_twice(tmp_path: Path) -> None:
    (found,) = open_collections(str(followir(tmp_path / "core17-instructions-mteb")))
    assert found.name == "followir/core17"
    assert found.queries["7-changed"] == "cats Sleeping cats are not relevant."
    assert found.candidates == {"7-og": ["d4", "d1", "d3"], "7-changed": ["d4", "d1", "d3"]}
    values = mean_measures(
        {"7-og": ["d1", "d3", "d4"], "7-changed": ["d3", "d4", "d1"]}, found, 100
    )
    assert values["p-MRR"] == pytest.approx(2 / 3)


def test_a_name_of_ir_datasets(tmp_path: Path) -> None:
    ir_datasets = pytest.importorskip("ir_datasets")
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import JsonlDocs, TrecQrels, TsvQueries
    from ir_datasets.util import LocalDownload

    docs = json_lines(
        tmp_path / "docs.jsonl", [{"doc_id": i, "text": t} for i, t in DOCUMENTS.items()]
    )
    queries, grades = tmp_path / "queries.tsv", tmp_path / "qrels"
    queries.write_text("q1\tsleeping cats\nq2\tthe postman\n")
    grades.write_text("".join(f"{q} 0 {d} {g}\n" for q, r in QRELS.items() for d, g in r.items()))
    name = "erank-lite-test/trec-dl-made"
    made = Dataset(
        JsonlDocs(LocalDownload(docs)),
        TsvQueries(LocalDownload(queries)),
        TrecQrels(LocalDownload(grades), {0: "no", 1: "a little", 2: "yes"}),
    )
    if name not in ir_datasets.registry:
        ir_datasets.registry.register(name, made)
    (found,) = open_collections(name)
    assert (found.benchmark, found.min_relevant) == ("trec-dl", 2)
    assert dict(found.read()) == DOCUMENTS and found.qrels == QRELS
    assert mean_measures({"q1": ["d3", "d1"], "q2": ["d2"]}, found, 100)["RR"] == 0.25


def test_a_download_of_ir_datasets_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ir_datasets = pytest.importorskip("ir_datasets")

    def fail(*_: object) -> None:
        raise ConnectionError("no route to the host")

    name = "erank-lite-test/unreachable"

    class Unreachable:
        has_docs = has_queries = has_qrels = lambda _: True
        qrels_iter = fail

    monkeypatch.setitem(ir_datasets.registry._registered, name, Unreachable())
    with pytest.raises(InputError, match=r"cannot fetch .*unreachable`: no route to the host"):
        open_collections(name)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("queries.jsonl", '{"_id": "q1"}\n', "line 1: there is no 'text'"),
        ("queries.jsonl", "{]\n", "line 1: not valid JSON"),
        ("queries.jsonl", '{"_id": "x", "text": "y"}\n', "no judged query"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tmuch\n", "not a whole number"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.5\n", "not a whole number"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1e999\n", "not a whole number"),
        ("queries.jsonl", '{"_id": "q1", "text": null}\n', "line 1: text must be a text, not null"),
        ("queries.jsonl", '{"_id": "q1", "text": ["a"]}\n', "line 1: text must be a text, not"),
        ("queries.jsonl", '{"_id": "q1", "text": NaN}\n', "line 1: text must be a text, not NaN"),
        ("queries.jsonl", '{"_id": null, "text": "a"}\n', "line 1: _id must be an id, not null"),
        ("queries.jsonl", '{"_id": 1.5, "text": "a"}\n', "line 1: _id must be an id, not 1.5"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", "line 2: 2 cells"),
        ("qrels/test.tsv", "q\td\ts\nq1\td1\t1\n", "must name the columns"),
    ],
)
def test_a_damaged_collection_is_one_clear_line(
    tmp_path: Path, file: str, text: str, says: str
) -> None:
    (beir(tmp_path) / file).write_text(text)
    with pytest.raises(InputError, match=says):
        open_collections(str(tmp_path))


@pytest.mark.parametrize("score", [0.5, 1.9, "0.5", None, True, "NaN", float("inf"), [1], "1e999"])
def test_a_grade_that_is_not_whole_is_refused(tmp_path: Path, score: object) -> None:
    folder = beir(tmp_path)
    (folder / "qrels" / "test.tsv").unlink()
    row = {"query-id": "q1", "corpus-id": "d1", "score": score}
    json_lines(folder / "qrels" / "test.jsonl", [row])
    with pytest.raises(InputError, match="the grade of 'd1' for query 'q1' is not a whole number"):
        open_collections(str(folder))


@pytest.mark.parametrize("score", [2, 2.0, "2", "2.0", "+2", "2e0", " 2"])
def test_a_whole_grade_may_be_written_in_any_way(tmp_path: Path, score: object) -> None:
    folder = beir(tmp_path)
    (folder / "qrels" / "test.tsv").unlink()
    row = {"query-id": "q1", "corpus-id": "d1", "score": score}
    json_lines(folder / "qrels" / "test.jsonl", [row])
    assert open_collections(str(folder))[0].qrels == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"_id": "d1", "title": float("nan"), "text": "a"}, "title must be a text, not NaN"),
        ({"_id": "d1", "title": ["a"], "text": "a"}, "title must be a text"),
        ({"_id": "d1", "text": {"a": 1}}, "text must be a text"),
        ({"_id": None, "text": "a"}, "_id must be an id, not null"),
    ],
)
def test_what_is_no_text_in_a_corpus_is_refused(
    tmp_path: Path, document: dict[str, object], says: str
) -> None:
    folder = beir(tmp_path)
    json_lines(folder / "corpus.jsonl", [{"_id": "d0", "title": None, "text": None}, document])
    (found,) = open_collections(str(folder))
    texts = found.read()
    assert next(iter(texts)) == ("d0", "")
    with pytest.raises(InputError, match=rf"line 2: {says}"):
        list(found.read())


def test_a_null_of_bright_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "BRIGHT"
    json_lines(folder / "documents" / "biology.jsonl", [{"id": "b", "content": None}])
    example = {"id": "0", "query": "q", "gold_ids": ["b"], "excluded_ids": ["N/A"]}
    json_lines(folder / "examples" / "biology.jsonl", [example])
    with pytest.raises(InputError, match="content must be a text, not null"):
        list(open_collections(str(folder))[0].read())
    json_lines(folder / "examples" / "biology.jsonl", [example | {"query": None}])
    with pytest.raises(InputError, match="query must be a text, not null"):
        open_collections(str(folder))


def test_packed_parts_are_read(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    whole = open_collections(str(folder))[0]
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (found,) = open_collections(str(folder))
    assert (found.queries, found.qrels) == (whole.queries, whole.qrels)
    assert dict(found.read()) == DOCUMENTS
    packed = folder / "queries.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be unpacked"):
        open_collections(str(folder))


def test_judgements_of_a_query_that_is_not_there_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = beir(tmp_path)
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q9\td1\t1\n")
    (found,) = open_collections(str(folder))
    assert sorted(found.qrels) == sorted(QRELS)
    assert "judgements of 1 query that is not there, 'q9' first" in caplog.text


def test_languages_without_spaces_are_found_by_their_characters(tmp_path: Path) -> None:
    documents = {"d1": "面包放在面包箱里保持新鲜", "d2": "猫在睡觉", "d3": "パンを箱に入れる"}
    folder = beir(tmp_path, documents)
    queries = {"q1": "怎么保持面包新鲜", "q2": "パンの箱"}
    json_lines(folder / "queries.jsonl", [{"_id": q, "text": t} for q, t in queries.items()])
    found = bm25(open_collections(str(folder))[0], 10)
    assert found["q1"][0][0] == "d1" and found["q2"][0][0] == "d3"


def test_what_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a collection"):
        open_collections(str(tmp_path))
    with pytest.raises(InputError, match="neither a folder nor a name"):
        open_collections(str(tmp_path / "nowhere"))


# First stages


def test_bm25_is_lucenes_formula(tmp_path: Path) -> None:
    (found,) = open_collections(str(beir(tmp_path)))
    stems = {
        "d1": "cat sleep warm mat",
        "d2": "dog bark postman cat",
        "d3": "cat small anim cat whisker long",
        "d4": "fish swim sea",
        "d5": "postmen walk mani mile",
    }
    words = {name: text.split() for name, text in stems.items()}
    mean = sum(map(len, words.values())) / len(words)

    def score(query: list[str], document: list[str]) -> float:
        total = 0.0
        for term in query:
            n = sum(term in w for w in words.values())
            tf = Counter(document)[term]
            idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
            total += idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(document) / mean))
        return total

    for query, terms in (("q1", ["sleep", "cat"]), ("q2", ["postman"])):
        expected = {d: s for d, w in words.items() if (s := score(terms, w)) > 0}
        got = bm25(found, 10)[query]
        assert dict(got) == pytest.approx(expected, rel=1e-5)
        assert [d for d, _ in got] == sorted(expected, key=lambda d: -expected[d])
    assert len(bm25(found, 1)["q1"]) == 1


def test_a_run_keeps_its_order_in_every_reader(tmp_path: Path) -> None:
    draw = random.Random(3)
    scores = sorted((draw.choice([0.0, 0.0, 1.5, 9.999999, 4.2]) for _ in range(900)), reverse=True)
    documents = [(f"d{draw.random()}", score) for score in scores] + [("failed", None)]
    write_run(tmp_path / "r.trec", {"q": documents}, "a tag")
    lines = (tmp_path / "r.trec").read_text().splitlines()
    assert [line.split()[2] for line in lines] == [name for name, _ in documents]
    read = np.array([line.split()[4] for line in lines]).astype(np.float32)
    assert (np.diff(read) < 0).all()  # trec_eval reads scores as 32-bit floats
    assert abs(float(read[0]) - scores[0]) < 1e-5
    assert lines[0].split()[5] == "a-tag"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("q Q0 d 1 much tag", "line 2: not a line of a TREC run"),
        ("q Q0 d", "line 2: not a line"),
        ("q Q0 d 1 nan tag", "line 2: not a line"),
        ("q1 Q0 d1 2 1.0 t", "comes twice"),
    ],
)
def test_a_damaged_run(tmp_path: Path, line: str, says: str) -> None:
    run = tmp_path / "r.trec"
    run.write_text(f"q1 Q0 d1 1 3.0 t\n{line}\n")
    with pytest.raises(InputError, match=says):
        read_run(run)


@pytest.mark.parametrize("name", ["score.json", "score.json.gz"])
def test_the_scores_that_bright_saves_are_a_run(tmp_path: Path, name: str) -> None:
    (found,) = open_collections(str(beir(tmp_path / "c")))
    scores = {"q1": {"d2": 0.25, "d1": 0.75, "d3": -1}, "q2": {}, "x9": {"d1": 1e-3}}
    data = json.dumps(scores, indent=2).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_run(tmp_path / name) == scores
    candidates = candidates_from_run(tmp_path / name, found, 2)
    assert candidates == {"q1": [("d1", 0.75), ("d2", 0.25)], "q2": []}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"q1": {"d1": 1}', "is not valid JSON: Expecting"),
        ("[" * 100_000, "nested too deep"),
        ('{"q1": {"d1": 1' + "0" * 5000 + "}}", "the score of d1 for query q1 is no number"),
        ("[]", "is no object of queries"),
        ('{"q1": ["d1", "d2"]}', "query q1 has no object of scores"),
        ('{"q1": {"d1": "0.5"}}', "the score of d1 for query q1 is no number"),
        ('{"q1": {"d1": NaN}}', "the score of d1 for query q1 is no number"),
        ('{"q1": {"d1": true}}', "the score of d1 for query q1 is no number"),
    ],
)
def test_a_damaged_file_of_scores(tmp_path: Path, text: str, says: str) -> None:
    run = tmp_path / "score.json"
    run.write_text(text)
    with pytest.raises(InputError, match=says):
        read_run(run)


def test_a_missing_run_is_told_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "score.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read: No such file") as missing:
        read_run(tmp_path / "scores.json")
    assert missing.value.hint == f"did you mean `{tmp_path / 'score.json'}`?"


def test_a_run_of_another_collection(tmp_path: Path) -> None:
    (found,) = open_collections(str(beir(tmp_path / "c")))
    run = tmp_path / "r.trec"
    run.write_text("x9 Q0 d1 1 3.0 t\n")
    with pytest.raises(InputError, match="has none of the 2 queries"):
        candidates_from_run(run, found, 10)


def test_an_id_of_two_words_is_refused_in_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\ban id\b"):
        write_run(tmp_path / "r.trec", {"q": [("two words", 1.0)]}, "t")


def test_words_of_one_or_two_letters_stay_whole(tmp_path: Path) -> None:
    documents = {"d1": "vitamin s", "d2": "between us", "d3": "the u boat", "d4": "it is"}
    queries = {"q1": "s s", "q2": "us", "q3": "S cats"}
    judged = {q: {"d1": 1} for q in queries}
    (found,) = open_collections(str(beir(tmp_path / "short", documents, queries, judged)))
    ranked = {q: [name for name, _ in r] for q, r in bm25(found, 10).items()}
    assert ranked == {"q1": ["d1"], "q2": ["d2"], "q3": ["d1"]}


def test_ties_of_a_run_are_ordered_as_trec_eval_does(tmp_path: Path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = {"q1": {"d1": 2, "d2": 0, "d3": 1, "d4": 0}, "q2": {"d1": 1, "d4": 0}}
    run = tmp_path / "run.trec"
    # The first differs in the tenth digit only, which 32 bits do not hold.
    scores = {"q1": ("1.000000001", "1", "1", "2"), "q2": ("1", "1", "1", "1")}
    lines = [
        f"{q} Q0 {d} 1 {s} t\n" for q in scores for d, s in zip(DOCUMENTS, scores[q], strict=False)
    ]
    run.write_text("".join(lines))
    found = collection(qrels)
    ranking = {q: [d for d, _ in r] for q, r in candidates_from_run(run, found, 10).items()}
    assert ranking["q1"] == ["d4", "d3", "d2", "d1"]
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(read_run(run))
    ours = measures_by_query(ranking, found, 100)["nDCG@10"]
    assert ours == pytest.approx({q: v["ndcg_cut_10"] for q, v in theirs.items()}, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_scores_of_a_run_that_32_bits_do_not_hold_are_ties(tmp_path: Path) -> None:
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d1 1 1e300 t\nq1 Q0 d2 2 1e200 t\nq1 Q0 d3 3 1e-300 t\n")
    found = candidates_from_run(run, collection({"q1": {"d1": 1}}), 10)
    assert [name for name, _ in found["q1"]] == ["d2", "d1", "d3"]


def test_splits_are_never_mixed(tmp_path: Path) -> None:
    folder = beir(tmp_path / "some")
    judged = folder / "qrels"
    text = (judged / "test.tsv").read_text()
    (judged / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td4\t1\n")
    assert set(open_collections(str(folder))[0].queries) == {"q1", "q2"}
    (judged / "test.tsv").rename(judged / "dev.tsv")
    with pytest.raises(InputError, match="the splits dev and train, and no test") as raised:
        open_collections(str(folder))
    assert "qrels/test" in (raised.value.hint or "")
    (judged / "train.tsv").unlink()
    assert set(open_collections(str(folder))[0].queries) == {"q1", "q2"}
    # As repositories of data sets have them: in a folder, in several files.
    for name in ("test-00000-of-00002", "test-00001-of-00002", "train-00000-of-00001"):
        (judged / f"{name}.tsv").write_text(text)
    (judged / "dev.tsv").unlink()
    assert set(open_collections(str(folder))[0].qrels) == {"q1", "q2"}


# Measures


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_trec_evals(tmp_path: Path, seed: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    draw = random.Random(seed)
    names = [f"d{i}" for i in range(300)]
    qrels = {
        f"q{q}": {d: draw.choice([0, 0, 1, 2, 3]) for d in draw.sample(names, 30)}
        for q in range(20)
    }
    for grades in qrels.values():
        grades["d0"] = 1
    ranking = {q: draw.sample(names, draw.randint(1, 200)) for q in list(qrels)[:-1]}
    run = tmp_path / "run.trec"
    scores = [round(5 * draw.random(), 1) for _ in range(200)]
    scores.sort(reverse=True)
    write_run(run, {q: list(zip(d, scores, strict=False)) for q, d in ranking.items()}, "random")
    theirs = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut.10", "recip_rank", "map", "recall.100"}
    ).evaluate(read_run(run))
    ours = measures_by_query(ranking, collection(qrels), 100)
    pairs = {"nDCG@10": "ndcg_cut_10", "RR": "recip_rank", "AP": "map", "R@100": "recall_100"}
    for name, their_name in pairs.items():
        for query in qrels:
            expected = theirs.get(query, {}).get(their_name, 0.0)
            assert ours[name][query] == pytest.approx(expected, abs=1e-9)
        mean = sum(v[their_name] for v in theirs.values()) / len(qrels)
        assert mean_measures(ranking, collection(qrels), 100)[name] == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["x", "a", "b"], ["x", "a", "b"], 0.0),  # it stayed
        (["x", "a"], ["a", "b", "c", "x"], 0.75),  # from 1 to 4: 1 - 1/4
        (["a", "b", "c", "x"], ["x", "a"], -0.75),  # from 4 to 1: 1/4 - 1
        (["a", "x"], ["b", "c", "a", "x"], 0.5),  # from 2 to 4
        (["a", "x"], ["a", "b", "c"], 0.5),  # not ranked any more: behind the last, 4
    ],
)
def test_p_mrr_by_hand(before: list[str], after: list[str], expected: float) -> None:
    ranking = {"1-og": before, "1-changed": after}
    assert p_mrr(ranking, {"1": ["x"]}) == pytest.approx(expected)


def test_p_mrr_is_the_mean_of_documents_then_of_topics() -> None:
    ranking = {
        "1-og": ["x", "y", "a"], "1-changed": ["a", "x", "y"],  # 1/2 and 1/3
        "2-og": ["a", "z"], "2-changed": ["z", "a"],  # -1/2
    }  # fmt: skip
    expected = ((1 / 2 + 1 / 3) / 2 - 1 / 2) / 2
    assert p_mrr(ranking, {"1": ["x", "y"], "2": ["z"]}) == pytest.approx(expected)


def test_what_the_paper_says() -> None:
    assert paper_figures("Alibaba-NLP/ERank-4B:Q4_K_M", "followir/core17") == {"p-MRR": 0.175}
    found = paper_figures("ERank-32B", "msmarco-passage/trec-dl-2019/judged")
    assert found == pytest.approx({"nDCG@10": 0.708, "first stage nDCG@10": 0.506})
    assert paper_figures("erank-tiny", "followir/core17") is None
    assert paper_figures("ERank-4B", "beir/scifact/test") is None
    assert paper_figures("ERank-4B", "bright", "rank1") is None
    found = paper_figures("models/rank1-7b-Q4_K_M.gguf", "bright", "rank1")
    assert found == pytest.approx({"nDCG@10": 0.182, "first stage nDCG@10": 0.137})
    assert paper_figures("Rank-R1-7B-v0.1", "bright", "rank-r1-v0.1") is not None
    assert paper_figures("Rank-R1-7B-v0.2", "bright", "rank-r1-v0.1") is None
    assert paper_figures("rearank-7b:Q8_0", "bright") is None


# What a first user tripped over


def test_another_corpus_of_the_same_name_is_another_first_stage(tmp_path: Path) -> None:
    one = open_collections(str(beir(tmp_path / "a" / "same")))[0].digest()
    more = DOCUMENTS | {"d9": "A cat."}
    assert one != open_collections(str(beir(tmp_path / "b" / "same", more)))[0].digest()
    changed = DOCUMENTS | {"d4": "Fishes swim in the see."}
    assert one != open_collections(str(beir(tmp_path / "c" / "same", changed)))[0].digest()
    assert one == open_collections(str(beir(tmp_path / "d" / "same")))[0].digest()


def test_a_document_twice_and_ids_of_two_words(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d1", "text": "again"}\n')
    with pytest.raises(InputError, match="document 'd1' comes twice"):
        open_collections(str(folder))[0].digest()
    for documents in ({"two words": "x"}, {"": "x"}, {"d\u00a01": "x"}):
        with pytest.raises(InputError, match=r"\ban id\b"):
            open_collections(str(beir(tmp_path, documents)))[0].digest()


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td1\t0\n", "given twice"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2000000000\n", "lie between"),
        ("qrels/test.tsv", "q1 0 d1 1\nq1 0 d2 1\n", "first line must name the columns"),
        ("queries.jsonl", '{"_id":"q1","text":"a"}\n{"_id":"q1","text":"b"}\n', "comes twice"),
        ("queries.jsonl", '{"_id":"q1","text":"a","excluded_ids":"d1"}\n', "must be a list of ids"),
        ("queries.jsonl", '{"_id":"q1","text":"a"}\n\udcff\n', "line 2: not valid UTF-8"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, file: str, text: str, says: str) -> None:
    (beir(tmp_path) / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says):
        open_collections(str(tmp_path))


def test_a_byte_order_mark_loses_nothing(tmp_path: Path) -> None:
    folder = beir(tmp_path / "c")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        file = folder / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (found,) = open_collections(str(folder))
    assert found.qrels == QRELS and dict(found.read()) == DOCUMENTS
    run = tmp_path / "r.trec"
    run.write_bytes(b"\xef\xbb\xbfq1 Q0 d1 1 3.0 t\r\nq1 Q0 d2 2 2.0 t\r\n")
    assert read_run(run) == {"q1": {"d1": 3.0, "d2": 2.0}}


def test_a_run_may_be_packed(tmp_path: Path) -> None:
    run = tmp_path / "r.trec.gz"
    run.write_bytes(gzip.compress(b"q1 Q0 d1 1 3.0 t\n"))
    assert read_run(run) == {"q1": {"d1": 3.0}}
    run.write_bytes(b"q1 Q0 d1 1 3.0 t\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_run(run)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("instruction", "instruction lacks '7-changed'"),
        ("top_ranked", "top_ranked lacks '7-changed'"),
        ("queries", "queries lacks '7-changed'"),
        ("qrel_diff", "names no topic"),
    ],
)
def test_what_followir_lacks_is_named(tmp_path: Path, part: str, says: str) -> None:
    file = followir(tmp_path) / f"{part}.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in lines if "7-og" in line))
    with pytest.raises(InputError, match=says):
        open_collections(str(tmp_path))
