"""Options of engines: types, ranges and what is said of a mistake."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from erank_lite.engines.llama_cpp.options import LlamaCppOptions
from erank_lite.errors import InputError
from erank_lite.util.options import Options, option, parse_assignments


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    at_least: int | None = option(None, "from 0 up", min=0)
    at_most: float = option(0.5, "up to 1", max=1)
    word: str = option("a", "a letter", choices=("a", "b"))
    on: bool | None = option(None, "yes or no")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Some()),
        ({"at_least": 0}, Some(at_least=0)),
        ({"at_least": "7"}, Some(at_least=7)),
        ({"at_most": "-1e3"}, Some(at_most=-1000.0)),
        ({"at_most": 1}, Some(at_most=1.0)),
        ({"at_least": np.int64(7), "at_most": np.float32(0.5)}, Some(at_least=7, at_most=0.5)),
        ({"on": "True", "word": "B"}, Some(on=True, word="b")),
        ({"at_least": None, "word": None, "on": None}, Some()),
    ],
)
def test_values_are_converted(values: dict[str, object], expected: Some) -> None:
    assert Some.from_values(values, "it") == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"at_least": -1}, "at_least must be at least 0, not -1"),
        ({"at_least": True}, "at_least must be a whole number, not 'True'"),
        ({"at_least": "2.5"}, "at_least must be a whole number, not '2.5'"),
        ({"at_most": 2}, "at_most must be at most 1, not 2"),
        ({"at_most": "nan"}, "at_most must be at most 1, not nan"),
        ({"word": "c"}, "word must be one of a, b, not 'c'"),
        ({"on": "yes"}, "on must be true or false, not 'yes'"),
        ({"at_leas": 1}, "it has no option at_leas; did you mean at_least"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as raised:
        Some.from_values(values, "it")
    assert says in raised.value.message


@pytest.mark.parametrize("split", ["-1,2", "nan,1", "inf,1", "a", [1, "x"]])
def test_shares_of_gpus_are_numbers_from_nought_up(split: object) -> None:
    with pytest.raises(InputError, match="tensor_split must be"):
        LlamaCppOptions.from_values({"tensor_split": split}, "the llama.cpp engine")
    plain = LlamaCppOptions.from_values({"tensor_split": "3, 1"}, "the llama.cpp engine")
    assert plain.tensor_split == (3.0, 1.0)


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_assignments_that_are_none(texts: list[str]) -> None:
    with pytest.raises(InputError):
        parse_assignments(texts)
