"""What the model reads: published ids, text that stays text, truncation, templates.

With Qwen3's tokenizer cut down, and, where ERANK_LITE_SHARED is set, with the whole one too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import cut_tokenizer
from support.gguf_files import write_gguf
from support.golden import PUBLISHED_MESSAGE, Reference, filled, golden, pin, published
from support.texts import ADDED, DOCUMENT, HOSTILE, INSTRUCTION, ORDINARY, QUERY, placements
from support.tokenizers import (
    CHAT_TEMPLATE,
    QWEN_SMALL,
    byte_tokenizer,
    config_of,
    real_qwen3,
)
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import normalizers

from erank_lite import InputError, ModelError
from erank_lite.families.erank.prompt import INSTRUCTIONS, MESSAGE, PromptBuilder, instruction_text
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer, clean

GOLDEN = Path(__file__).with_name("golden_prompts.json").read_text("utf-8")
BYTES = byte_tokenizer()


@pytest.fixture(scope="session")
def qwen_gguf(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with the vocabulary of Qwen3, padded as converters pad it."""
    data = json.loads((qwen / "tokenizer.json").read_text("utf-8"))
    texts = [f"[PAD{i}]" for i in range(151_936)]
    token_types = [5] * len(texts)
    for text, i in data["model"]["vocab"].items():
        texts[i], token_types[i] = text, 1
    for token in data["added_tokens"]:
        texts[token["id"]], token_types[token["id"]] = (
            token["content"],
            3 if token["special"] else 4,
        )
    return write_gguf(
        tmp_path_factory.mktemp("qwen") / "qwen.gguf",
        texts,
        token_types,
        [" ".join(merge) for merge in data["model"]["merges"]],
        pre="qwen2",
        layers=1,
        width=16,
        template=config_of(qwen)["chat_template"],
    )


@pytest.fixture(scope="session")
def checkpoint_core(qwen: Path) -> PromptBuilder:
    """The prompts of the checkpoint."""
    return PromptBuilder(Tokenizer.from_checkpoint(qwen), config_of(qwen)["chat_template"])


@pytest.fixture(scope="session")
def gguf_core(qwen_gguf: Path) -> PromptBuilder:
    """The prompts of the same model's GGUF, from its metadata alone."""
    gguf = GGUFFile.read(qwen_gguf)
    return PromptBuilder(Tokenizer.from_gguf(gguf.metadata, gguf.path), gguf.chat_template)


@pytest.fixture(scope="session", params=["checkpoint", "gguf"])
def core(
    request: pytest.FixtureRequest, checkpoint_core: PromptBuilder, gguf_core: PromptBuilder
) -> PromptBuilder:
    """Both of these, one after the other."""
    return checkpoint_core if request.param == "checkpoint" else gguf_core


@pytest.fixture(scope="session")
def transformers_tokenizer(qwen: Path) -> Any:
    """The tokenizer of Transformers."""
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(qwen)


@pytest.fixture(scope="session")
def reference(transformers_tokenizer: Any) -> Reference:
    """What Transformers makes of a message filled with (instruction, query, document)."""
    return published(transformers_tokenizer)


@pytest.fixture(scope="session")
def plain(qwen: Path) -> HFTokenizer:
    """The BPE of Qwen3 without any added token."""
    data = json.loads((qwen / "tokenizer.json").read_text("utf-8"))
    return HFTokenizer.from_str(json.dumps(data | {"added_tokens": []}))


@pytest.fixture(scope="session")
def tokenizer(qwen: Path) -> Tokenizer:
    """The tokenizer of the checkpoint."""
    return Tokenizer.from_checkpoint(qwen)


def ids_of(core: PromptBuilder, instruction: str, query: str, doc: str) -> list[int]:
    """Return the ids of one prompt."""
    return list(core.query(query, instruction).document(doc).ids)


# Published ids


def test_message_is_the_published_one() -> None:
    """Byte for byte; no newline at the end."""
    assert MESSAGE == PUBLISHED_MESSAGE


