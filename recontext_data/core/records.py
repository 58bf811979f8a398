"""The records that pass between stages: what each is, and what is in it.

Everything here is plain data: no I/O, no heavy imports. `Message` is the field's {role, content}; a `Task` is what an
environment supplies; a `Request` is what a policy is asked; a `Reply` is what it said; a `Candidate` is what a judge
sees; a `Judgement` is what a judge said. The tables on disk and their columns are in `tables.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


Messages = Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSpan:
    """A stretch of a task's text that has a name, so that a context may put its own there, or an environment take it out."""

    turn: int
    """Which of the task's messages."""
    start: int
    """Its first character in the content; equal to `stop` where the bare task has nothing."""
    stop: int
    before: str = ""
    """What must stand before a text that is put here (a blank line, say)."""
    after: str = ""
    """What must stand after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem, rendered to messages without any context."""

    task_id: str
    messages: Messages
    payload: Mapping[str, Any]
    """What the environment's judges need (options, tests, metric ...): JSON-serialisable."""
    split: str
    places: Mapping[str, NamedSpan] = field(default_factory=dict)
    """The template fields that the task's text offers to contexts, by name."""


def filled(task: Task, name: str, text: str) -> Task:
    """The task with `text` at one of its places and the other places where they are now; "" empties it.

    Raises:
        KeyError: the task has no place of that name.
    """
    place = task.places[name]
    new = f"{place.before}{text}{place.after}" if text else ""
    turns: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in task.messages]
    content = turns[place.turn]["content"]
    turns[place.turn]["content"] = content[: place.start] + new + content[place.stop :]
    shift = len(new) - (place.stop - place.start)
    kept: dict[str, NamedSpan] = {}
    for key, other in task.places.items():
        if key == name or other.turn != place.turn or other.stop <= place.start:
            kept[key] = other
        elif other.start >= place.stop:
            kept[key] = replace(other, start=other.start + shift, stop=other.stop + shift)
    kept[name] = replace(place, stop=place.start + len(new))
    return replace(task, messages=turns, places=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How completions are drawn. All of it is part of a reply's identity."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 256
    """Completion tokens at most; a completion cut there has finish_reason `length`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Some completions of one prompt: one for each of `ks`, drawn with the seed beside it."""

    messages: Messages
    sampling: SamplingParams
    ks: tuple[int, ...]
    """Ranks wanted, ascending; not always 0..n-1, since a pool may be topped up."""
    seeds: tuple[int, ...]
    """One seed per k, 0 <= seed < 2**63, derived from content (see `derive_seed`)."""
    keys: tuple[str, ...]
    """The reply key per k; opaque to the policy, which hands it back."""
    tag: str = ""
    """The generation context's name. For a scripted policy and for the screen; never sent and no part of a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One completion, or the reason why there is none. Exactly one of `completion` and `error` is not None."""

    key: str
    completion: str | None
    error: str | None = None
    """The server's own words, or ours, when no completion came. Never a key or a header."""
    reasoning: str | None = None
    """Reasoning text that a server returned beside the completion."""
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter` or the server's word."""
    model: str = ""
    """The model that the server says answered."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, as billed; None on all but the first reply of one request, so that sums are right."""
    completion_tokens: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a judge sees of a candidate: blind to context and arm."""

    candidate_id: str
    task_id: str
    messages: Messages
    """The task's own messages, without the generation context."""
    completion: str
    payload: Mapping[str, Any]
    reasoning: str | None = None
    """Reasoning text that came beside the completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One judge's word on one candidate: a label, a score, both, or neither with the reason."""

    candidate_id: str
    judge: str
    label: str | None
    score: float | None
    unscored_reason: str | None
    """Why there is neither label nor score; None otherwise."""
    raw: str
    """The words that the verdict was read from."""


def content_hash(value: Any) -> str:
    """A hex SHA-256 of a JSON-serialisable value; mappings hash alike in any key order."""
    import hashlib  # here and not above, since a command line that hashes nothing must start fast

    import orjson

    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def hash_of_list(values: Iterable[Any]) -> str:
    """The `content_hash` of the values as one list, which is never made."""
    import hashlib

    import orjson

    digest, between = hashlib.sha256(b"["), b""
    for value in values:
        digest.update(between + orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        between = b","
    digest.update(b"]")
    return digest.hexdigest()


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**63) from content, so that a random choice belongs to what it is about and not to its place."""
    return int(content_hash(list(parts))[:16], 16) >> 1


def uniform(*parts: Any) -> float:
    """A draw from [0, 1) that is a pure function of its arguments."""
    return derive_seed(*parts) / 2**63
