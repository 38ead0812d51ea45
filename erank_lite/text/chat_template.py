"""A checkpoint's own chat template, rendered as Transformers does: it is foreign code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from erank_lite.errors import ModelError


def render(
    template: str, messages: Sequence[Mapping[str, str]], specials: Mapping[str, str]
) -> str:
    """Return the prompt that a template makes of messages, generation prompt added.

    Sandboxed, blocks trimmed, with the filter, functions and tag that Transformers gives to
    templates (`transformers.utils.chat_template_utils`).

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

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["namespace"] = _Namespace
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **specials
        )
    # A template is foreign code: whatever it raises, it is the model that cannot be used.
    except Exception as error:
        raise ModelError(f"the chat template fails: {error}") from None


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, around what a model is trained to write."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """Without names that lead into Python's own objects."""

    def __init__(*args: Any, **names: Any) -> None:  # so that a name may be `self`
        self, *rest = args
        jinja2.utils.Namespace.__init__(self, *rest)
        for name, value in names.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(text: str) -> NoReturn:
    raise jinja2.TemplateError(text)
