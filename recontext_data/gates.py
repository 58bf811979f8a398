"""Gates: what must hold of training rows before they are written. Pure; each returns its violations with row ids.

`leak`: the generation context's text is nowhere in a row whose training context does not carry it.
`presence`: the training context's text is in the prompt exactly once per declared place, and nowhere else.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recontext_data.contexts import Context
from recontext_data.placing import PLAIN, How
from recontext_data.records import Messages, Role, Task, filled

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a gate needs of a training row."""

    row_id: str
    task: Task
    """The task itself, without a context."""
    prompt: Messages
    """The messages that will be trained on."""
    completion: str


@dataclass(frozen=True, slots=True)
class Violation:
    """One row that fails a gate, and where."""

    gate: str
    row_id: str
    where: str


def fold(text: str) -> str:
    """Text as the gates compare it: case and white space do not hide a leak."""
    return _SPACE.sub(" ", text).strip().casefold()


def leak(rows: Iterable[Row], *, generation: Context | None, training: Context | None) -> Iterator[Violation]:
    """Rows in which the generation context's text stands although the training context does not carry it."""
    if generation is None:
        return
    secret = fold(generation.text)
    if training is not None and secret in fold(training.text):
        return
    for row in rows:
        turns = [(turn["role"], fold(turn["content"]).count(secret)) for turn in row.prompt]
        quoted = secret in fold(row.completion)
        if quoted or any(count for _, count in turns):
            yield from _beyond_the_task(row, turns, secret=secret, quoted=quoted)


def _beyond_the_task(row: Row, turns: list[tuple[Role, int]], *, secret: str, quoted: bool) -> Iterator[Violation]:
    """What the task itself says it says under any context, and a completion may quote the task; the rest is a leak."""
    own = Counter[Role]()
    for turn in row.task.messages:
        own[turn["role"]] += fold(turn["content"]).count(secret)
    for role in dict.fromkeys(role for role, _ in turns):
        if sum(count for other, count in turns if other == role) > own[role]:
            index = next(i for i, (other, count) in enumerate(turns) if other == role and count)
            yield Violation("leak", row.row_id, f"prompt turn {index} ({role})")
    if quoted and not own.total():
        yield Violation("leak", row.row_id, "completion")


def presence(rows: Iterable[Row], *, training: Context | None, how: How = PLAIN) -> Iterator[Violation]:
    """Rows in which the training context does not stand exactly as often as its placement says, beyond the task's own."""
    if training is None or training.placement == "environment":
        return
    placement = training.placement
    role = _role(training, how)
    for row in rows:
        text, task = training.text_for(row.task), row.task
        if training.environment:
            task = how.varied(task, training.environment, name="")
        if placement == "field":
            task = filled(task, next(iter(training.field or {})), "")
        replaced = "system" if placement == "system_replace" else ""
        own = sum(turn["content"].count(text) for turn in task.messages if turn["role"] != replaced)
        declared = 1
        if placement in ("user_prefix", "user_suffix") and training.turn == "every":
            declared = sum(turn["role"] == "user" for turn in task.messages)
        found = sum(turn["content"].count(text) for turn in row.prompt)
        in_role = any(text in turn["content"] for turn in row.prompt if role in ("", turn["role"]))
        if found - own != declared or not in_role:
            yield Violation("presence", row.row_id, f"found {found - own} times, declared {declared} in the {role} turn")


def _role(training: Context, how: How) -> str:
    """The role of the turns that carry the text; empty where it is the environment's affair."""
    if training.placement == "assistant_prefill":
        return "assistant"
    if training.placement == "field":
        return ""
    is_merged = how.rendering.no_system_role == "merge_into_user"
    return "system" if training.placement.startswith("system") and not is_merged else "user"