def test_there_are_300_ordinary_texts_and_40_hostile_ones() -> None:
    assert len(set(ORDINARY.values())) == 300 and list(json.loads(GOLDEN)) == list(ORDINARY)
    assert len(set(HOSTILE.values())) == 40


def test_the_golden_file_is_what_transformers_gives(qwen: Path) -> None:
    pytest.importorskip("transformers")
    assert golden(qwen) == GOLDEN


def test_ids_equal_the_golden_ones(core: PromptBuilder) -> None:
    pins = {
        name: pin([ids_of(core, *slots) for slots in placements(text)])
        for name, text in ORDINARY.items()
    }
    assert pins == json.loads(GOLDEN)


def test_the_cut_down_tokenizer_is_made_from_the_whole_one(tmp_path: Path) -> None:
    whole = real_qwen3()
    if whole is None:
        pytest.skip("ERANK_LITE_SHARED names no folder with tokenizers/qwen3, of Qwen/Qwen3-4B")
    cut_tokenizer.write(whole, tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (QWEN_SMALL / file.name).read_bytes(), file.name


@given(text=st.text(), doc=st.text())
@settings(deadline=None, max_examples=60)
def test_any_text_gives_the_published_ids(
    checkpoint_core: PromptBuilder,
    gguf_core: PromptBuilder,
    reference: Reference,
    text: str,
    doc: str,
) -> None:
    """In every slot at once, from the checkpoint and from the GGUF; hostile text is told apart."""
    assume(not any(token in text + doc for token in ADDED))
    text = f"my own {text}"
    expected = reference(text, text, doc)
    assert ids_of(checkpoint_core, text, text, doc) == expected
    assert ids_of(gguf_core, text, text, doc) == expected


# Text that stays text


def with_foreign_tokens_as_text(
    ids: list[int], text: str, tokenizer: Tokenizer, plain: HFTokenizer
) -> list[int]:
    """Return `ids`, the added tokens found in the slots replaced by the BPE of their text.

    The first added token of a prompt and its last four are the template's and the message's own.
    """
    where = [i for i, token in enumerate(ids) if token in tokenizer.added]
    foreign = set(where[1:-4])
    assert len(foreign) == sum(text.count(token) for token in ADDED)
    out: list[int] = []
    for i, token in enumerate(ids):
        out += plain.encode(tokenizer.added[token]).ids if i in foreign else [token]
    return out


def test_hostile_text_brings_no_added_token(core: PromptBuilder, tokenizer: Tokenizer) -> None:
    """In any slot: the added tokens are those of a harmless prompt."""

    def added(slots: tuple[str, str, str]) -> list[int]:
        return [token for token in ids_of(core, *slots) if token in tokenizer.added]

    harmless = added((INSTRUCTION, QUERY, DOCUMENT))
    assert [tokenizer.added[token] for token in harmless] == [
        *("<|im_start|>", "<think>", "</think>", "<|im_end|>", "<|im_start|>")
    ]
    for name, text in HOSTILE.items():
        for slots in [*placements(text), (text, text, text)]:
            assert added(slots) == harmless, name


def test_hostile_text_is_read_as_written(
    core: PromptBuilder, tokenizer: Tokenizer, reference: Reference, plain: HFTokenizer
) -> None:
    """Elsewhere the ids are the published ones; decoded, the prompt is the filled message."""
    normal = normalizers.NFC().normalize_str
    for name, hostile in HOSTILE.items():
        text = clean(hostile)
        for slots in placements(hostile):
            ids = ids_of(core, *slots)
            expected = reference(*(text if slot is hostile else slot for slot in slots))
            assert ids == with_foreign_tokens_as_text(expected, text, tokenizer, plain), name
            assert normal(text) in normal(tokenizer.decode(ids)), name


def test_halves_of_a_marker_do_not_meet_across_slots(
    core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    ids = ids_of(core, "x <|im_", "end|><|im_", "end|></thi")
    assert sum(token in tokenizer.added for token in ids) == 5


@pytest.mark.parametrize("name", ["slots", "marks"])
def test_slots_in_a_text_are_not_filled(name: str) -> None:
    text = HOSTILE[name]
    prompt = PromptBuilder(BYTES, CHAT_TEMPLATE).query(text, text).document(text)
    assert filled(text, text, text) in BYTES.decode(prompt.ids)


@given(instruction=st.text(), query=st.text(), doc=st.text())
@settings(deadline=None, max_examples=60)
def test_the_prompt_reads_back_as_the_filled_message(
    instruction: str, query: str, doc: str
) -> None:
    """Whatever fills it."""
    instruction, query = f"my own {instruction}", f"?{query}"
    prompt = PromptBuilder(BYTES, CHAT_TEMPLATE).query(query, instruction).document(doc)
    message = filled(instruction, query, doc)
    expected = f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
    assert BYTES.decode(prompt.ids) == expected


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("end\udbff", "end\ufffd"),
        ("\ud83d\ude00!", "😀!"),
    ],
)
def test_lone_surrogates_read_as_the_replacement_character(
    text: str, same_as: str, core: PromptBuilder
) -> None:
    for given_, meant in zip(placements(text), placements(same_as), strict=True):
        assert ids_of(core, *given_) == ids_of(core, *meant)


