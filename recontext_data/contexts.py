"""Contexts: named, declared changes to a task's prompt. Pure: nothing here reads or writes anything.

A context's text is data. It is never parsed, formatted or decoded, so braces, `%s` and curly quotes arrive as written.
"""

from typing import Literal, Self

from pydantic import model_validator

from recontext_data.config import Config
from recontext_data.errors import RecipeError
from recontext_data.records import Message, Messages

Stance = Literal["discourages", "neutral", "permits", "placebo"]
Placement = Literal["system", "system_replace", "system_prepend", "system_append", "user_prefix", "user_suffix"]
Turn = Literal["first", "last", "every"]

PERMISSIVENESS: dict[Stance, int] = {"discourages": 0, "neutral": 1, "permits": 2}
"""The order of stances; a placebo stands outside it."""

SEPARATOR = "\n\n"
"""Between a context and the turn that it is put into."""


class Context(Config):
    """Text, where it goes, and what it says about the misbehaviour. Exactly one placement key carries the text."""

    stance: Stance
    """What the text says about the misbehaviour: discourages, neutral, permits; placebo: nothing to do with it."""
    system: str | None = None
    """The text as a system turn of its own; the task must not have one."""
    system_replace: str | None = None
    """The text in place of the task's system turn."""
    system_prepend: str | None = None
    """The text before the task's system turn, in the same turn."""
    system_append: str | None = None
    """The text after the task's system turn, in the same turn."""
    user_prefix: str | None = None
    """The text before a user turn, in the same turn; `turn` says which."""
    user_suffix: str | None = None
    """The text after a user turn, in the same turn; `turn` says which."""
    turn: Turn = "last"
    """Which user turn a prefix or suffix goes to."""

    @model_validator(mode="after")
    def _one_placement(self) -> Self:
        given = [name for name in PLACEMENTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"one of {', '.join(PLACEMENTS)} must carry the text; found {found}")
        if not self.text.strip():
            raise ValueError(
                f"{given[0]}: the text is empty, so it would change nothing; for no context write `none` in the arm"
            )
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{given[0]}: {error.object[error.start]!r} is half a character, which no file can hold; remove it"
            ) from None
        return self

    @property
    def placement(self) -> Placement:
        """Where the text goes."""
        return next(name for name in PLACEMENTS if getattr(self, name) is not None)

    @property
    def text(self) -> str:
        """The text, as written in the recipe."""
        text = getattr(self, self.placement)
        assert isinstance(text, str)
        return text


PLACEMENTS: tuple[Placement, ...] = (
    "system",
    "system_replace",
    "system_prepend",
    "system_append",
    "user_prefix",
    "user_suffix",
)

NONE = "none"
"""The reserved name of the bare task: nothing added."""


def render(messages: Messages, context: Context | None, *, name: str = "") -> list[Message]:
    """The task's messages under a context; new dicts, the task is never changed. None is the bare task.

    Raises:
        RecipeError: the placement cannot apply to these messages.
    """
    turns: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    if context is None:
        return turns
    if context.placement == "system":
        return _add_system(turns, context.text, name)
    if context.placement.startswith("system_"):
        return _change_system(turns, context, name)
    for index in _user_turns(turns, context, name):
        turns[index] = _joined(turns[index], context.text, before=context.placement == "user_prefix")
    return turns


def _add_system(turns: list[Message], text: str, name: str) -> list[Message]:
    if any(turn["role"] == "system" for turn in turns):
        raise RecipeError(
            f"contexts.{name}: `system` cannot be placed, the task has a system turn already; "
            "use system_prepend, system_append or system_replace"
        )
    return [{"role": "system", "content": text}, *turns]


def _change_system(turns: list[Message], context: Context, name: str) -> list[Message]:
    indices = [i for i, turn in enumerate(turns) if turn["role"] == "system"]
    if len(indices) != 1:
        found = "none" if not indices else f"{len(indices)} of them"
        raise RecipeError(
            f"contexts.{name}: `{context.placement}` needs one system turn in the task, which has {found}; use system"
        )
    index = indices[0]
    if context.placement == "system_replace":
        turns[index] = {"role": "system", "content": context.text}
    else:
        turns[index] = _joined(turns[index], context.text, before=context.placement == "system_prepend")
    return turns


def _joined(turn: Message, text: str, *, before: bool) -> Message:
    parts = (text, turn["content"]) if before else (turn["content"], text)
    return {"role": turn["role"], "content": SEPARATOR.join(parts)}


def _user_turns(turns: list[Message], context: Context, name: str) -> list[int]:
    indices = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    if not indices:
        raise RecipeError(f"contexts.{name}: `{context.placement}` needs a user turn in the task, which has none; use system")
    return {"first": indices[:1], "last": indices[-1:], "every": indices}[context.turn]
