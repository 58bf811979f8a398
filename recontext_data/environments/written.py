"""What environments over our own written material share: reading it from data/, and choosing tasks by split."""

from collections.abc import Sequence
from typing import Any, Protocol

from recontext_data.core.errors import DataError, did_you_mean
from recontext_data.core.records import Task
from recontext_data.core.resources import shipped
from recontext_data.core.row_ledger import entry
from recontext_data.core.yaml_text import read_yaml
from recontext_data.environments.base import ALL, TaskSet, chosen, require_unique

OWN_LICENCE = "Apache-2.0 (written for recontext_data)"


class Asked(Protocol):
    """What an environment says of which tasks it wants."""

    @property
    def split(self) -> str:
        """Which split; `all` for every one."""
        ...

    @property
    def tasks(self) -> int | None:
        """How many at most."""
        ...

    @property
    def seed(self) -> int:
        """Decides which."""
        ...


def read_own(name: str) -> dict[str, Any]:
    """data/NAME.yaml."""
    tree: dict[str, Any] = read_yaml(shipped(f"data/{name}.yaml").read_text(encoding="utf-8"))
    return tree


def of_split(asked: Asked, tasks: Sequence[Task]) -> list[Task]:
    """The tasks of the split that is asked for.

    Raises:
        DataError: there is none.
    """
    found = [task for task in tasks if asked.split in (ALL, task.split)]
    if not found:
        known = sorted({task.split for task in tasks})
        raise DataError(f"environment.split={asked.split}: no task is in it; {did_you_mean(asked.split, [*known, ALL])}")
    return found


def task_set(asked: Asked, tasks: Sequence[Task], *, source: str, licence: str, repeats: int = 0) -> TaskSet:
    """The tasks asked for, with what became of the rest; `repeats` rows gave a task that an earlier one had given.

    Raises:
        DataError: no task is in the split; an id is there twice.
    """
    there = of_split(asked, tasks)
    require_unique(there, source)
    kept = chosen(there, limit=asked.tasks, seed=asked.seed)
    drops = ["another split"] * (len(tasks) - len(there)) + [f"over the limit of {asked.tasks} tasks"] * (
        len(there) - len(kept)
    )
    drops += ["the same task as an earlier row"] * repeats
    return TaskSet(kept, entry("tasks", "all", rows_in=len(tasks) + repeats, kept=len(kept), drops=drops), licence)
