"""How completions are read: the reading table, budgets, forcing, probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.engines import ONE_TOKEN, TWO_TOKENS, engine_writing
from support.tokenizers import CHAT_TEMPLATE, byte_tokenizer

from erank_lite import InputError, Reranker
from erank_lite.engines.fake import FakeEngine
from erank_lite.families.erank.prompt import MESSAGE
from erank_lite.families.erank.score import ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Prompt


def read(text: str, *, thinking: str | int = "full", **options: object) -> dict:
    engine = engine_writing(text, **options)  # type: ignore[arg-type]
    (result,) = Reranker(engine, thinking=thinking).rerank("query", ["document"])
    return result | {"generated": engine.tokens_generated}


@pytest.mark.parametrize("tokenizer", [TWO_TOKENS, ONE_TOKEN], ids=["10 in two", "10 in one"])
@pytest.mark.parametrize(
    ("answer", "score", "tokens"),
    [
        ("7", 7, 1),
        (" 7", 7, 1),
        ("\n7\n", 7, 1),
        ("0", 0, 1),
        ("1", 1, 1),
        ("07", 7, 2),
        ("10", 10, 2),
        (" 10 ", 10, 2),
        ("0 7", None, 0),
        ("7.5", None, 0),
        ("11", None, 0),
        ("100", None, 0),
        ("-3", None, 0),
        ("+3", None, 0),
        ("seven", None, 0),
        ("", None, 0),
        ("7/10", None, 0),
        ("\u0667", None, 0),  # an Arabic seven
    ],
)
def test_reading_table(tokenizer: Tokenizer, answer: str, score: int | None, tokens: int) -> None:
    result = read(f"<think>so</think><answer>{answer}</answer>", tokenizer=tokenizer)
    assert result["score"] == score
    assert not result["forced"]
    assert result["reasoning"] == "so"
    if score is None:
        assert result["rank_score"] is None and result["probability"] is None
        assert "integer from 0 to 10" in result["failure"] or "empty" in result["failure"]
        assert result["completion"].startswith("<think>so</think><answer>")
        return
    if answer.strip() == "10" and tokenizer is ONE_TOKEN:
        tokens = 1
    assert result["failure"] is None
    assert result["probability"] == pytest.approx(0.5**tokens)
    assert result["rank_score"] == pytest.approx(score * 0.5**tokens)


def test_an_answer_inside_the_reasoning_is_reasoning() -> None:
    result = read("<think>perhaps <answer>3</answer> or</think><answer>8</answer>")
    assert result["score"] == 8
    assert "<answer>3</answer>" in result["reasoning"]


def test_the_first_of_two_answers_counts() -> None:
    assert read("<think></think><answer>2</answer><answer>9</answer>")["score"] == 2


def test_an_answer_without_reasoning_is_read() -> None:
    result = read("I say <answer>4</answer>")
    assert (result["score"], result["reasoning"], result["forced"]) == (4, "I say", False)


def test_the_end_token_closes_an_answer() -> None:
    assert read("<think>x</think><answer>6")["score"] == 6


@pytest.mark.parametrize("text", ["", "<think>hm", "<think>hm</think>", "nothing to say"])
def test_a_missing_answer_is_asked_for(text: str) -> None:
    result = read(text)
    assert (result["score"], result["forced"], result["failure"]) == (3, True, None)
    closed = "</think>" in text
    assert result["completion"].startswith(
        text + "<answer>" if closed else text + "</think><answer>"
    )


def test_an_answer_that_does_not_close_is_cut_off() -> None:
    result = read("<think></think><answer>5" + " " * 40)
    assert result["score"] is None
    assert "cut off" in result["failure"]
    assert result["generated"] < 60


def test_a_budget_closes_the_reasoning_and_asks() -> None:
    result = read("<think>" + "thinking on " * 30 + "</think><answer>9</answer>", thinking=20)
    assert (result["score"], result["forced"]) == (3, True)
    reasoning = result["completion"].split("</think><answer>")[0]
    # <think> is one token, each byte after it another.
    assert len(reasoning) == len("<think>") + 19


def test_a_budget_that_is_not_reached_changes_nothing() -> None:
    text = "<think>short</think><answer>9</answer>"
    keys = ("score", "probability", "forced", "completion", "generated")
    assert [read(text, thinking=200)[k] for k in keys] == [read(text)[k] for k in keys]


def test_no_thinking_opens_the_answer_at_once() -> None:
    result = read("", thinking="none", after_force="5</answer>")
    assert (result["score"], result["forced"], result["reasoning"]) == (5, False, "")
    assert result["completion"].startswith("<think>\n\n</think>\n\n<answer>5")
    assert result["generated"] == 3  # 5, <, /


def test_a_think_that_the_template_opened_is_not_opened_again() -> None:
    opened = CHAT_TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    result = read("so</think><answer>6</answer>", template=opened)
    assert (result["score"], result["reasoning"]) == (6, "so")
    result = read("", template=opened, thinking="none", after_force="5</answer>")
    assert result["score"] == 5
    assert result["completion"].startswith("\n</think>\n\n<answer>5")


@pytest.mark.parametrize("stretch", ["a", "ab ", "the document is relevant, so "])
def test_runaway_repetition_is_stopped(stretch: str) -> None:
    result = read("<think>well: " + stretch * 400 + "</think><answer>9</answer>")
    assert (result["score"], result["forced"]) == (3, True)
    assert result["generated"] < 300


def test_a_long_reasoning_that_does_not_repeat_is_left_alone() -> None:
    text = " ".join(str(n * n) for n in range(400))
    result = read(f"<think>{text}</think><answer>9</answer>", context_length=9000)
    assert (result["score"], result["forced"], result["reasoning"]) == (9, False, text)


def test_the_limit_of_full_is_the_checkpoints_own() -> None:
    text = " ".join(str(n * n) for n in range(400))
    result = read(f"<think>{text}</think><answer>9</answer>", max_new_tokens=50)
    assert (result["score"], result["forced"]) == (3, True)
    assert result["generated"] < 60


def test_what_was_asked_for_falls_back_to_the_most_probable_number() -> None:
    result = read("", thinking="none", after_force="Well")
    assert result["failure"] is None
    assert (result["score"], result["forced"]) == (0, True)
    assert result["probability"] == pytest.approx(0.1)


def test_nothing_but_white_space_falls_back_too() -> None:
    result = read("", thinking="none", after_force=" " * 50)
    assert (result["score"], result["forced"], result["failure"]) == (0, True, None)


def test_a_model_that_computes_no_numbers_is_a_failure() -> None:
    for thinking in ("full", "none"):
        result = read("<think>x</think><answer>7</answer>", thinking=thinking, probability=math.nan)
        assert result["rank_score"] is None and result["score"] is None
        assert "NaN" in result["failure"]


def test_expected_score_of_zero_takes_one_step_more() -> None:
    result = read("<think></think><answer>0</answer>", probability=0.4)
    # First digit: 0 with 0.4, 1 with 0.1; after 1, 0 with 0.1.
    one, ten = 0.1 * 0.9, 0.1 * 0.1
    assert result["expected_score"] == pytest.approx((one + 10 * ten) / 0.5, rel=1e-6)
    assert result["rank_score"] == 0
    assert result["completion"].endswith("<answer>0</")


def test_expected_score_counts_nothing_twice() -> None:
    result = read("<think></think><answer>10</answer>", probability=0.6)
    one, ten = 0.6 * 0.4, 0.6 * 0.6
    assert result["probability"] == pytest.approx(0.36)
    assert result["expected_score"] == pytest.approx((one + 10 * ten) / 0.7, rel=1e-6)
    result = read("<think></think><answer>1</answer>", probability=0.6)
    one, ten = 0.6 * 0.9, 0.6 * 0.1
    assert result["probability"] == pytest.approx(0.6)
    assert result["expected_score"] == pytest.approx((one + 10 * ten) / 0.7, rel=1e-6)


def test_expected_score_is_none_where_it_was_not_computed() -> None:
    assert read("<think></think><answer>7</answer>")["expected_score"] is None


def test_expected_score_needs_no_step_where_ten_is_one_token() -> None:
    result = read("<think></think><answer>7</answer>", tokenizer=ONE_TOKEN)
    assert result["expected_score"] == pytest.approx((7 * 0.5 + 0.1) / 0.7, rel=1e-6)


def test_digits_in_merged_tokens_are_found() -> None:
    """`>\\n`, ` 7` and `>-` are tokens of real vocabularies."""
    tokenizer = byte_tokenizer([">\n", " 7", ">-", "</"])
    piece = {p: i for i, p in enumerate(tokenizer.pieces)}

    def ids(*texts: bytes) -> list[int]:
        return [
            i for t in texts for i in ([piece[t]] if t in piece else [piece[bytes([b])] for b in t])
        ]

    def result(written: list[int]) -> dict:
        def script(_: Prompt, done: Sequence[int]) -> list[tuple[int, float]]:
            return [(written[len(done)], 0.5 if len(done) == written.index(piece[b" 7"]) else 0.9)]

        engine = FakeEngine(tokenizer, script, CHAT_TEMPLATE)
        return Reranker(engine).rerank("q", ["d"])[0]

    merged = result(ids(b"<think>", b"</think>", b"<answer", b">\n", b" 7", b"</", b"answer>"))
    assert merged["score"] == 7
    assert merged["probability"] == pytest.approx(0.5)
    negative = ids(b"<think>", b"</think>", b"<answer", b">-", b" 7", b"</")
    assert result(negative)["score"] is None


def test_probabilities_are_asked_for_only_near_the_answer() -> None:
    tokenizer = TWO_TOKENS
    engine = engine_writing("<think>" + "word " * 10 + "</think>\n<answer>7</answer>")
    measured = []
    run = FakeEngine.run

    class Watching(FakeEngine):
        def run(self, requests):  # type: ignore[no-untyped-def]
            def watch(request):  # type: ignore[no-untyped-def]
                guide = request.guide()
                feed = guide.feed

                def counted(token, logprobs):  # type: ignore[no-untyped-def]
                    measured.append(logprobs is not None)
                    return feed(token, logprobs)

                guide.feed = counted
                return guide

            wrapped = [replace(r, guide=lambda r=r: watch(r)) for r in requests]
            return run(self, wrapped)

    watching = Watching(tokenizer, engine._script, CHAT_TEMPLATE, engine.end_ids)
    assert Reranker(watching).rerank("q", ["d"])[0]["score"] == 7
    assert sum(measured) <= 12 < len(measured)


@pytest.mark.parametrize("value", ["fully", "0", "-5", "1.5", "", 0])
def test_thinking_is_checked(value: str | int) -> None:
    with pytest.raises(InputError, match="thinking"):
        Reranker(engine_writing(""), thinking=value)


def test_the_message_ends_as_published() -> None:
    assert MESSAGE.endswith("Your output:")
    assert math.isclose(len(MESSAGE.encode()), len(MESSAGE))  # ASCII only


def test_tokens_without_text_count_as_an_answer() -> None:
    """Models have more rows than their tokenizer has tokens: what is written there is nothing."""
    tokenizer = byte_tokenizer()
    vocabulary = ScoreVocabulary(tokenizer, tokenizer.encode_trusted("<|im_end|>"))
    guides = ScoreGuides(vocabulary, "none", None, 4096)
    guide = guides.guide(Prompt((), 0))
    step, length = guide.begin(), 0
    beyond = len(vocabulary.pieces) + 7
    while not step.done:
        length += len(step.force) - step.drop + 1
        assert length <= guides.max_tokens()
        step = guide.feed(beyond, {i: -9.0 for i in vocabulary.candidates})
    assert guide.score().forced and guide.score().score is not None
