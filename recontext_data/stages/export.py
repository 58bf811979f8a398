"""Stage export: training rows in, one Arrow dataset per arm out, after the gates have seen every row."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recontext_data.errors import BuildStopped, GateFailed
from recontext_data.gates import Violation, leak, presence
from recontext_data.ledger import Entry, entry
from recontext_data.recipe import Export
from recontext_data.records import Task, uniform
from recontext_data.stages.recontextualize import ArmPlan, gate_rows
from recontext_data.store.arrow_dataset import SplitWriter, write_dataset_dict
from recontext_data.tables import TRAINING_ROWS, arrow_schema

SHOWN_VIOLATIONS = 5
"""Row ids in the message of a failed gate."""

SHOWN_ROWS = 4
"""Rows of an arm in the report, each of another task."""


@dataclass(frozen=True)
class Exported:
    """One arm on disk."""

    rows: dict[str, int]
    """Rows per split."""
    entry: Entry
    gates: list[dict[str, Any]]
    first_rows: list[dict[str, Any]]


def in_validation(task_id: str, config: Export) -> bool:
    """Whether a task belongs to the validation split: a property of the task, the same in every arm and every build."""
    return uniform("validation", config.seed, task_id) < config.validation_fraction


def export(
    batches: Iterable[list[dict[str, Any]]], folder: Path, *, arm: ArmPlan, tasks: Mapping[str, Task], config: Export
) -> Exported:
    """Writes the dataset of one arm into `folder`, split by task.

    Raises:
        GateFailed: rows carry what they must not; nothing of the arm stays.
        BuildStopped: no row is left to train on.
    """
    splits = ["train", "validation"] if config.validation_fraction else ["train"]
    schema = arrow_schema(TRAINING_ROWS)
    violations: list[Violation] = []
    first_rows: list[dict[str, Any]] = []
    total = 0
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(SplitWriter(folder / name, schema=schema)) for name in splits}
        for rows in batches:
            violations += gate(rows, arm=arm, tasks=tasks)
            for name, writer in writers.items():
                writer.write([row for row in rows if in_validation(row["task_id"], config) == (name == "validation")])
            first_rows = _first_of_each_task(first_rows, rows)
            total += len(rows)
    _raise_if_failed(violations, arm, total)
    write_dataset_dict(folder, splits)
    counts = {name: writer.num_rows for name, writer in writers.items()}
    if not counts["train"]:
        raise BuildStopped(f"arms: {arm.name} has no training row left of {total}; raise environment.tasks or relax select")
    checked = [{"gate": name, "scope": arm.name, "rows": total, "violations": 0} for name in ("leak", "presence")]
    return Exported(counts, entry("export", arm.name, rows_in=total, kept=sum(counts.values())), checked, first_rows)


def _first_of_each_task(shown: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        if len(shown) == SHOWN_ROWS:
            break
        if all(row["task_id"] != other["task_id"] for other in shown):
            shown = [*shown, row]
    return shown


def gate(rows: list[dict[str, Any]], *, arm: ArmPlan, tasks: Mapping[str, Task]) -> list[Violation]:
    """Every violation of every gate in these rows."""
    seen = gate_rows(rows, tasks)
    return [
        *leak(seen, generation=arm.generation_context, training=arm.training_context),
        *presence(seen, training=arm.training_context, how=arm.how),
    ]


def _raise_if_failed(violations: list[Violation], arm: ArmPlan, total: int) -> None:
    if not violations:
        return
    shown = "; ".join(f"{v.row_id}: {v.gate}, {v.where}" for v in violations[:SHOWN_VIOLATIONS])
    rows = len({violation.row_id for violation in violations})
    raise GateFailed(
        f"arms: {arm.name}: {rows} of {total} rows fail a gate and no dataset was written; first: {shown}; "
        "find them in candidates.parquet by candidate_id, then change the context's text or drop those candidates"
    )
