"""Stage export: training rows in, one Arrow dataset per arm out, after the gates have seen every row."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.errors import BuildStopped, GateFailed
from recontext_data.gates import Violation
from recontext_data.ledger import Entry, entry
from recontext_data.recipe import Export
from recontext_data.records import Task, uniform
from recontext_data.stages.gating import ArmGates
from recontext_data.stages.recontextualize import ArmPlan, batches, training_table
from recontext_data.store.arrow_dataset import SplitWriter, write_dataset_dict
from recontext_data.tables import TRAINING_ROWS, arrow_schema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SHOWN_VIOLATIONS = 5
"""Row ids in the message of a failed gate."""

SHOWN_ROWS = 4
"""Rows of an arm in the report, each of another task; shared by its parts."""


@dataclass(frozen=True)
class Exported:
    """One arm on disk."""

    rows: dict[str, int]
    """Rows per split."""
    entry: Entry
    gates: list[dict[str, Any]]
    first_rows: list[dict[str, Any]]
    violations: list[Violation] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """Rows of each part of the arm (`ArmPlan.others`), its first included."""


@dataclass(frozen=True)
class Terms:
    """What holds for every arm of a run."""

    config: Export
    fingerprint: str


def in_validation(task_id: str, config: Export) -> bool:
    """Whether a task belongs to the validation split: a property of the task, the same in every arm and every build."""
    return uniform("validation", config.seed, task_id) < config.validation_fraction


def export(
    kept: "pl.DataFrame", folder: Path, *, arm: ArmPlan, tasks: Mapping[str, Task], gates: ArmGates, terms: Terms
) -> Exported:
    """Writes the dataset of one arm into `folder`, split by task, batch by batch.

    Raises:
        GateFailed: rows carry what they must not; nothing of the arm stays.
        BuildStopped: no row is left to train on.
    """
    held = {task_id for task_id in kept["task_id"].unique() if in_validation(task_id, terms.config)}
    splits = ["train", "validation"] if terms.config.validation_fraction else ["train"]
    gates.prepare(kept, tasks, validation=sorted(held))
    schema = arrow_schema(TRAINING_ROWS)
    plans = {(plan.generation, plan.training): number for number, plan in enumerate((arm, *arm.others))}
    parts = [0] * len(plans)
    first_rows: list[list[dict[str, Any]]] = [[] for _ in plans]
    drops: list[str] = []
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(SplitWriter(folder / name, schema=schema)) for name in splits}
        for batch in batches(kept, arm=arm, tasks=tasks):
            dropped = gates.look(batch)
            drops += dropped.values()
            if dropped:
                batch = batch.only(~batch.kept["candidate_id"].is_in(list(dropped)))
            table = training_table(batch, arm=batch.arm, fingerprint=terms.fingerprint)
            is_held = batch.kept["task_id"].is_in(held)
            for name, writer in writers.items():
                writer.write_table(table.filter((is_held if name == "validation" else ~is_held).to_arrow()))
            part = plans[batch.arm.generation, batch.arm.training]
            parts[part] += len(table)
            first_rows[part] = _first_of_each_task(first_rows[part], table, limit=max(1, SHOWN_ROWS // len(plans)))
    _raise_if_failed(gates, arm)
    write_dataset_dict(folder, splits)
    counts = {name: writer.num_rows for name, writer in writers.items()}
    if not counts["train"]:
        raise BuildStopped(
            f"arms: {arm.name} has no training row left of {gates.rows}; raise environment.tasks or relax select"
        )
    done = entry("export", arm.name, rows_in=gates.rows, kept=sum(counts.values()), drops=drops)
    return Exported(counts, done, gates.summary(), [row for shown in first_rows for row in shown], gates.found, parts)


def _first_of_each_task(shown: list[dict[str, Any]], table: "pa.Table", *, limit: int) -> list[dict[str, Any]]:
    if len(shown) == limit:
        return shown
    for row, task_id in enumerate(table.column("task_id").to_pylist()):
        if len(shown) == limit:
            break
        if all(task_id != other["task_id"] for other in shown):
            shown = [*shown, *table.slice(row, 1).to_pylist()]
    return shown


def _raise_if_failed(gates: ArmGates, arm: ArmPlan) -> None:
    failing = gates.failing
    if not failing:
        return
    shown = "; ".join(f"{v.row_id}: {v.gate}, {v.where}" for v in failing[:SHOWN_VIOLATIONS])
    # Each gate keeps only so many of its rows, and counts all.
    rows = max(len({v.row_id for v in failing}), *(gates.counts[v.gate] for v in failing))
    raise GateFailed(
        f"arms: {arm.name}: {rows} of {gates.rows} rows fail a gate and no dataset was written; first: {shown}; "
        "find them in candidates.parquet by candidate_id, then change the context's text, "
        f"or leave such rows out with gates.{failing[0].gate}=drop"
    )
