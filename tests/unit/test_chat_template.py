"""Chat templates, rendered as Transformers renders them."""

from __future__ import annotations

import pytest

from erank_lite.errors import ModelError
from erank_lite.text.chat_template import render

MESSAGES = [{"role": "user", "content": "hi é"}]
TRAINING = """\
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {% generation %}{{- message.content + "<|im_end|>" }}{%- endgeneration %}
    {%- else %}
        {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""
TEMPLATES = {
    "training": TRAINING,
    "tojson": "{{ {'b': 1, 'a': 'é<'} | tojson(ensure_ascii=False) }}",
    "tojson, ascii": "{{ {'b': 1, 'a': 'é<'} | tojson(true, indent=2, sort_keys=true) }}",
    "tojson, separators": "{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}",
    "namespace": "{% set ns = namespace(self=1, n=2) %}{% set ns.n = 5 %}{{ ns.n + ns.self }}",
    "break": "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "trimmed": "  {% if true %}\na\n  {% endif %}\nb\n",
    "tests": "{{ 1 is number }}{{ messages is iterable }}{{ x is defined }}{{ 'a' is string }}",
    "filters": "{{ ' a ' | trim }}{{ [1, 2] | join('-') }}{{ {'k': 1} | items | list }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_gives_what_transformers_gives(name: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs, _ = utils.render_jinja_template(
        [MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=True
    )
    assert render(TEMPLATES[name], MESSAGES, {}) == theirs[0]


def test_what_a_model_is_trained_to_write_stands_as_it_is() -> None:
    turns = [*MESSAGES, {"role": "assistant", "content": "ho"}]
    assert render(TRAINING, turns, {}) == (
        "<|im_start|>user\nhi é<|im_end|>\nho<|im_end|><|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system role') }}",
        "{% generation %}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns._a = 1 %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
    ],
)
def test_a_template_that_fails_says_so(template: str) -> None:
    with pytest.raises(ModelError, match="the chat template fails: "):
        render(template, MESSAGES, {})
