"""How a prompt was rewritten: the generation prompt against the training prompt, turn by turn and word by word. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from recontext_data.reports.text import LIMIT, more

Kind = Literal["same", "removed", "added"]
Opcode = tuple[str, int, int, int, int]

_TOKEN = re.compile(r"\s|\w+|[^\w\s]")
# Word pairs that the matcher may compare: it is quadratic, and 2,000 x 2,000 words still take well under a second.
_MOST_PAIRS = 4_000_000
_ISLAND_WORDS = 2
"""Unchanged stretches of up to this many words between two changes are folded into the change: confetti is unreadable."""


class Segment(NamedTuple):
    """A stretch of text that both sides have, or one of them."""

    kind: Kind
    text: str


class ComparedTurn(NamedTuple):
    """One turn of the conversation, compared."""

    role: str
    kind: Literal["same", "removed", "added", "changed"]
    segments: list[Segment]
    note: str
    """How much of it is not shown; empty when all is."""
    characters: int
    """Of the longer side, shown or not."""


def compare_turns(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], *, limit: int = LIMIT
) -> list[ComparedTurn]:
    """Every turn of either prompt, in order. Turns of the same role are paired; the rest are removed or added."""
    roles = [turn["role"] for turn in before], [turn["role"] for turn in after]
    turns: list[ComparedTurn] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, *roles, autojunk=False).get_opcodes():
        if tag == "equal":
            turns += [_compare(a, b, limit=limit) for a, b in zip(before[i1:i2], after[j1:j2], strict=True)]
        else:
            turns += [_whole(turn, kind="removed", limit=limit) for turn in before[i1:i2]]
            turns += [_whole(turn, kind="added", limit=limit) for turn in after[j1:j2]]
    return turns


def compare_words(before: str, after: str) -> list[Segment]:
    """The two texts as one sequence: removing the added segments gives `before`, removing the removed ones `after`."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    inner_old, inner_new = old[head : len(old) - tail], new[head : len(new) - tail]
    found = [Segment("same", "".join(old[:head])), *_inner(inner_old, inner_new)]
    found.append(Segment("same", "".join(old[len(old) - tail :])))
    return [segment for segment in found if segment.text]


def _compare(before: Mapping[str, str], after: Mapping[str, str], *, limit: int) -> ComparedTurn:
    old, new = before["content"], after["content"]
    longest = max(len(old), len(new))
    if old == new:
        return _whole(before, kind="same", limit=limit)
    left, right = max(len(old) - limit, 0), max(len(new) - limit, 0)
    note = ""
    if left or right:
        note = f"{more(left)} in generation, {more(right)} in training"
    return ComparedTurn(before["role"], "changed", compare_words(old[:limit], new[:limit]), note, longest)


def _whole(turn: Mapping[str, str], *, kind: Kind, limit: int) -> ComparedTurn:
    text = turn["content"]
    note = more(len(text) - limit) if len(text) > limit else ""
    return ComparedTurn(turn["role"], kind, [Segment(kind, text[:limit])] if text else [], note, len(text))


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """How many tokens both begin with."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))


def _inner(old: Sequence[str], new: Sequence[str]) -> Iterator[Segment]:
    """The changed middle; too much of it is shown as one replacement, which is true as well."""
    opcodes: list[Opcode] = [("replace", 0, len(old), 0, len(new))]
    if old and new and len(old) * len(new) <= _MOST_PAIRS:
        opcodes = _without_islands(SequenceMatcher(None, old, new, autojunk=False).get_opcodes(), old)
    for tag, i1, i2, j1, j2 in opcodes:
        if tag == "equal":
            yield Segment("same", "".join(old[i1:i2]))
        else:
            yield Segment("removed", "".join(old[i1:i2]))
            yield Segment("added", "".join(new[j1:j2]))


def _without_islands(opcodes: Sequence[Opcode], old: Sequence[str]) -> list[Opcode]:
    """The opcodes with small equal stretches, and the changes on both sides of them, made one change."""
    found: list[Opcode] = []
    for tag, i1, i2, j1, j2 in opcodes:
        words = sum(token.isalnum() for token in old[i1:i2])
        inside = i1 > 0 and i2 < len(old)
        changed = tag != "equal" or (words <= _ISLAND_WORDS and inside)
        if changed and found and found[-1][0] != "equal":
            _, start_old, _, start_new, _ = found[-1]
            found[-1] = ("replace", start_old, i2, start_new, j2)
        else:
            found.append(("replace" if changed else "equal", i1, i2, j1, j2))
    return found
