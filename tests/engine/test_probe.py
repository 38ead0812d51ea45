"""Asking for the answer on the way changes nothing of what a model writes."""

from __future__ import annotations

from collections.abc import Sequence

from erank_lite import Reranker
from erank_lite.benchmarks.effort.probe import ProbeGuide
from erank_lite.cli.demo import queries
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.families.erank.score import ScoreGuides
from erank_lite.families.erank.vocabulary import ScoreVocabulary
from erank_lite.load import load
from erank_lite.types import Request

# The second query: in the first, two scores of a document are so close that noise decides.
QUERY, TEXTS = [(q["query"], [d["content"] for d in q["documents"]]) for q in queries()][1]


def completions(cuts: Sequence[int]) -> list[ProbeGuide]:
    with load("erank-tiny", options={"strict": True}) as engine:
        vocabulary = ScoreVocabulary(engine.tokenizer, engine.end_ids)
        guides = ScoreGuides(vocabulary, "full", engine.max_new_tokens, engine.context_length)
        query = PromptBuilder(engine.tokenizer, engine.chat_template).query(QUERY)
        prompts = [query.document(text) for text in TEXTS]
        requests = [
            Request(
                key, prompt,
                lambda prompt=prompt: ProbeGuide(  # type: ignore[misc]
                    guides.guide(prompt), vocabulary, prompt, cuts
                ),
                guides.max_tokens() + 12,
            )
            for key, prompt in enumerate(prompts)
        ]  # fmt: skip
        found = {completion.key: completion.guide for completion in engine.run(requests)}
    return [found[key] for key in range(len(TEXTS))]


def test_a_probed_text_is_the_same_byte_for_byte() -> None:
    plain, probed = completions([]), completions([0, 2])
    assert [g.guide.ids for g in probed] == [g.guide.ids for g in plain]
    # The prompt's last token is computed anew, alone: probabilities differ by that noise.
    for one, other in zip(probed, plain, strict=True):
        assert one.guide.score().completion == other.guide.score().completion
        assert (
            abs((one.guide.score().rank_score or 0) - (other.guide.score().rank_score or 0)) < 0.1
        )
    assert all(g.probes.keys() >= {0} for g in probed) and not any(g.probes for g in plain)
    for guide in probed:
        assert all(0 <= p.expected <= 10 and 0 < p.mass <= 1.0001 for p in guide.probes.values())
        assert guide.probes[0].tokens == 0


def test_what_is_seen_at_once_is_what_no_thinking_answers() -> None:
    with Reranker("erank-tiny", thinking="none", strict=True) as reranker:
        asked = sorted(reranker.rerank(QUERY, TEXTS), key=lambda r: r["index"])
    for guide, result in zip(completions([0]), asked, strict=True):
        if result["expected_score"] is not None:
            assert abs(guide.probes[0].expected - result["expected_score"]) < 1e-4
