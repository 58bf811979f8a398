"""Prompts of many tasks under one context, column by column; what is in them is what `contexts.render` gives.

A context that says the same to every task does to prompts of one shape (the roles of their turns) the same: `Renderer` asks
`render` once for each shape, with marks in place of the turns' words, sees where the marks come out, and does so with the
words of every task. Contexts that look at the task (templates, paraphrases, places, the environment's doing), and what
depends on words in any other way, are rendered task by task. Tests hold both to the same prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, overload

from recontext_data.contexts.context import Context, render
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message, Messages, Role, Task

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Around the number of a turn in its mark: private characters. A context whose text has one is rendered task by task."""

_Turn = tuple[Role, str, int, str]
"""A turn of a rendered prompt: its role, words, the turn of the task that follows on them (-1: none), and words after it."""


@dataclass(frozen=True)
class FlatConversations(Sequence[list[Message]]):
    """Conversations, their turns one after another in flat lists."""

    roles: list[Role]
    contents: list[str]
    lengths: list[int]
    """Turns of each."""

    @classmethod
    def of(cls, conversations: Sequence[Messages]) -> "FlatConversations":
        """The same as columns."""
        turns = list(chain.from_iterable(conversations))
        return cls([turn["role"] for turn in turns], [turn["content"] for turn in turns], [len(one) for one in conversations])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> list[Message]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Message]]: ...
    def __getitem__(self, index: int | slice) -> "list[Message] | list[list[Message]]":
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        first, stop = int(self.starts[index]), int(self.starts[index]) + self.lengths[index]
        turns = zip(self.roles[first:stop], self.contents[first:stop], strict=True)
        found: list[Message] = [{"role": role, "content": content} for role, content in turns]
        return found

    def __iter__(self) -> Iterator[list[Message]]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def starts(self) -> "NDArray[np.int64]":
        """The place of each conversation's first turn."""
        import numpy as np

        return np.fromiter(accumulate(self.lengths[:-1], initial=0), dtype=np.int64, count=len(self.lengths))

    @cached_property
    def text(self) -> "pl.Series":
        """The turns' words."""
        import polars as pl

        return pl.Series(self.contents, dtype=pl.String)

    def summed(self, values: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Per conversation the sum of what there is per turn."""
        import numpy as np

        sums = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=sums[1:])
        found: NDArray[np.int64] = sums[self.starts + np.asarray(self.lengths, dtype=np.int64)] - sums[self.starts]
        return found


class Renderer:
    """Renders tasks under one context."""

    def __init__(self, context: Context | None, *, name: str = "", how: RenderOptions = PLAIN) -> None:
        self.context, self.name, self.how = context, name, how
        self._plans: dict[tuple[Role, ...], list[_Turn] | None] = {}
        self._is_planned = _says_the_same(context) and how.rendering.no_system_role == "error"

    def prompts(self, tasks: Sequence[Task]) -> FlatConversations:
        """The tasks' prompts, in their order.

        Raises:
            RecipeError: as `render` does.
        """
        if not self._is_planned:
            return FlatConversations.of([self._render(task) for task in tasks])
        roles: list[Role] = []
        contents: list[str] = []
        lengths: list[int] = []
        for task in tasks:
            turns = task.messages
            plan = self._plan(tuple([turn["role"] for turn in turns]))
            if plan is None:
                rendered = self._render(task)
                roles += [turn["role"] for turn in rendered]
                contents += [turn["content"] for turn in rendered]
                lengths.append(len(rendered))
                continue
            for role, before, source, after in plan:
                roles.append(role)
                contents.append(f"{before}{turns[source]['content']}{after}" if source >= 0 else before)
            lengths.append(len(plan))
        return FlatConversations(roles, contents, lengths)

    def _render(self, task: Task) -> list[Message]:
        return render(task, self.context, name=self.name, how=self.how)

    def _plan(self, shape: tuple[Role, ...]) -> list[_Turn] | None:
        """What becomes of prompts of this shape, None where it must be seen with each."""
        if shape not in self._plans:
            self._plans[shape] = self._planned(shape)
        return self._plans[shape]

    def _planned(self, shape: tuple[Role, ...]) -> list[_Turn] | None:
        marks = [f"{_OPEN}{number}{_CLOSE}" for number in range(len(shape))]
        messages: list[Message] = [{"role": role, "content": mark} for role, mark in zip(shape, marks, strict=True)]
        try:
            rendered = self._render(Task(task_id="shape", messages=messages, payload={}, split=""))
        except RecipeError:
            return None  # said of the task that has this shape, by `render`
        plan: list[_Turn] = []
        for turn in rendered:
            before, opened, rest = turn["content"].partition(_OPEN)
            number, _, after = rest.partition(_CLOSE)
            if _OPEN in after:
                return None
            plan.append((turn["role"], before, int(number) if opened else -1, after))
        is_bare = len(plan) == len(shape) and all(not before and not after for _, before, _, after in plan)
        # Whether a context changes nothing hangs on a task's words where it takes the place of a turn.
        has_all = {source for *_, source, _ in plan} >= set(range(len(shape)))
        return plan if has_all and bool(shape) and (self.context is None or not is_bare) else None


def _says_the_same(context: Context | None) -> bool:
    """Whether a context does not look at the task that it is put on."""
    if context is None:
        return True
    looks = context.varies or context.environment is not None or context.field is not None
    return not looks and not any(mark in context.text for mark in (_OPEN, _CLOSE))
