"""Where a context's text goes in a task's messages, and what a recipe says about system turns. Pure.

`place` puts one text at one place. `RenderOptions` holds the recipe's part in rendering: what the
environment can show otherwise, and the policy for models whose chat template has no system turn or brings its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import Message, Task, filled

SEPARATOR = "\n\n"
"""Between a context and the turn that it is put into."""

Variant = Callable[[Task, Mapping[str, Any]], Task]
"""An environment's task with some of what it shows changed."""


class Rendering(Config):
    """What is done about system turns. It holds for sampling, training and evaluation alike."""

    no_system_role: Literal["error", "merge_into_user"] = "error"
    """For models whose chat template takes no system turn: refuse such prompts, or put the text before the first user turn."""
    default_system: Literal["keep", "remove", "error"] = "keep"
    """A prompt without a system turn, where the chat template adds one of its own: leave it to the template, give every such
    prompt an empty system turn so that it adds none, or refuse (only where the template is at hand to be looked at)."""


class Placed(Protocol):
    """What is needed of a context."""

    @property
    def turn(self) -> str:
        """Which user turns."""
        ...

    @property
    def field(self) -> dict[str, str] | None:
        """The place's name, as the only key."""
        ...


_DEFAULT = Rendering()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """What of rendering is the recipe's."""

    variant: Variant | None = None
    rendering: Rendering = _DEFAULT

    def varied(self, task: Task, changes: Mapping[str, Any], *, name: str) -> Task:
        """The task as the environment shows it under `changes`.

        Raises:
            RecipeError: the environment cannot be varied, or not so.
        """
        if self.variant is None:
            raise RecipeError(f"contexts.{name}.environment: this environment shows its tasks in one way only; remove it")
        try:
            return self.variant(task, changes)
        except RecipeError as error:
            raise RecipeError(f"contexts.{name}.environment: {error}") from None

    def finish(self, turns: list[Message]) -> list[Message]:
        """The messages as they are sent, trained on and measured."""
        merges, removes = self.rendering.no_system_role == "merge_into_user", self.rendering.default_system == "remove"
        if not (merges or removes):
            return turns
        has_system = any(turn["role"] == "system" for turn in turns)
        if has_system and merges:
            return _merged(turns)
        # Templates that bring a system prompt of their own bring it where there is no system turn; an empty one is one.
        if not has_system and removes and not merges:
            return [{"role": "system", "content": ""}, *turns]
        return turns


PLAIN = RenderOptions()
"""Nothing but the context."""


def place(task: Task, placement: str, text: str, *, context: Placed, name: str = "") -> list[Message]:
    """The task's messages with the text at its place; new dicts.

    Raises:
        RecipeError: there is no such place.
    """
    turns: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in task.messages]
    if placement == "system":
        return _add_system(turns, text, name)
    if placement.startswith("system_"):
        return _change_system(turns, placement, text, name)
    if placement == "assistant_prefill":
        return _prefill(turns, text, name)
    if placement == "field":
        return _fill_field(task, text, context, name)
    for index in _user_turns(turns, placement, context.turn, name):
        turns[index] = _joined(turns[index], text, before=placement == "user_prefix")
    return turns


def _add_system(turns: list[Message], text: str, name: str) -> list[Message]:
    if any(turn["role"] == "system" for turn in turns):
        raise RecipeError(
            f"contexts.{name}: `system` cannot be placed, the task has a system turn already; "
            "use system_prepend, system_append or system_replace"
        )
    return [{"role": "system", "content": text}, *turns]


def _change_system(turns: list[Message], placement: str, text: str, name: str) -> list[Message]:
    indices = [i for i, turn in enumerate(turns) if turn["role"] == "system"]
    if len(indices) != 1:
        found = "none" if not indices else f"{len(indices)} of them"
        raise RecipeError(f"contexts.{name}: `{placement}` needs one system turn in the task, which has {found}; use system")
    index = indices[0]
    if placement == "system_replace":
        turns[index] = {"role": "system", "content": text}
    else:
        turns[index] = _joined(turns[index], text, before=placement == "system_prepend")
    return turns


def _prefill(turns: list[Message], text: str, name: str) -> list[Message]:
    if not turns or turns[-1]["role"] != "user":
        found = turns[-1]["role"] if turns else "nothing"
        raise RecipeError(
            f"contexts.{name}: `assistant_prefill` begins the answer to a user turn, and the task ends in {found}; "
            "use another placement"
        )
    return [*turns, {"role": "assistant", "content": text}]


def _fill_field(task: Task, text: str, context: Placed, name: str) -> list[Message]:
    key = next(iter(context.field or {}), "")
    if key not in task.places:
        raise RecipeError(
            f"contexts.{name}.field: task {task.task_id!r} has no place {key!r}; {did_you_mean(key, task.places)}"
        )
    return list(filled(task, key, text).messages)


def _joined(turn: Message, text: str, *, before: bool) -> Message:
    parts = (text, turn["content"]) if before else (turn["content"], text)
    return {"role": turn["role"], "content": SEPARATOR.join(parts)}


def _user_turns(turns: list[Message], placement: str, turn: str, name: str) -> list[int]:
    indices = [i for i, message in enumerate(turns) if message["role"] == "user"]
    if not indices:
        raise RecipeError(f"contexts.{name}: `{placement}` needs a user turn in the task, which has none; use system")
    return {"first": indices[:1], "last": indices[-1:], "every": indices}[turn]


def _merged(turns: list[Message]) -> list[Message]:
    """The system turns' text before the first user turn, in that turn."""
    system = SEPARATOR.join(turn["content"] for turn in turns if turn["role"] == "system" and turn["content"])
    rest: list[Message] = [turn for turn in turns if turn["role"] != "system"]
    first = next((i for i, turn in enumerate(rest) if turn["role"] == "user"), None)
    if first is None:
        raise RecipeError("rendering.no_system_role=merge_into_user: the prompt has a system turn and no user turn to take it")
    if system:
        rest[first] = _joined(rest[first], system, before=True)
    return rest
