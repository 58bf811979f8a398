"""Stage export: training rows in, one Arrow dataset per arm out, after the gates have seen every row."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from recontext_data.config.recipe import Export
from recontext_data.core.errors import BuildStopped, GateFailed
from recontext_data.core.records import Task, uniform
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.core.tables import TRAINING_ROWS, arrow_schema
from recontext_data.gates.rules import Violation
from recontext_data.pipeline.arm_gates import TOKENS, ArmGates
from recontext_data.pipeline.prefilter import in_order
from recontext_data.pipeline.recontextualize import ArmPlan, Batch, batches, by_task, training_table
from recontext_data.pipeline.selected_rows import COLUMNS, SelectedRows
from recontext_data.store.arrow_dataset import SplitWriter, write_dataset_dict

SHOWN_VIOLATIONS = 5
"""Row ids in the message of a failed gate."""

SHOWN_ROWS = 4
"""Rows of an arm in the report, each of another task; shared by its parts."""


@dataclass(frozen=True)
class Exported:
    """One arm on disk."""

    rows: dict[str, int]
    """Rows per split."""
    entry: LedgerEntry
    gates: list[dict[str, Any]]
    first_rows: list[dict[str, Any]]
    violations: list[Violation] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """Rows of each part of the arm (`ArmPlan.others`), its first included."""


@dataclass(frozen=True)
class ExportSettings:
    """What holds for every arm of a run."""

    config: Export
    fingerprint: str


def in_validation(task_id: str, config: Export) -> bool:
    """Whether a task belongs to the validation split: a property of the task, the same in every arm and every build."""
    return uniform("validation", config.seed, task_id) < config.validation_fraction


def export(
    kept: SelectedRows, folder: Path, *, arm: ArmPlan, tasks: Mapping[str, Task], gates: ArmGates, terms: ExportSettings
) -> Exported:
    """Writes the dataset of one arm into `folder`, split by task, batch by batch.

    Raises:
        GateFailed: rows carry what they must not; nothing of the arm stays.
        BuildStopped: no row is left to train on.
    """
    held = _held(kept, arm, terms.config)
    splits = ["train", "validation"] if terms.config.validation_fraction else ["train"]
    gates.prepare(kept, tasks, validation=held)
    schema = arrow_schema(TRAINING_ROWS)
    plans = {(plan.generation, plan.training): number for number, plan in enumerate(arm.parts)}
    parts = [0] * len(plans)
    first_rows: list[list[dict[str, Any]]] = [[] for _ in plans]
    drops: list[str] = []
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(SplitWriter(folder / name, schema=schema)) for name in splits}
        for batch in batches(kept, arm=arm, tasks=tasks, columns=(*COLUMNS, TOKENS)):
            batch, reasons = _passing(batch, gates)
            drops += reasons
            for name, rows in _by_split(batch, held, splits):
                writers[name].write_table(training_table(rows, arm=rows.arm, fingerprint=terms.fingerprint))
            part = plans[batch.arm.generation, batch.arm.training]
            parts[part] += len(batch)
            limit = max(1, SHOWN_ROWS // len(plans))
            first_rows[part] += _first_of_each_task(first_rows[part], batch, limit=limit, fingerprint=terms.fingerprint)
    _raise_if_failed(gates, arm)
    write_dataset_dict(folder, splits)
    counts = {name: writer.num_rows for name, writer in writers.items()}
    if not counts["train"]:
        raise BuildStopped(
            f"arms: {arm.name} has no training row left of {gates.rows}; raise environment.tasks or relax select"
        )
    done = entry("export", arm.name, rows_in=gates.rows, kept=sum(counts.values()), drops=drops)
    return Exported(counts, done, gates.summary(), [row for shown in first_rows for row in shown], gates.found, parts)


def _held(kept: SelectedRows, arm: ArmPlan, config: Export) -> frozenset[str]:
    """The tasks of the validation split."""
    if not config.validation_fraction:
        return frozenset()
    ids = chain.from_iterable(by_task(rows)[0] for rows in in_order(kept, len(arm.parts), "task_id"))
    return frozenset(task_id for task_id in ids if in_validation(task_id, config))


def _passing(batch: Batch, gates: ArmGates) -> tuple[Batch, list[str]]:
    """The batch without the rows that are to be left out, and why they are."""
    import numpy as np

    dropped = gates.look(batch)
    if not dropped:
        return batch, []
    stays = np.array([row_id not in dropped for row_id in batch.column("candidate_id").to_list()], dtype=bool)
    return batch.only(stays), list(dropped.values())


def _by_split(batch: Batch, held: frozenset[str], splits: list[str]) -> Iterator[tuple[str, Batch]]:
    import numpy as np

    is_held = np.array([task.task_id in held for task in batch.tasks], dtype=bool)[batch.which]
    for name in splits:
        rows = batch.only(is_held if name == "validation" else ~is_held)
        if len(rows):
            yield name, rows


def _first_of_each_task(shown: list[dict[str, Any]], batch: Batch, *, limit: int, fingerprint: str) -> list[dict[str, Any]]:
    """More rows to show: the first of each task of which none is shown yet, up to the limit."""
    import numpy as np

    if len(shown) == limit:
        return []
    known = {row["task_id"] for row in shown}
    heads = np.sort(np.unique(batch.which, return_index=True)[1])  # the first row of each task
    new = [row for row in heads.tolist() if batch.tasks[batch.which[row]].task_id not in known]
    marks = np.zeros(len(batch), dtype=bool)
    marks[new[: limit - len(shown)]] = True
    return training_table(batch.only(marks), arm=batch.arm, fingerprint=fingerprint).to_pylist() if marks.any() else []


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
