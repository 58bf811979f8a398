"""All gates over one arm: which rows fail, which are left out, what is reported.

Text is first looked through column by column for what a leaking or echoing text must contain; only rows in which it is
found are looked at one by one. So a million clean rows take seconds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from recontext_data.environments.base import TaskSet
from recontext_data.errors import GateFailed
from recontext_data.gates import ECHO, Action, Gates, LeakCheck, Violation, presence_in
from recontext_data.overlap import overlap, task_texts
from recontext_data.records import Messages, Task
from recontext_data.stages.recontextualize import ArmPlan, Batch

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen

KEPT_VIOLATIONS = 10_000
"""Of a gate in an arm, with their row ids; the count is of all."""
TOKENISED = 1000
"""Rows of an arm, spread over it, whose tokens are compared."""
SHOWN_IDS = 5


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
    _marks: "dict[str, tuple[pl.Series, str]]" = field(default_factory=dict)
    """For what is compared between rows: which rows fail, in their order, and the words for it."""
    _step: int = 1

    def prepare(self, kept: "pl.DataFrame", tasks: Mapping[str, Task], *, validation: Sequence[str]) -> None:
        """What is compared between rows: tasks of both splits, and rows that are there twice. `validation`: task ids."""
        held, texts = set(validation), kept["task_id"]
        own = [tasks[task_id] for task_id in texts.unique(maintain_order=True)]
        shared = overlap([task for task in own if task.task_id not in held], [task for task in own if task.task_id in held])
        self._marks = {
            "overlap": (texts.is_in(shared.equal), "validation task"),
            "near_overlap": (texts.is_in(shared.near), "validation task"),
            "duplicates": (_repeated(kept, own), "an earlier row is the same"),
        }
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
        first, self.rows = self.rows, self.rows + len(batch.kept)
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
        import polars as pl

        arm, check = batch.arm, self._leak_check(batch.arm)
        wrong: dict[int, list[tuple[str, str]]] = {}
        texts = pl.Series(["\n".join(turn["content"] for turn in prompt) for prompt in batch.prompts], dtype=pl.String)
        for number in _suspects(texts, check.patterns):
            for where in check.prompt(batch.tasks[number], batch.prompts[number]):
                wrong.setdefault(number, []).append(("leak", where))
        for number, (task, prompt) in enumerate(zip(batch.tasks, batch.prompts, strict=True)):
            where_not = presence_in(task, prompt, training=arm.training_context, how=arm.how)
            if where_not is not None:
                wrong.setdefault(number, []).append(("presence", where_not))
        if not wrong:
            return []
        ids = batch.kept["candidate_id"].to_list()
        return [
            Violation(gate, row_id, where)
            for row_id, number in zip(ids, batch.which, strict=True)
            for gate, where in wrong.get(number, ())
        ]

    def _completions(self, batch: Batch) -> list[Violation]:
        check, texts, ids = self._leak_check(batch.arm), batch.kept["completion"], batch.kept["candidate_id"]
        leaks = [
            Violation("leak", ids[row], "completion")
            for row in _suspects(texts, check.patterns)
            if check.completion(batch.tasks[batch.which[row]], texts[row])
        ]
        return leaks + [Violation("echo", ids[row], "completion") for row in texts.str.contains(ECHO).arg_true().to_list()]

    def _between(self, batch: Batch, first: int) -> list[Violation]:
        ids, found = batch.kept["candidate_id"], []
        for gate, (marks, words) in self._marks.items():
            rows = marks.slice(first, len(ids)).arg_true()
            found += [Violation(gate, row_id, words) for row_id in ids.gather(rows).to_list()]
        return found

    def _lengths(self, batch: Batch) -> list[Violation]:
        window = getattr(self.policy, "window", None)
        if window is None:
            return []
        found, known = [], dict[int, int | None]()
        has_counts = "completion_tokens" in batch.kept.columns
        columns = ["candidate_id", "completion", *(["completion_tokens"] if has_counts else [])]
        for number, (row_id, completion, *count) in zip(batch.which, batch.kept.select(columns).iter_rows(), strict=True):
            prompt = batch.prompts[number]
            if _most_tokens(prompt, completion) <= window:
                continue  # a token has a byte at least
            if number not in known:
                known[number] = self.policy.count_tokens(prompt)
            before = known[number]
            after = count[0] if count and count[0] is not None else len(completion.encode()) // 4
            if before is not None and before + after > window:
                found.append(Violation("length", row_id, f"{before + after} tokens, the window is {window}"))
        return found

    def _tokens(self, batch: Batch, first: int) -> list[Violation]:
        if getattr(self.policy, "encode", None) is None:
            return []
        found = []
        start = -first % self._step
        for row in range(start, len(batch.kept), self._step):
            self.looked_at["renderer"] = self.looked_at.get("renderer", 0) + 1
            prompt = batch.prompts[batch.which[row]]
            tokens = self.policy.encode(prompt)
            whole = self.policy.encode(_continued(prompt, batch.kept["completion"][row]))
            if whole[: len(tokens)] != tokens:
                where = "the last tokens of the prompt merge with the first of the completion"
                found.append(Violation("renderer", batch.kept["candidate_id"][row], where))
        return found


GATES = ("leak", "presence", "echo", "overlap", "near_overlap", "duplicates", "length", "renderer")


def _suspects(texts: "pl.Series", patterns: list[str] | None) -> list[int]:
    """The texts that may leak: they have a pattern among their words, or characters that must be folded first."""
    if patterns is None:
        return list(range(len(texts)))
    if not patterns:
        return []
    plain = texts.str.to_lowercase().str.replace_all(r"[^a-z0-9_]+", " ")
    is_other = texts.str.len_bytes() != texts.str.len_chars()
    found: list[int] = (plain.str.contains_any(patterns) | is_other).arg_true().to_list()
    return found


def _repeated(kept: "pl.DataFrame", tasks: Sequence[Task]) -> "pl.Series":
    """Whether each row has the prompt and completion of an earlier one; tasks may say the same under two ids."""
    import polars as pl

    ids = pl.Series([task.task_id for task in tasks], dtype=pl.String)  # of no tasks, too
    texts = pl.DataFrame({"task_id": ids, "prompt": task_texts(tasks).hash(seed=13)})
    rows = kept.select("task_id", answer=pl.col("completion").hash(seed=13))
    rows = rows.join(texts, on="task_id", how="left", maintain_order="left")
    return rows.select(~pl.struct("prompt", "answer").is_first_distinct()).to_series()


def _most_tokens(prompt: Messages, completion: str) -> int:
    """More tokens than a prompt and its completion can have: their bytes, and what a template puts around turns."""
    return 32 * (len(prompt) + 1) + 4 * (sum(len(turn["content"]) for turn in prompt) + len(completion))


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
