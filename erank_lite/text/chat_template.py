"""A checkpoint's own chat template, rendered as Transformers does: it is foreign code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox

from erank_lite.errors import ModelError


def render(
    template: str, messages: Sequence[Mapping[str, str]], specials: Mapping[str, str]
) -> str:
    """Return the prompt that a template makes of messages, generation prompt added.

    Sandboxed, blocks trimmed, with the filter and functions that Transformers gives to templates.

    Args:
        template: in jinja2.
        messages: `role` and `content` of each.
        specials: names and texts of the tokenizer's special tokens, such as `bos_token`.

    Raises:
        ModelError: the template fails.

    Example:
        >>> render("{{ messages[0].content | upper }}!", [{"role": "user", "content": "hi"}], {})
        'HI!'
    """

    def raise_exception(text: str) -> NoReturn:
        raise jinja2.TemplateError(text)

    def tojson(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **options)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **specials
        )
    # A template is foreign code: whatever it raises, it is the model that cannot be used.
    except Exception as error:
        raise ModelError(f"the chat template fails: {error}") from None
