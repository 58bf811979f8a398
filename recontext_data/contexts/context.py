"""Contexts: named, declared changes to a task's prompt. Pure: nothing here reads or writes anything.

A context's text is data. It is never parsed, formatted or decoded, so braces, `%s` and curly quotes arrive as written;
only `template: true` makes it a template over the task's fields.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import WithJsonSchema, field_validator, model_validator

from recontext_data.contexts.placement import PLAIN, RenderOptions, place
from recontext_data.contexts.templates import drawn, fill_template, wrong_direction
from recontext_data.core.config import Config, optional_field
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message, Task

Stance = Literal["discourages", "neutral", "permits", "placebo"]
Placement = Literal[
    "system",
    "system_replace",
    "system_prepend",
    "system_append",
    "user_prefix",
    "user_suffix",
    "assistant_prefill",
    "field",
    "environment",
]
Turn = Literal["first", "last", "every"]

PERMISSIVENESS: dict[Stance, int] = {"discourages": 0, "neutral": 1, "permits": 2}
"""The order of stances; a placebo stands outside it."""

TEXT_PLACEMENTS: tuple[Placement, ...] = (
    "system",
    "system_replace",
    "system_prepend",
    "system_append",
    "user_prefix",
    "user_suffix",
    "assistant_prefill",
    "field",
)
PLACEMENTS: tuple[Placement, ...] = (*TEXT_PLACEMENTS, "environment")

NONE = "none"
"""The reserved name of the bare task: nothing added."""

_LIST_OR_FILE = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}


class Context(Config):
    """Text, where it goes, and what it says about the misbehaviour. One placement key carries the text."""

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
    assistant_prefill: str | None = optional_field(None)
    """The text as the beginning of the answer, which the policy continues; the completion is what comes after it."""
    field: dict[str, str] | None = optional_field(None)
    """{NAME: text}: the text at a place that the environment's own prompt offers under that name."""
    environment: dict[str, Any] | None = optional_field(None)
    """What the environment shows otherwise, such as {show_tests: false}; alone, or beside one text."""
    template: bool = optional_field(False)
    """Whether the text is a Jinja template over the task's fields: its payload by name, task_id and split."""
    paraphrases: Annotated[list[str], WithJsonSchema(_LIST_OR_FILE)] = optional_field([])
    """Other texts for the same place, or a file with one per line; each task draws one of them or the text above."""
    paraphrase_seed: int = optional_field(0)
    """Decides which task draws which."""
    allow_position_words: bool = optional_field(False)
    """Accept `above`, `below`, `following` and the like although nothing stands there."""

    @field_validator("paraphrases", mode="before")
    @classmethod
    def _lines_are_read(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"{value!r} is a file, which is read when a recipe is loaded; in Python give the texts")
        return value

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        given = [name for name in TEXT_PLACEMENTS if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.environment is None):
            found = " and ".join(given) if given else "none"
            raise ValueError(f"one of {', '.join(PLACEMENTS)} must carry the text; found {found}")
        if self.environment == {}:
            raise ValueError("environment: is empty, so it would change nothing; for no context write `none` in the arm")
        if not given and (self.template or self.paraphrases):
            raise ValueError("template and paraphrases are about a text, and this context has none")
        if self.field is not None and len(self.field) != 1:
            raise ValueError(f"field: gives one place its text, such as {{note: ...}}; found {len(self.field)}")
        for number, text in enumerate(self.texts):
            self._check_text(given[0] if number == 0 else f"paraphrases.{number - 1}", text)
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("paraphrases: two of the texts are the same; each must be there once")
        return self

    def _check_text(self, where: str, text: str) -> None:
        if not text.strip():
            raise ValueError(f"{where}: the text is empty, so it would change nothing; for no context write `none` in the arm")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: {error.object[error.start]!r} is half a character, which no file can hold; remove it"
            ) from None
        above, below = _SURROUNDINGS.get(self.placement, (True, True))
        word = None if self.allow_position_words else wrong_direction(text, has_above=above, has_below=below)
        if word is not None:
            raise ValueError(
                f"{where}: says {word!r}, and {'nothing' if not above else 'no task text'} stands there for a text placed as "
                f"{self.placement}; change the words or the placement, or set allow_position_words: true"
            )

    @cached_property
    def placement(self) -> Placement:
        """Where the text goes; `environment` for a context without text."""
        return next(name for name in PLACEMENTS if getattr(self, name) is not None)

    @cached_property
    def text(self) -> str:
        """The text, as written in the recipe; empty for a context that only changes the environment."""
        value = getattr(self, self.placement)
        if self.placement == "environment":
            return ""
        text = next(iter(value.values())) if isinstance(value, dict) else value
        assert isinstance(text, str)
        return text

    @cached_property
    def texts(self) -> list[str]:
        """The text and its paraphrases; none for a context that only changes the environment."""
        return [self.text, *self.paraphrases] if self.text or self.placement != "environment" else []

    @cached_property
    def varies(self) -> bool:
        """Whether the text differs between tasks."""
        return self.template or bool(self.paraphrases)

    def text_for(self, task: Task, *, name: str = "") -> str:
        """The text of this task: its paraphrase, with the task's fields if it is a template. Empty where there is no text.

        Raises:
            RecipeError: the template cannot be filled from this task, or gives no text.
        """
        if not self.varies:
            return self.text
        text = drawn(self.texts, task.messages, seed=self.paraphrase_seed)
        return self._filled(text, task, name)

    def texts_for(self, task: Task, *, name: str = "") -> list[str]:
        """Every text that this context could have given this task."""
        return [self._filled(text, task, name) for text in self.texts]

    def _filled(self, text: str, task: Task, name: str) -> str:
        if not self.template:
            return text
        made = fill_template(text, task, where=f"contexts.{name}")
        if not made.strip():
            raise RecipeError(f"contexts.{name}: the template gives task {task.task_id!r} no text, so it would change nothing")
        return made


_SURROUNDINGS: Mapping[Placement, tuple[bool, bool]] = {
    "system": (False, True),
    "system_replace": (False, True),
    "system_prepend": (False, True),
    "user_prefix": (False, True),
    "user_suffix": (True, False),
    "assistant_prefill": (True, False),
}
"""Whether something stands above and below a text placed so; of the others it is not known."""


def render(task: Task, context: Context | None, *, name: str = "", how: RenderOptions = PLAIN) -> list[Message]:
    """The task's messages under a context; new dicts, the task is never changed. None is the bare task.

    `how` is the recipe's: what its environment can vary, and what is done about system turns (`recipe.how`).

    Raises:
        RecipeError: the placement cannot apply to these messages, or would change nothing.
    """
    if context is None:
        return how.finish(_copied(task))
    varied = how.varied(task, context.environment, name=name) if context.environment else task
    turns = _copied(varied)
    if context.placement != "environment":
        turns = place(varied, context.placement, context.text_for(task, name=name), context=context, name=name)
    if turns == list(task.messages):
        raise RecipeError(
            f"contexts.{name}: `{context.placement}` changes nothing in task {task.task_id!r}; for the bare task write `none`"
        )
    return how.finish(turns)


def _copied(task: Task) -> list[Message]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in task.messages]