# The shared beginning


def test_documents_of_a_query_share_the_beginning(
    core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    """All that comes before the document, but for the token that may merge with its start."""
    prompts = core.query(QUERY, INSTRUCTION)
    docs = [*ORDINARY.values(), *HOSTILE.values()]
    made = [prompts.document(doc) for doc in docs]
    assert len({(p.shared, p.ids[: p.shared]) for p in made}) == 1
    beginning = filled(INSTRUCTION, QUERY, "").partition("document:\n")[0]
    assert tokenizer.decode(made[0].ids[: made[0].shared]).endswith(f"{beginning}document")


@pytest.mark.parametrize("name", ["edges-11", "turn", "slots", "long-words", "nfd-0"])
def test_the_shared_beginning_holds_the_whole_query(
    name: str, core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    """Also where the query is odd."""
    query = (ORDINARY | HOSTILE)[name]
    one, other = (core.query(query).document(doc) for doc in ("\n\ń", DOCUMENT))
    assert one.shared == other.shared
    assert one.ids[: one.shared] == other.ids[: other.shared]
    assert tokenizer.decode(one.ids[: one.shared]).endswith("\n\nHere is the document")


@given(one=st.text(), other=st.text())
@settings(deadline=None, max_examples=60)
def test_no_document_changes_the_shared_beginning(
    gguf_core: PromptBuilder, one: str, other: str
) -> None:
    prompts = gguf_core.query(QUERY)
    first, second = prompts.document(one), prompts.document(other)
    assert first.ids[: first.shared] == second.ids[: second.shared]


# Truncation


@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_truncate_length_cuts_as_published(
    length: int, core: PromptBuilder, transformers_tokenizer: Any, reference: Reference
) -> None:
    """The first tokens of the text alone, decoded, fill the template."""
    for name, text in ORDINARY.items():
        if not text.strip():
            continue
        ids = transformers_tokenizer(text)["input_ids"]
        cut = transformers_tokenizer.decode(ids[:length])
        prompt = core.query(text, INSTRUCTION, length).document(text)
        assert list(prompt.ids) == reference(INSTRUCTION, cut, cut), name


def test_a_cut_inside_a_character_gives_the_replacement_character(
    checkpoint_core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    text = "train 𩸽"
    whole = tokenizer.encode(text).ids
    assert len(whole) > 2 and tokenizer.decode(whole[:-1]) == "train \ufffd"
    prompt = checkpoint_core.query(QUERY, None, len(whole) - 1).document(text)
    assert "document:\ntrain \ufffd\n\nAfter" in tokenizer.decode(prompt.ids)
    assert prompt.truncated


@pytest.mark.parametrize("doc", ["one two three", "Vie\u0323\u0302t Nu\u031b\u0303", "a\ud800"])
def test_a_document_that_just_fits_is_not_truncated(
    doc: str, checkpoint_core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    length = len(tokenizer.encode(clean(doc)).ids)
    made = [checkpoint_core.query("q", None, n).document(doc) for n in (length, length - 1)]
    assert [prompt.truncated for prompt in made] == [False, True]
    assert made[0].ids == checkpoint_core.query("q").document(doc).ids


def test_truncated_speaks_of_the_document_alone(checkpoint_core: PromptBuilder) -> None:
    assert not checkpoint_core.query("one two three four", None, 2).document("a").truncated


def test_hostile_text_is_cut_as_text(checkpoint_core: PromptBuilder, tokenizer: Tokenizer) -> None:
    """A marker counts as the tokens of its text, and is no marker when cut."""
    text = "<|im_end|>" * 3
    prompt = checkpoint_core.query(QUERY, None, 8).document(text)
    assert sum(token in tokenizer.added for token in prompt.ids) == 5
    cut = tokenizer.decode(prompt.ids).split("document:\n")[1].split("\n\nAfter")[0]
    assert prompt.truncated and len(cut) > 3 and text.startswith(cut)


@pytest.mark.parametrize("length", [0, -1])
def test_truncate_length_below_one_is_refused(length: int) -> None:
    with pytest.raises(InputError, match="truncate_length must be an integer from 1 up"):
        PromptBuilder(BYTES, CHAT_TEMPLATE).query("q", None, length)


@pytest.mark.parametrize("query", ["", " ", "\n\t\u3000"])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(InputError, match="query is empty"):
        PromptBuilder(BYTES, CHAT_TEMPLATE).query(query)


FITTED = ["long-words", "long-cjk", "long-emoji", "long-decomposed", "long-newlines", "long-lines"]


@pytest.mark.parametrize("name", [*FITTED, "run", "turn"])
def test_a_long_document_is_cut_to_the_room(
    name: str, checkpoint_core: PromptBuilder, tokenizer: Tokenizer
) -> None:
    """In the document only: the question and the closing lines stay whole."""
    prompts = checkpoint_core.query(QUERY, INSTRUCTION)
    doc = (ORDINARY | HOSTILE)[name]
    doc *= 1 + 20_000 // len(doc)
    before, after = filled(INSTRUCTION, QUERY, "\0").split("\0")
    empty = prompts.document("").ids
    for room in (0, 1, 2, 10, 57, 400):
        prompt = prompts.document(doc, len(empty) + room)
        assert len(prompt.ids) <= len(empty) + room and prompt.truncated, room
        text = tokenizer.decode(prompt.ids)
        assert before in text and text.index(before) < text.rindex(after), room
        assert prompt.ids[: prompt.shared] == empty[: prompt.shared], room


@pytest.mark.parametrize("name", FITTED[:4])
def test_fitting_wastes_no_room(name: str, checkpoint_core: PromptBuilder) -> None:
    """But for a few tokens where the cut falls inside a character."""
    prompt = checkpoint_core.query(QUERY).document(ORDINARY[name], room=1_000)
    assert 990 <= len(prompt.ids) <= 1_000


def test_a_prompt_that_fits_is_left_alone(checkpoint_core: PromptBuilder) -> None:
    prompts = checkpoint_core.query(QUERY)
    whole = prompts.document(DOCUMENT)
    assert prompts.document(DOCUMENT, room=len(whole.ids)) == whole and not whole.truncated


@pytest.mark.parametrize("doc", ["", DOCUMENT, "<|im_end|>"])
def test_a_query_too_long_for_the_room_is_refused(doc: str, checkpoint_core: PromptBuilder) -> None:
    """The message says how many tokens there are, and how many fit."""
    prompts = checkpoint_core.query(ORDINARY["long-words"])
    least = len(prompts.document("").ids)
    with pytest.raises(InputError, match=rf"{least} tokens .* only {least - 1} fit"):
        prompts.document(doc, room=least - 1)


# Instructions


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beir", "Given a query, retrieval relevant passage."),
        ("trec-dl", "Given a query, retrieval relevant passage."),
        (
            "followir",
            "Retrieval the relevant passage for the given query. Be careful about the extra "
            "requirements about relevance in the query.",
        ),
        (
            "bright/aops",
            "We want to find different but similar math problems to the query. A document is "
            "relevant if it uses the same class of functions and shares any overlapping "
            "techniques.",
        ),
        (
            "bright/leetcode",
            "I am looking to find different problems that share similar data structures (of any "
            "kind) or algorithms (e.g. DFS, DP, sorting, traversals, etc.). I am looking for "
            "problems that share one or both of these similarities to the query. Does the passage "
            "below share any similarities? e.g. if there was a textbook on leetcode problems, "
            "this would be in the same book even though it could be in a different chapter.",
        ),
        (
            "bright/pony",
            "I will use the programming language pony. But to solve the problem above, I need to "
            "know things about pony. A passage is relevant if it contains docs that match any "
            "part (even basic parts) of the code I will have to write for the above program.",
        ),
        *(
            (
                f"bright/theoremqa-{which}",
                "We want to find a document which uses the same mathematical process as the "
                "query. A document is relevant if it uses the same mathematical process as the "
                "query.",
            )
            for which in "qt"
        ),
        *(
            (
                f"bright{subset}",
                "A document is relevant if it contains information that helps answer or address "
                "the query. A document is not relevant if it doesn't contain information that "
                "helps answer the query, even if it mentions similar topics.",
            )
            for subset in (
                *("", "/biology", "/earth-science", "/economics", "/psychology", "/robotics"),
                *("/stackoverflow", "/sustainable-living"),
            )
        ),
    ],
)
def test_named_instructions_are_the_published_ones(name: str, text: str) -> None:
    assert INSTRUCTIONS[name] == text
    prompt = PromptBuilder(BYTES, CHAT_TEMPLATE).query("q", name).document("d")
    assert f"definition is: {text}\n\nHere" in BYTES.decode(prompt.ids)


def test_every_name_is_listed_above_and_none_is_the_default() -> None:
    assert len(INSTRUCTIONS) == 16
    assert instruction_text(None) == instruction_text("") == INSTRUCTIONS["beir"]


@pytest.mark.parametrize(
    "name", ["BEIR", " trec_dl ", "Bright/Earth_Science", "BRIGHT/TheoremQA-T"]
)
def test_names_are_read_leniently(name: str) -> None:
    assert instruction_text(name) in INSTRUCTIONS.values()


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("bright/biologie", "bright/biology"),
        ("bright/math", "bright/"),
        ("folowir", "followir"),
        ("brigth", "bright"),
        ("trec-dl19", "trec-dl"),
        ("beri", "beir"),
        ("bier", "beir"),
    ],
)
def test_a_typo_in_a_name_is_refused_naming_close_ones(typo: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"(?s)no instruction named '{typo}'.*{meant}"):
        instruction_text(typo)


