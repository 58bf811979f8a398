"""Stage recontextualize: kept candidates in, training rows out, each under its arm's training context.

A prompt is rendered once however many answers a task has, and rows are made column by column: no Python object per row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recontext_data.contexts import Context, render
from recontext_data.placing import PLAIN, How
from recontext_data.records import Message, Task
from recontext_data.tables import TRAINING_ROWS, arrow_schema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

BATCH = 8192
"""Rows built at once; bounds memory."""

COLUMNS = ("candidate_id", "task_id", "k", "n", "completion", "score", "judgements", "finish_reason", "model", "seed")
"""What a row takes over from its candidate."""


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """One arm, resolved: what its rows are made from."""

    name: str
    kind: str
    generation: str
    training: str
    generation_context: Context | None
    training_context: Context | None
    n: int
    how: How = PLAIN
    others: tuple["ArmPlan", ...] = ()
    """What rows of it are made from that are not made as its first are (`Arm.where`, `Arm.mix`). The column `part` of its kept
    candidates says which: 0 is the arm itself, 1 the first of these; rows are written in that order."""


@dataclass(frozen=True)
class Batch:
    """Some kept candidates with the prompts that they will be trained under."""

    kept: "pl.DataFrame"
    tasks: list[Task]
    """Each task of these candidates once."""
    prompts: list[list[Message]]
    """The tasks' prompts under the training context, in the tasks' order."""
    which: list[int]
    """For each candidate the number of its task."""
    arm: ArmPlan
    """What these rows are made from."""

    def only(self, wanted: "pl.Series") -> "Batch":
        """The batch without the candidates for which `wanted` is false."""
        which = [number for number, is_wanted in zip(self.which, wanted, strict=True) if is_wanted]
        return Batch(self.kept.filter(wanted), self.tasks, self.prompts, which, self.arm)


def batches(kept: "pl.DataFrame", *, arm: ArmPlan, tasks: Mapping[str, Task]) -> Iterator[Batch]:
    """The kept candidates in their order, `BATCH` at a time, their prompts rendered; no batch has rows of two parts."""
    if arm.others:
        for number, plan in enumerate((replace(arm, others=()), *arm.others)):
            yield from batches(kept.filter(kept["part"] == number), arm=plan, tasks=tasks)
        return
    for part in kept.iter_slices(BATCH):
        numbers: dict[str, int] = {}
        which = [numbers.setdefault(task_id, len(numbers)) for task_id in part["task_id"].to_list()]
        own = [tasks[task_id] for task_id in numbers]
        prompts = [render(task, arm.training_context, name=arm.training, how=arm.how) for task in own]
        yield Batch(part, own, prompts, which, arm)


def training_table(batch: Batch, *, arm: ArmPlan, fingerprint: str) -> "pa.Table":
    """The rows of a batch, with the columns of `tables.TRAINING_ROWS`."""
    import polars as pl
    import pyarrow as pa

    constant = {
        "arm": arm.name,
        "generation_context": arm.generation,
        "training_context": arm.training,
        "recipe_fingerprint": fingerprint,
    }
    frame = batch.kept
    if "n" not in frame.columns:
        frame = frame.with_columns(n=pl.lit(arm.n, dtype=pl.Int64))
    frame = frame.with_columns(n=pl.col("n").fill_null(arm.n))  # mixed data has an n of its own
    if "judgements" not in frame.columns:
        frame = frame.with_columns(judgements=pl.lit(None, dtype=_judgement_type()))
    frame = frame.with_columns(judgements=pl.col("judgements").fill_null([]))
    found = frame.select(*COLUMNS, **{name: pl.lit(value) for name, value in constant.items()}).to_arrow()
    schema = arrow_schema(TRAINING_ROWS)
    columns = {name: found.column(name) for name in found.column_names}
    columns["prompt"] = _conversations(batch.prompts).take(pa.array(batch.which, type=pa.int32()))
    columns["completion"] = _answers(found.column("completion"))
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _judgement_type() -> "pl.DataType":
    import polars as pl

    names = {"judge": pl.String, "label": pl.String, "score": pl.Float64, "unscored_reason": pl.String, "raw": pl.String}
    return pl.List(pl.Struct(names))


def _conversations(prompts: list[list[Message]]) -> "pa.Array":
    import pyarrow as pa

    ends = [0]
    for prompt in prompts:
        ends.append(ends[-1] + len(prompt))
    roles = pa.array([turn["role"] for prompt in prompts for turn in prompt], type=pa.string())
    contents = pa.array([turn["content"] for prompt in prompts for turn in prompt], type=pa.string())
    turns = pa.StructArray.from_arrays([roles, contents], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(ends, type=pa.int32()), turns)


def _answers(completions: "pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    contents = completions.cast(pa.string()).combine_chunks()
    roles = pa.repeat("assistant", len(contents))
    turns = pa.StructArray.from_arrays([roles, contents], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(range(len(contents) + 1), type=pa.int32()), turns)
