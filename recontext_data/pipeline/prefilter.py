"""What the gates of an arm can say of columns of text at once; only what is found here is looked at one by one.

Nothing is missed: what a leaking text must contain is looked for, prompts are counted through with the rules of `gates`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING

from recontext_data.core.records import Task
from recontext_data.gates.overlap import is_in, task_texts
from recontext_data.gates.rules import presence_rule
from recontext_data.pipeline.recontextualize import Batch, by_task
from recontext_data.pipeline.rendering import FlatConversations
from recontext_data.pipeline.selected_rows import SelectedRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

_ALTERNATIVES = 64
"""Of one regular expression; with some hundreds the automaton no longer fits its cache and is built again and again."""
_SEARCHES = 4
"""Regular expressions that are still faster than rewriting every text as plain words."""


def leak_prefilter(texts: "pl.Series", patterns: list[str] | None) -> "NDArray[np.int64]":
    """The texts that may leak: they have a pattern among their words, or characters that must be folded first.

    `patterns`: runs of words as `gates.LeakCheck.patterns` gives them; None for every text.
    """
    import numpy as np
    import polars as pl

    if patterns is None:
        return np.arange(len(texts))
    if not patterns:
        return np.arange(0)
    found = texts.str.len_bytes() != texts.str.len_chars()
    if len(patterns) <= _ALTERNATIVES * _SEARCHES:
        for first in range(0, len(patterns), _ALTERNATIVES):
            runs = (_between.join(map(re.escape, run.split())) for run in patterns[first : first + _ALTERNATIVES])
            found |= texts.str.contains("(?i)" + "|".join(runs))
    else:
        found |= texts.str.to_lowercase().str.replace_all(_between, " ").str.contains_any(patterns)
    return found.cast(pl.Boolean).arg_true().cast(pl.Int64).to_numpy()


_between = "[^a-z0-9_]+"
"""What parts the words of a text that is all ASCII."""


def presence_prefilter(batch: Batch) -> "NDArray[np.int64]":
    """The prompts of a batch in which the training context may not stand as declared; see `gates.presence_in`."""
    import numpy as np

    context = batch.arm.training_context
    if context is None or context.placement == "environment":
        return np.arange(0)
    if context.varies or context.environment or context.placement == "field":
        return np.arange(len(batch.prompts))  # what must be counted hangs on the task
    rule = presence_rule(context, batch.arm.how)
    bare, prompts = FlatConversations.of([task.messages for task in batch.tasks]), batch.prompts
    is_counted = np.array([role != rule.replaced for role in bare.roles], dtype=bool)
    own = bare.summed(np.where(is_counted, _counts(bare, context.text), 0))
    counts = _counts(prompts, context.text)
    in_role = np.array([rule.role in ("", role) for role in prompts.roles], dtype=bool)
    declared: NDArray[np.int64] | int = 1
    if rule.every_user_turn:
        declared = bare.summed(np.array([role == "user" for role in bare.roles], dtype=np.int64))
    is_there = prompts.summed(np.where(in_role, counts, 0)) > 0
    wrong: NDArray[np.int64] = np.flatnonzero((prompts.summed(counts) - own != declared) | ~is_there)
    return wrong


def _counts(prompts: FlatConversations, text: str) -> "NDArray[np.int64]":
    import polars as pl

    return prompts.text.str.count_matches(text, literal=True).cast(pl.Int64).to_numpy()


class TasksOf:
    """The tasks of an arm's rows, to be gone through as often as needed; some of them come more than once."""

    def __init__(self, kept: SelectedRows, *, parts: int, tasks: Mapping[str, Task], wanted: Callable[[str], bool]) -> None:
        self._kept, self._parts, self._tasks, self._wanted = kept, parts, tasks, wanted

    def __iter__(self) -> Iterator[Task]:
        for rows in in_order(self._kept, self._parts, "task_id"):
            yield from (self._tasks[task_id] for task_id in by_task(rows)[0] if self._wanted(task_id))


def in_order(kept: SelectedRows, parts: int, *columns: str) -> "Iterator[pa.Table]":
    """The rows of all parts with these columns."""
    return chain.from_iterable(kept.tables(part, columns) for part in range(parts))


def repeated(kept: SelectedRows, *, parts: int, tasks: Mapping[str, Task]) -> "NDArray[np.bool_]":
    """Whether each row has the prompt and completion of an earlier one; tasks may say the same under two ids.

    By hashes of 64 bits, of which one of each completion is held at once.
    """
    import numpy as np
    import polars as pl

    hashes = [_hashed(rows, "completion") for rows in in_order(kept, parts, "completion")]
    answers = np.concatenate([np.empty(0, dtype=np.uint64), *hashes])
    del hashes
    ordered = np.sort(answers)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    found = np.zeros(len(answers), dtype=bool)
    pairs, first = [], 0
    for rows in in_order(kept, parts, "task_id") if len(twice) else ():
        own = answers[first : first + rows.num_rows]
        again = is_in(twice, own)
        if again.any():  # only now does it matter whether the prompt is the same, too
            ids, which = by_task(rows)
            needed = np.unique(which[again])
            prompts = np.zeros(len(ids), dtype=np.uint64)
            prompts[needed] = task_texts([tasks[ids[i]] for i in needed.tolist()]).hash(seed=13).to_numpy()
            pairs.append(
                pl.DataFrame({"row": first + np.flatnonzero(again), "prompt": prompts[which[again]], "answer": own[again]})
            )
        first += rows.num_rows
    if pairs:
        frame = pl.concat(pairs)
        found[frame.filter(~pl.struct("prompt", "answer").is_first_distinct())["row"].to_numpy()] = True
    return found


def _hashed(rows: "pa.Table", name: str) -> "NDArray[np.uint64]":
    import polars as pl

    column = pl.from_arrow(rows.column(name))
    assert isinstance(column, pl.Series)
    return column.hash(seed=13).to_numpy()
