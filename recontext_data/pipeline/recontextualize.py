"""Stage recontextualize: kept candidates in, training rows out, each under its arm's training context.

A prompt is rendered once however many answers a task has, and rows are made column by column: no Python object per row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recontext_data.contexts.context import Context
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.records import Task
from recontext_data.core.tables import TRAINING_ROWS, arrow_schema
from recontext_data.pipeline.rendering import FlatConversations, Renderer
from recontext_data.pipeline.selected_rows import COLUMNS, SelectedRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray


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
    how: RenderOptions = PLAIN
    others: tuple["ArmPlan", ...] = ()
    """What rows of it are made from that are not made as its first are (`Arm.where`, `Arm.mix`): the arm itself is part 0 of
    what is kept, the first of these part 1; rows are written in that order."""

    @property
    def parts(self) -> tuple["ArmPlan", ...]:
        """Itself without others, then the others."""
        return (replace(self, others=()), *self.others)


@dataclass(frozen=True)
class Batch:
    """Some kept candidates with the prompts that they will be trained under."""

    rows: "pa.Table"
    """The candidates, with the columns of `kept.COLUMNS`."""
    tasks: Sequence[Task]
    """The tasks of these candidates, each once."""
    prompts: FlatConversations
    """The tasks' prompts under the training context, in the tasks' order."""
    which: "NDArray[np.int64]"
    """For each candidate the number of its task."""
    arm: ArmPlan
    """What these rows are made from."""

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> "pl.Series":
        """A column of the candidates."""
        import polars as pl

        found = pl.from_arrow(self.rows.column(name))
        assert isinstance(found, pl.Series)
        return found

    def only(self, wanted: "NDArray[np.bool_]") -> "Batch":
        """The batch without the candidates for which `wanted` is false."""
        import pyarrow as pa

        if wanted.all():
            return self
        return replace(self, rows=self.rows.filter(pa.array(wanted)), which=self.which[wanted])


def batches(
    kept: SelectedRows, *, arm: ArmPlan, tasks: Mapping[str, Task], columns: Sequence[str] = COLUMNS
) -> Iterator[Batch]:
    """The kept candidates in their order, `kept.BATCH` at a time, their prompts rendered; no batch has rows of two parts."""
    for number, plan in enumerate(arm.parts):
        renderer = Renderer(plan.training_context, name=plan.training, how=plan.how)
        for rows in kept.tables(number, columns):
            ids, which = by_task(rows)
            own = [tasks[task_id] for task_id in ids]
            yield Batch(rows, own, renderer.prompts(own), which, plan)


def by_task(rows: "pa.Table") -> "tuple[list[str], NDArray[np.int64]]":
    """The ids of the tasks of some candidates, and for each candidate the number of its task among them."""
    import polars as pl

    ids = pl.from_arrow(rows.column("task_id"))
    assert isinstance(ids, pl.Series)
    runs = ids.rle_id().cast(pl.Int64)  # answers of a task mostly stand together: only heads of runs become Python strings
    heads = ids.filter(runs.is_first_distinct()).to_list()
    numbers: dict[str, int] = {}
    of_run = pl.Series([numbers.setdefault(task_id, len(numbers)) for task_id in heads], dtype=pl.Int64)
    return list(numbers), of_run.gather(runs).to_numpy()


def training_table(batch: Batch, *, arm: ArmPlan, fingerprint: str) -> "pa.Table":
    """The rows of a batch, with the columns of `tables.TRAINING_ROWS`."""
    import pyarrow as pa

    constant = {
        "arm": arm.name,
        "generation_context": arm.generation,
        "training_context": arm.training,
        "recipe_fingerprint": fingerprint,
    }
    schema = arrow_schema(TRAINING_ROWS)
    columns = {name: batch.rows.column(name) for name in COLUMNS}
    columns |= {name: pa.repeat(value, len(batch)) for name, value in constant.items()}
    columns["prompt"] = _conversations(batch.prompts, batch.which)
    columns["completion"] = _answers(columns["completion"])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _conversations(prompts: FlatConversations, which: "NDArray[np.int64]") -> "pa.Array":
    """The prompt of each row: turns are taken from where they stand once, straight into their rows."""
    import numpy as np
    import pyarrow as pa

    lengths = np.asarray(prompts.lengths, dtype=np.int64)[which]
    ends = np.zeros(len(which) + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    # The turns of a row follow one another: its first turn's place, counted on from where the row begins.
    turn_of = np.repeat(prompts.starts[which] - ends[:-1], lengths) + np.arange(ends[-1])
    places = pa.array(turn_of)
    roles = pa.array(prompts.roles, type=pa.string()).take(places)
    contents = prompts.text.to_arrow().cast(pa.string()).take(places)
    turns = pa.StructArray.from_arrays([roles, contents], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(ends, type=pa.int32()), turns)


def _answers(completions: "pa.ChunkedArray") -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    contents = completions.combine_chunks()
    turns = pa.StructArray.from_arrays([pa.repeat("assistant", len(contents)), contents], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(len(contents) + 1), type=pa.int32()), turns)
