"""Text that others wrote, made safe to look at: nothing invisible stays invisible, nothing endless stays endless. Pure.

Escaping for HTML is the template's business; this is about characters that would move a cursor, turn the reading
direction, or hide.
"""

import re
from typing import NamedTuple

LIMIT = 20_000
"""Characters of one text that a report shows."""

# C0 and C1 controls but tab and newline; bidirectional marks, embeddings and isolates; invisible spaces and operators;
# line and paragraph separators; interlinear and tag characters; lone surrogates, which no file can hold; noncharacters.
# The zero-width joiner and variation selectors stay: emoji are made of them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


class Piece(NamedTuple):
    """A stretch of text; `hidden` when it stands for one character that could not be seen."""

    text: str
    hidden: bool


def pieces(text: str) -> list[Piece]:
    """The text in order, each hidden character as its escape (`\\x1b`, `\\u202e`)."""
    found: list[Piece] = []
    start = 0
    for match in _HIDDEN.finditer(text):
        if match.start() > start:
            found.append(Piece(text[start : match.start()], False))
        found.append(Piece(_escape(match[0]), True))
        start = match.end()
    if start < len(text):
        found.append(Piece(text[start:], False))
    return found


def visible(text: str) -> str:
    """The text with each hidden character as its escape; tabs, newlines and emoji as they are."""
    return _HIDDEN.sub(lambda match: _escape(match[0]), text)


def one_line(text: str, *, limit: int = 400) -> str:
    """The text on one line, hidden characters visible, cut at `limit` characters."""
    return cut(visible(" ".join(text.split())), limit=limit)


def cut(text: str, *, limit: int = LIMIT) -> str:
    """The text, or its first `limit` characters and how many more there are."""
    return text if len(text) <= limit else text[:limit] + more(len(text) - limit)


def more(characters: int) -> str:
    """`(… 1,234,567 characters more)`"""
    return f"(… {characters:,} characters more)"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