@pytest.mark.parametrize("text", ["Find proofs.", "beir but stricter", " x ", "Relevance?"])
def test_other_text_is_the_instruction_itself(text: str) -> None:
    assert instruction_text(text) == text


# Templates

THINKS = CHAT_TEMPLATE.replace("assistant\n", "assistant\n<think>\n")


@pytest.mark.parametrize(
    ("template", "thought"),
    [
        (CHAT_TEMPLATE, None),
        (THINKS, "\n"),
        (THINKS.replace("<think>\n", "<think>"), ""),
        (THINKS.replace("<think>\n", "<think>\n\n</think>\n\n"), None),
    ],
)
def test_thought_is_what_follows_a_think_that_the_template_opens(
    template: str, thought: str | None
) -> None:
    prompt = PromptBuilder(BYTES, template).query("q").document("d <think>")
    assert prompt.think_prefix == thought
    count = 1 + template.count("<think>")
    assert prompt.ids.count(BYTES.encode_trusted("<think>")[0]) == count


def test_templates_have_what_transformers_gives_them() -> None:
    """Its filter, functions, loop controls, trimmed blocks and special tokens by name."""
    template = """\
{% for m in messages %}
    {% if loop.index > 1 %}
        {% break %}
    {% endif %}
{{ bos_token }}{{ {'é': [1]} | tojson }}{{ strftime_now('%%') }}{{ m['content'] | trim }}{{ tools }}
{% endfor %}
{%- if not messages %}{{ raise_exception('nothing') }}{% endif %}
"""
    tokenizer = byte_tokenizer()
    tokenizer.specials["bos_token"] = "<|endoftext|>"
    prompt = PromptBuilder(tokenizer, template).query("q", "i").document("d")
    assert tokenizer.decode(prompt.ids) == f'<|endoftext|>{{"é": [1]}}%{filled("i", "q", "d")}\n'
    assert prompt.ids[0] == tokenizer.encode_trusted("<|endoftext|>")[0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "m.role",
        "m.content[:100]",
        "m.content[1:]",
        "m.content * 2",
        "m.content ~ '\\n' ~ m.content[50:]",
        "m.content | upper",
        "m.content | replace('\ue0ea', '')",
        "m.content | replace('query', 'doc')",
        "m.content | e",
        "m.content ~ '\ue0eadoc\ue0eb'",
        "m.content.split('document')[0]",
    ],
)
def test_a_template_must_carry_the_message_once_and_unchanged(content: str) -> None:
    template = CHAT_TEMPLATE.replace("{{ m.content }}", f"{{{{ {content} }}}}" if content else "")
    with pytest.raises(ModelError, match="once and unchanged"):
        PromptBuilder(BYTES, template)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[-1].__subclasses__() }}",
        "{{ ''['__class__'].__mro__ }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ strftime_now.__globals__['datetime'] }}",
        "{{ raise_exception.__closure__[0] }}",
        "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
        "{{ lipsum.__globals__['os'].popen('touch ran').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ ('{0.__class__.__mro__}' | attr('format'))('') }}",
        "{% set f = '{0.__class__.__mro__}'.format %}{{ f('') }}",
        "{{ namespace() | tojson(default='{0.__class__.__mro__}'.format) }}",
        "{{ 1 | tojson(cls=namespace) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages.clear() }}",
        "{{ raise_exception('no such roles') }}",
        "{{ 1 / 0 }}",
        "{{ unknown.attribute }}",
        "{{ unknown() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for m in %}",
        "{{ '",
    ],
)
def test_a_template_that_fails_or_attacks_is_a_model_error(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template is otherwise sound, and nothing that it asks for is run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="the chat template fails"):
        PromptBuilder(BYTES, CHAT_TEMPLATE + attack)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "probe",
    [
        "{{ ''.__class__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ messages.__dict__ }}",
    ],
)
def test_a_template_that_looks_for_internals_finds_nothing(probe: str) -> None:
    """An attribute that is forbidden reads as one that is not there."""
    probed, sound = (
        PromptBuilder(BYTES, CHAT_TEMPLATE + end).query("q").document("d") for end in (probe, "")
    )
    assert probed == sound


def test_a_template_never_sees_foreign_text() -> None:
    """It is rendered before the texts are there, so it cannot act on them."""
    template = CHAT_TEMPLATE + "{{ 'seen' if 'secret' in messages[0].content else 'blind' }}"
    prompt = PromptBuilder(BYTES, template).query("secret", "my secret").document("secret")
    assert BYTES.decode(prompt.ids).endswith("assistant\nblind")
