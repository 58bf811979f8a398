"""Text as it is compared: case, white space, quotes, invisible characters Unicode's variants make no difference."""

import re
import unicodedata
from collections.abc import Iterator

_QUOTES = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
)
# Soft hyphens, joiners, direction marks, variation selectors, fillers, tag characters: nobody sees them.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_WORD = re.compile(r"\w+")


def fold(text: str) -> str:
    """The text with what nobody reads a difference in taken out; white space is single blanks."""
    if text.isascii():
        return " ".join(text.lower().replace("`", "'").split())
    plain = unicodedata.normalize("NFKC", _HIDDEN.sub("", text)).translate(_QUOTES).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def words(text: str) -> list[str]:
    """The words of a text, folded; punctuation parts them and is gone."""
    return _WORD.findall(fold(text))


def grams(found: list[str], n: int) -> set[str]:
    """Every run of `n` words, joined by blanks; none of a shorter text."""
    return {" ".join(found[i : i + n]) for i in range(len(found) - n + 1)}


def blocks(found: list[str], n: int) -> Iterator[str]:
    """Runs of n // 2 words, side by side: every run of `n` words has one of them whole."""
    half = max(1, n // 2)
    if len(found) >= n:
        for start in range(0, len(found) - half + 1, half):
            yield " ".join(found[start : start + half])
