"""All gates over one arm: which rows fail, which are left out, what is reported.

Text is first looked through column by column for what a leaking or echoing text must contain; only rows in which it is
found are looked at one by one. So a million clean rows take seconds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import GateFailed
from recontext_data.core.records import Messages, Task
from recontext_data.environments.base import TaskSet
from recontext_data.gates.overlap import Overlap, overlap
from recontext_data.gates.rules import ECHO, Action, Gates, LeakCheck, Violation, presence_in
from recontext_data.pipeline.prefilter import TasksOf, leak_prefilter, presence_prefilter, repeated
from recontext_data.pipeline.recontextualize import ArmPlan, Batch
from recontext_data.pipeline.rendering import FlatConversations
from recontext_data.pipeline.selected_rows import SelectedRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from recontext_data.reports.screen import Screen

KEPT_VIOLATIONS = 10_000
"""Of a gate in an arm, with their row ids; the count is of all."""
TOKENISED = 1000
"""Rows of an arm, spread over it, whose tokens are compared."""
SHOWN_IDS = 5
TOKENS = "completion_tokens"
"""The column that says how long a completion is, where the server counted."""


@dataclass
class ArmGates:
    """The gates of one arm; told of its batches in order."""

    arm: ArmPlan
    config: Gates
    policy: Any = None
    """The policy, where it can cut a text into tokens or knows its window."""
    rows: int = 0
    found: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    looked_at: dict[str, int] = field(default_factory=dict)
    """Rows that a gate looked at, where not at all of them."""
    shared: Overlap = field(default_factory=lambda: Overlap([], []))
    """Of the tasks of both splits."""
    _repeated: "NDArray[np.bool_] | None" = None
    """Whether each row, in order, is there before."""
    _step: int = 1

    def prepare(self, kept: SelectedRows, tasks: Mapping[str, Task], *, validation: Iterable[str]) -> None:
        """What is compared between rows: tasks of both splits, and rows that are there twice. `validation`: task ids."""
        held, parts = frozenset(validation), len(self.arm.parts)
        train = TasksOf(kept, parts=parts, tasks=tasks, wanted=lambda task_id: task_id not in held)
        self.shared = overlap(train, TasksOf(kept, parts=parts, tasks=tasks, wanted=held.__contains__) if held else ())
        self._repeated = repeated(kept, parts=parts, tasks=tasks)
        self._step = max(1, len(kept) // TOKENISED)
        for gate, method in (("length", "window"), ("renderer", "encode")):
            if getattr(self.policy, method, None) is None:
                self.looked_at[gate] = 0

    def action(self, gate: str) -> Action:
        """What becomes of rows that fail it."""
        found: Action = getattr(self.config, gate)
        return found

    def look(self, batch: Batch) -> dict[str, str]:
        """Row ids that are to be left out, each with the reason; what fails is noted."""
        first, self.rows = self.rows, self.rows + len(batch)
        violations = [
            *self._prompts(batch),
            *self._completions(batch),
            *self._between(batch, first),
            *self._lengths(batch),
            *self._tokens(batch, first),
        ]
        for gate, _row_id in dict.fromkeys((v.gate, v.row_id) for v in violations):
            self.counts[gate] += 1
        for violation in violations:
            if self.counts[violation.gate] <= KEPT_VIOLATIONS:
                self.found.append(violation)
        return {v.row_id: f"gate {v.gate}" for v in reversed(violations) if self.action(v.gate) == "drop"}

    @property
    def failing(self) -> list[Violation]:
        """What ends the build."""
        return [violation for violation in self.found if self.action(violation.gate) == "fail"]

    def summary(self) -> list[dict[str, Any]]:
        """A row per gate for the manifest."""
        rows = []
        for gate in GATES:
            looked = self.looked_at.get(gate, self.rows)
            if looked == 0 and self.rows:
                continue  # this policy cannot say
            ids = list(dict.fromkeys(v.row_id for v in self.found if v.gate == gate))[:SHOWN_IDS]
            rows.append(
                {
                    "gate": gate,
                    "scope": self.arm.name,
                    "rows": looked,
                    "violations": self.counts[gate],
                    "action": self.action(gate),
                    "row_ids": ids,
                }
            )
        return rows

    def _leak_check(self, arm: ArmPlan) -> LeakCheck:
        return LeakCheck(
            generation=arm.generation_context, training=arm.training_context, how=arm.how, n=self.config.leak_words
        )

    def _prompts(self, batch: Batch) -> list[Violation]:
        arm, check = batch.arm, self._leak_check(batch.arm)
        wrong: dict[int, list[tuple[str, str]]] = {}
        turns = leak_prefilter(batch.prompts.text, check.patterns)
        for number in dict.fromkeys((batch.prompts.starts.searchsorted(turns, side="right") - 1).tolist()):
            for where in check.prompt(batch.tasks[number], batch.prompts[number]):
                wrong.setdefault(number, []).append(("leak", where))
        for number in presence_prefilter(batch).tolist():
            where_not = presence_in(batch.tasks[number], batch.prompts[number], training=arm.training_context, how=arm.how)
            if where_not is not None:
                wrong.setdefault(number, []).append(("presence", where_not))
        if not wrong:
            return []
        return [
            Violation(gate, row_id, where)
            for row_id, number in zip(batch.column("candidate_id").to_list(), batch.which.tolist(), strict=True)
            for gate, where in wrong.get(number, ())
        ]

    def _completions(self, batch: Batch) -> list[Violation]:
        check, texts, ids = self._leak_check(batch.arm), batch.column("completion"), batch.column("candidate_id")
        leaks = [
            Violation("leak", ids[row], "completion")
            for row in leak_prefilter(texts, check.patterns).tolist()
            if check.completion(batch.tasks[batch.which[row]], texts[row])
        ]
        return leaks + [Violation("echo", ids[row], "completion") for row in texts.str.contains(ECHO).arg_true().to_list()]

    def _between(self, batch: Batch, first: int) -> list[Violation]:
        import numpy as np

        found = []
        for gate, tasks in (("overlap", self._equal), ("near_overlap", self._near)):
            if tasks:
                shared = np.array([task.task_id in tasks for task in batch.tasks], dtype=bool)[batch.which]
                found += _violations(gate, batch, shared, "validation task")
        if self._repeated is not None:
            own = self._repeated[first : first + len(batch)]
            found += _violations("duplicates", batch, own, "an earlier row is the same")
        return found

    @cached_property
    def _equal(self) -> frozenset[str]:
        return frozenset(self.shared.equal)

    @cached_property
    def _near(self) -> frozenset[str]:
        return frozenset(self.shared.near)

    def _lengths(self, batch: Batch) -> list[Violation]:
        import polars as pl

        window = getattr(self.policy, "window", None)
        if window is None:
            return []
        most = (
            _most_tokens(batch.prompts)[batch.which] + 4 * batch.column("completion").str.len_chars().cast(pl.Int64).to_numpy()
        )
        found, known = [], dict[int, int | None]()
        for row in (most > window).nonzero()[0].tolist():  # the others fit in any case
            number, text = int(batch.which[row]), batch.rows.column("completion")[row].as_py()
            if number not in known:
                known[number] = self.policy.count_tokens(batch.prompts[number])
            before = known[number]
            counted = batch.rows.column(TOKENS)[row].as_py() if TOKENS in batch.rows.column_names else None
            after = counted if counted is not None else len(text.encode()) // 4
            if before is not None and before + after > window:
                row_id = batch.rows.column("candidate_id")[row].as_py()
                found.append(Violation("length", row_id, f"{before + after} tokens, the window is {window}"))
        return found

    def _tokens(self, batch: Batch, first: int) -> list[Violation]:
        if getattr(self.policy, "encode", None) is None:
            return []
        found = []
        for row in range(-first % self._step, len(batch), self._step):
            self.looked_at["renderer"] = self.looked_at.get("renderer", 0) + 1
            prompt = batch.prompts[int(batch.which[row])]
            tokens = self.policy.encode(prompt)
            whole = self.policy.encode(_continued(prompt, batch.rows.column("completion")[row].as_py()))
            if whole[: len(tokens)] != tokens:
                where = "the last tokens of the prompt merge with the first of the completion"
                found.append(Violation("renderer", batch.rows.column("candidate_id")[row].as_py(), where))
        return found


GATES = ("leak", "presence", "echo", "overlap", "near_overlap", "duplicates", "length", "renderer")


def _violations(gate: str, batch: Batch, marks: "NDArray[np.bool_]", where: str) -> list[Violation]:
    """One for each row that is marked."""
    rows = marks.nonzero()[0]
    return (
        [Violation(gate, row_id, where) for row_id in batch.column("candidate_id").gather(rows).to_list()] if len(rows) else []
    )


def _most_tokens(prompts: FlatConversations) -> "NDArray[np.int64]":
    """More tokens than each prompt can have: a token has a byte at least, and a template puts some around turns."""
    import numpy as np
    import polars as pl

    characters = prompts.summed(prompts.text.str.len_chars().cast(pl.Int64).to_numpy())
    found: NDArray[np.int64] = 32 * (np.asarray(prompts.lengths) + 1) + 4 * characters
    return found


def _continued(prompt: Messages, completion: str) -> Messages:
    if prompt[-1]["role"] == "assistant":
        return [*prompt[:-1], {"role": "assistant", "content": prompt[-1]["content"] + completion}]
    return [*prompt, {"role": "assistant", "content": completion}]


def held_out(tasks: TaskSet, *, trained: Sequence[Task], gates: Gates, screen: "Screen") -> TaskSet:
    """The tasks that models may be measured on: without those of the training set, as the overlap gates say.

    Raises:
        GateFailed: a gate is set to fail, or no task is left.
    """
    shared = overlap(trained, tasks.tasks)
    dropped: set[str] = set()
    for gate, ids, what in (
        ("overlap", shared.equal, "are training tasks word for word"),
        ("near_overlap", shared.near, "share 13 words in a row with a training task"),
    ):
        action: Action = getattr(gates, gate)
        if not ids:
            continue
        words = f"{len(ids)} of {len(tasks.tasks)} evaluation tasks {what} (gates.{gate}: {action}), such as {ids[0]}"
        if action == "fail":
            raise GateFailed(f"{words}; choose another evaluation.split, or set gates.{gate}=drop")
        screen.note(f"{words}{'; they are left out' if action == 'drop' else ''}")
        dropped |= set(ids) if action == "drop" else set()
    kept = [task for task in tasks.tasks if task.task_id not in dropped]
    if not kept:
        raise GateFailed("no evaluation task is left that models were not trained on; choose another evaluation.split")
    return replace(tasks, tasks=kept) if dropped else tasks


def violations_table(by_arm: Mapping[str, Sequence[Violation]]) -> "pl.DataFrame":
    """The violations of all arms with the columns of `tables.VIOLATIONS`."""
    import polars as pl

    rows = [(arm, v.gate, v.row_id, v.where) for arm, violations in by_arm.items() for v in violations]
    return pl.DataFrame(rows, schema={name: pl.String for name in ("arm", "gate", "candidate_id", "where")}, orient="row")
