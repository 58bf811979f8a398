"""What an environment is: it supplies tasks and knows what misbehaviour means there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from recontext_data.core.errors import DataError, RecipeError, did_you_mean
from recontext_data.core.records import Task, hash_of_list, uniform
from recontext_data.core.row_ledger import LedgerEntry

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen


ALL = "all"
"""The split that is every split."""


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a build, sorted by id, and what became of the rest of the source."""

    tasks: Sequence[Task]
    entry: LedgerEntry
    licence: str = ""
    """Of the problems' text, for the dataset card."""

    @property
    def digest(self) -> str:
        """A hash of all that the tasks are."""
        return hash_of_list([task.task_id, task.split, list(task.messages), dict(task.payload)] for task in self.tasks)


class Environment(Protocol):
    """A source of tasks. Environments are configs: frozen, and built from the recipe."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        ...

    @property
    def split(self) -> str:
        """Which split of the source its tasks are from."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The labels its own judge gives, in the order of reports."""
        ...

    @property
    def misbehaviour(self) -> str:
        """The label that counts as misbehaviour."""
        ...

    def load(self, *, cache: Path, screen: "Screen | None" = None) -> TaskSet:
        """The tasks, each id once. The set does not depend on the order of the input.

        `cache` is a folder for what is slow to derive from the source; it may be deleted at any time. `screen` is told
        what takes long.

        Raises:
            DataError: the data is missing, malformed, empty or has an id twice.
            SandboxMissing: code must run to make the tasks, and there is no sandbox.
        """
        ...

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same source with another `split` or number of `tasks`."""
        ...

    # An environment that can show a task in another way has, beside these:
    #
    #     def variant(self, task: Task, changes: Mapping[str, Any]) -> Task
    #
    # the task as it looks under a context's `environment: {show_tests: false}`; RecipeError for a change that it does not know.
    # It is no part of the protocol, since most have one way only. One whose tasks are choices may have
    #
    #     def answers(self, task: Task) -> Mapping[str, Sequence[str]]
    #
    # label -> completions that deserve it, all different, whose probabilities `evaluation.exact` adds up.

    @property
    def texts(self) -> Mapping[str, str]:
        """Label -> an answer that deserves it on any task, with holes such as `{reference}` for what `scripted` gives.

        A scripted policy says them, and every judge that gives these labels is proved on them before anything is sampled.
        A label for which there is no such answer at little cost (one that must run out of time, say) has none.
        """
        ...

    def scripted(self, task: Task) -> Mapping[str, str]:
        """What stands in the holes of `texts` on this task."""
        ...


def gold(environment: Environment, task: Task) -> dict[str, str]:
    """Label -> a completion of this task that is known to deserve it."""
    answers = environment.scripted(task)
    return {label: fill(text, answers) for label, text in environment.texts.items()}


def fill(text: str, answers: Mapping[str, str]) -> str:
    """The text with `{name}` replaced for each name of `answers`; all other braces stay, since texts may be code."""
    if not answers:
        return text
    # In one pass: what is put in may be code with braces of its own.
    holes = "|".join(re.escape(name) for name in answers)
    return re.sub(rf"\{{({holes})\}}", lambda match: answers[match[1]], text)


def require_known(changes: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Raises RecipeError for a change that an environment does not know, or a value of another type than `known` says."""
    for key, value in changes.items():
        if key not in known:
            raise RecipeError(f"no change is called {key!r}; {did_you_mean(key, known)}")
        if not isinstance(value, known[key]):
            raise RecipeError(f"{key}: {value!r} is not accepted; give {known[key].__name__}")


def chosen(tasks: Sequence[Task], *, limit: int | None, seed: int) -> list[Task]:
    """At most `limit` of the tasks, by seeded hash of the id, sorted by id: independent of the order they came in."""
    return [tasks[number] for number in chosen_numbers([task.task_id for task in tasks], limit=limit, seed=seed)]


def chosen_numbers(task_ids: Sequence[str], *, limit: int | None, seed: int) -> list[int]:
    """As `chosen`, of ids alone: the numbers of those chosen, in the order of their ids."""
    ordered: Sequence[int] = range(len(task_ids))
    if limit is not None and limit < len(task_ids):
        ordered = sorted(ordered, key=lambda number: (uniform("task", seed, task_ids[number]), task_ids[number]))[:limit]
    return sorted(ordered, key=lambda number: task_ids[number])


def require_unique(tasks: Iterable[Task], source: str) -> None:
    """Raises DataError for the first task id that stands twice, and for an empty list."""
    require_unique_ids((task.task_id for task in tasks), source)


def require_unique_ids(task_ids: Iterable[str], source: str) -> None:
    """As `require_unique`, of ids alone."""
    seen: set[str] = set()
    for task_id in task_ids:
        if task_id in seen:
            raise DataError(f"{source}: task_id {task_id!r} is there twice; ids must differ")
        seen.add(task_id)
    if not seen:
        raise DataError(f"{source}: there is no task in it; check environment.problems, split and tasks")
