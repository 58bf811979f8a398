"""What is wrong with a row before it is sent, so that one bad row does not cost a file, and a file not a job. Pure.

    findings = check(example, limits)      # [] where nothing is wrong

A finding names the row, the reason and where. Moderation is asked of a server and added by `moderation.py`; duplicates are
found over a whole file by `Seen`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import orjson

from recontext_data.publishing.services.special_tokens import families, find

ROLES = ("system", "developer", "user", "assistant")
LEAST_EXAMPLES = 10
"""Fewer, and the service refuses the file."""
TOKENS_PER_TURN = 4
"""What a chat's markup adds to each turn, by OpenAI's own rule of thumb."""
CHARACTERS_PER_TOKEN = 4
HALF = "holds half a character (a lone surrogate), which no file can hold"


@dataclass(frozen=True, slots=True)
class PreflightRow:
    """One row on its way into a file."""

    row_id: str
    line: Mapping[str, Any] | None
    """What will stand in the file; None where the row could not be read."""
    turns: Sequence[Mapping[str, Any]] = ()
    """The conversation, the trained turn last."""
    rejected: str | None = None
    """The answer that is not preferred, in a file of preferences."""
    problem: tuple[str, str] | None = None
    """(reason, detail) of what was met in reading it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one row."""

    row_id: str
    reason: str
    """A short name that rows are counted by."""
    detail: str
    """What and where, on one line."""


@dataclass(frozen=True, slots=True)
class RowLimits:
    """What a row may be."""

    tokens: int = 65_536
    """Of one example; by characters, unless the caller counts."""


def check(example: PreflightRow, limits: RowLimits, *, tokens: int) -> list[Finding]:
    """Everything that is wrong with one row by itself; `tokens`: its length."""
    if example.problem is not None:
        return [Finding(example.row_id, *example.problem)]
    found = [Finding(example.row_id, reason, detail) for reason, detail in _turns(example.turns)]
    if not found:
        found = [Finding(example.row_id, reason, detail) for reason, detail in _texts(example)]
    if tokens > limits.tokens:
        found.append(Finding(example.row_id, "too long", f"about {tokens:,} tokens, and {limits.tokens:,} are allowed"))
    return found


def _turns(turns: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Roles and their order: a system turn at most at the start, then user and assistant by turns, an answer at the end."""
    if not turns:
        yield "no turns", "the conversation is empty"
        return
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
            role = turn.get("role") if isinstance(turn, Mapping) else turn
            yield "unknown role", f"turn {number} has the role {str(role)[:40]!r}; known: {', '.join(ROLES)}"
            return
        if not isinstance(turn.get("content"), str):
            yield "no text", f"turn {number} ({turn['role']}) has no text as its content"
            return
    yield from _order([turn["role"] for turn in turns])
    yield from _weights(turns)


def _order(roles: list[str]) -> Iterator[tuple[str, str]]:
    late = [number for number, role in enumerate(roles, 1) if role in ("system", "developer") and number > 1]
    if late:
        yield (
            "system turn in the middle",
            f"turn {late[0]} of {len(roles)} is a {roles[late[0] - 1]} turn; only the first may be",
        )
        return
    spoken = [role for role in roles if role in ("user", "assistant")]
    if not spoken or spoken[0] != "user":
        yield "wrong role order", "the first turn after the system prompt is not the user's"
    elif spoken[-1] != "assistant":
        yield "wrong role order", "the last turn is not the assistant's, so there is nothing to train on"
    else:
        twice = next((role for role, after in pairwise(spoken) if role == after), None)
        if twice:
            yield "wrong role order", f"two {twice} turns follow each other"


def _weights(turns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    weights = [turn.get("weight", 1) for turn in turns if turn["role"] == "assistant"]
    if any(weight not in (0, 1) for weight in weights):
        yield "wrong weight", "a turn's weight is 0 or 1"
    elif weights and not any(weights):
        yield "wrong weight", "no assistant turn has weight 1, so there is nothing to train on"


def _texts(example: PreflightRow) -> Iterator[tuple[str, str]]:
    for where, text in texts(example):
        if not text.strip():
            yield "empty turn", f"{where} says nothing"
        elif token := find(text):
            of = ", ".join(families(token)) or "of a tokenizer's form"
            yield "special token", f"{where} has {token} ({of}) as text"


def texts(example: PreflightRow) -> Iterator[tuple[str, str]]:
    """Every text of a row and where it stands."""
    for number, turn in enumerate(example.turns, 1):
        yield f"turn {number} ({turn['role']})", turn["content"]
    if example.rejected is not None:
        yield "the answer not preferred", example.rejected


def count_tokens(example: PreflightRow) -> int:
    """The row's tokens by its characters: a rule of thumb for English, to be called approximate."""
    if not all(isinstance(turn, Mapping) and isinstance(turn.get("content"), str) for turn in example.turns):
        return 0
    characters = sum(len(turn["content"]) for turn in example.turns) + len(example.rejected or "")
    turns = len(example.turns) + (example.rejected is not None)
    return -(-characters // CHARACTERS_PER_TOKEN) + TOKENS_PER_TURN * turns


def encode(example: PreflightRow) -> bytes | Finding:
    """The row as a line of the file, or why it cannot be one."""
    try:
        return orjson.dumps(example.line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        if "surrogate" in str(error):
            return Finding(example.row_id, "lone surrogate", HALF)
        return Finding(example.row_id, "unreadable", f"cannot be written as JSON: {error}")


@dataclass
class Seen:
    """Which lines a file has already, by 8 bytes of their hash."""

    rows: dict[bytes, str] = field(default_factory=dict)

    def before(self, line: bytes, row_id: str) -> str | None:
        """The row that said exactly the same before; None the first time."""
        key = blake2b(line, digest_size=8).digest()
        first = self.rows.setdefault(key, row_id)
        return None if first is row_id else first
