"""Families of rerankers by name. To add one: a module beside, and a line here."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

from erank_lite.errors import InputError
from erank_lite.families import (
    erank,
    judgerank,
    qwen3_reranker,
    rank1,
    rank_r1,
    rearank,
    tfrank,
)
from erank_lite.families.base import Family

_log = logging.getLogger(__name__)

FAMILIES = {
    family.name: family
    for family in (
        erank.FAMILY, rank1.FAMILY, qwen3_reranker.FAMILY, tfrank.FAMILY, rank_r1.FAMILY,
        rank_r1.FIRST, rearank.FAMILY, judgerank.FAMILY,
    )
}  # fmt: skip
DEFAULT = erank.FAMILY


def family_named(name: str) -> Family:
    """Return the family of that name.

    Raises:
        InputError: there is none.

    Example:
        >>> family_named("Rank1").unit
        'a document'
    """
    key = name.strip().lower().replace("_", "-") if isinstance(name, str) else ""
    if key not in FAMILIES:
        close = difflib.get_close_matches(key, FAMILIES, 1, cutoff=0.5)
        raise InputError(
            f"there is no family {name!r}",
            f"did you mean {close[0]}?" if close else f"families are {', '.join(FAMILIES)}",
        )
    return FAMILIES[key]


def recognize(names: Iterable[str]) -> Family | None:
    """Return the family that a model's names tell, or None where they tell none.

    Args:
        names: the last parts of paths and of names on the Hub, and those that files give
            themselves.

    Example:
        >>> recognize(["Qwen3-Reranker-0.6B-Q8_0.gguf"]).name, recognize(["model.gguf"])
        ('qwen3-reranker', None)
    """
    for name in names:
        for family in FAMILIES.values():
            if family.pattern is not None and family.pattern.search(name):
                return family
    return None


def checked_family(asked: str | None, model: str | None, instruction: str | None) -> Family:
    """Return the family that a model's name tells, once the instruction is known to suit it.

    This finds what is wrong before a model is loaded; its file may tell more than its name does.

    Args:
        asked: the family that is asked for, or None.
        model: as `erank_lite.load.load` takes it, or None.
        instruction: free text or a name.

    Raises:
        InputError: there is no such family, or it cannot use the instruction.
    """
    name = (model or "").replace("\\", "/").rsplit("/", 1)[-1]
    family = family_named(asked) if asked is not None else recognize([name]) or DEFAULT
    family.instruction_text(instruction)
    return family


def choose(asked: str | None, names: Iterable[str]) -> Family:
    """Return the family that a model is used as: what is asked for, else what its names tell.

    Raises:
        InputError: there is no family of the name asked for.
    """
    names = list(names)
    found = recognize(names)
    if asked is None:
        return found or DEFAULT
    family = family_named(asked)
    if found is not None and found is not family:
        _log.warning(
            "%s looks like a model of %s; it is asked as %s", names[0], found.name, family.name
        )
    return family
