"""The words of a text as BM25 counts them: lower case, without stop words, stemmed.

As Lucene's English analyzer has them, by which the published first stages were made: words as its
StandardTokenizer cuts them (about: letters and digits, with inner apostrophes and points; each Han
character and each Hiragana alone, as languages without spaces have them), no possessive 's, lower
case, these stop words, and Porter's stems.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from erank_lite.errors import missing_extra

ALONE = "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters that are words by themselves, as a regular expression's class has them."""
WORD = rf"[{ALONE}]|[^\W_{ALONE}]+(?:['\u2019.][^\W_{ALONE}]+)*"
"""A word, as a regular expression."""
STOP_WORDS = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they",
    "this", "to", "was", "will", "with",
]  # fmt: skip

_POSSESSIVE = re.compile(r"['\u2019][sS]\b")
_WORDS = re.compile(WORD)
_STOPPED = frozenset(STOP_WORDS)


def without_possessives(text: str) -> str:
    """Return a text without the 's of its words.

    Example:
        >>> without_possessives("the baker's loaf")
        'the baker loaf'
    """
    return _POSSESSIVE.sub("", text)


class Stemmer:
    """Porter's stemmer."""

    def __init__(self, feature: str, extra: str) -> None:
        """Load it.

        Args:
            feature: what needs it, for the message where it is missing.
            extra: the extra that installs it.

        Raises:
            ModelError: PyStemmer is not installed.
        """
        try:
            import Stemmer as Snowball
        except ModuleNotFoundError:
            raise missing_extra(feature, "PyStemmer", extra) from None
        self._porter = Snowball.Stemmer("porter")

    def stems(self, words: Sequence[str]) -> list[str]:
        """Return each word's stem.

        As Porter's own program and Lucene's do: Snowball's would make nothing of "s", and "u" of
        "us".
        """
        return [word if len(word) < 3 else self._porter.stemWord(word) for word in words]

    def terms(self, text: str) -> list[str]:
        """Return a text's words as BM25 counts them, in their order.

        Example:
            >>> Stemmer("search", "search").terms("The baker's loaves stay fresh")
            ['baker', 'loav', 'stai', 'fresh']
        """
        found = _WORDS.findall(without_possessives(text).lower())
        return self.stems([word for word in found if word not in _STOPPED])
