"""Stage recontextualize: kept candidates in, training rows out, each under its arm's training context."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.contexts import Context, render
from recontext_data.gates import Row
from recontext_data.placing import PLAIN, How
from recontext_data.records import Task

if TYPE_CHECKING:
    import polars as pl

BATCH = 2048
"""Rows built at once; bounds memory."""


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


def training_rows(
    kept: "pl.DataFrame",
    *,
    arm: ArmPlan,
    tasks: Mapping[str, Task],
    judgements: Mapping[str, list[dict[str, Any]]],
    fingerprint: str,
) -> Iterator[list[dict[str, Any]]]:
    """Batches of training rows, with the columns of `tables.TRAINING_ROWS`, in the order of the kept candidates."""
    import polars as pl

    if "n" not in kept.columns:
        kept = kept.with_columns(n=pl.lit(arm.n, dtype=pl.Int64))
    columns = ["candidate_id", "task_id", "k", "n", "completion", "score", "finish_reason", "model", "seed"]
    for part in kept.select(columns).iter_slices(BATCH):
        yield [
            {
                "prompt": render(tasks[row["task_id"]], arm.training_context, name=arm.training, how=arm.how),
                "completion": [{"role": "assistant", "content": row["completion"]}],
                "task_id": row["task_id"],
                "candidate_id": row["candidate_id"],
                "arm": arm.name,
                "generation_context": arm.generation,
                "training_context": arm.training,
                "k": row["k"],
                "n": row["n"],
                "score": row["score"],
                "judgements": judgements.get(row["candidate_id"], []),
                "finish_reason": row["finish_reason"],
                "model": row["model"],
                "seed": row["seed"],
                "recipe_fingerprint": fingerprint,
            }
            for row in part.iter_rows(named=True)
        ]


def gate_rows(rows: list[dict[str, Any]], tasks: Mapping[str, Task]) -> list[Row]:
    """The rows as the gates see them."""
    return [
        Row(
            row_id=row["candidate_id"],
            task=tasks[row["task_id"]],
            prompt=row["prompt"],
            completion=row["completion"][0]["content"],
        )
        for row in rows
    ]
