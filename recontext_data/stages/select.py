"""Stage select: an arm's pool in, the pool with kept or dropped and the reason out."""

from typing import TYPE_CHECKING

from recontext_data.ledger import Entry, entry
from recontext_data.recipe import Select
from recontext_data.records import uniform

if TYPE_CHECKING:
    import polars as pl


def select(pool: "pl.DataFrame", *, config: Select, arm: str) -> "tuple[pl.DataFrame, Entry]":
    """Decides on each candidate of one pool: columns arm, candidate_id, kept, reason, in the pool's order.

    `pool` has candidate_id, task_id, k, finish_reason, score (the selecting judge's, null where it gave none) and, for each
    judge NAME in `config.labels`, `NAME.label`.
    """
    import polars as pl

    reasons = _unwanted(pool, config)
    by_task: dict[str, list[tuple[str, int, float | None]]] = {}
    for candidate_id, task_id, k, finish, score in pool.select(
        "candidate_id", "task_id", "k", "finish_reason", "score"
    ).iter_rows():
        if candidate_id in reasons:
            continue
        if config.drop_truncated and finish == "length":
            reasons[candidate_id] = (False, "truncated")
        elif config.keep == "all":
            reasons[candidate_id] = (True, "all are kept")
        elif config.keep == "best" and score is None:
            reasons[candidate_id] = (False, "no score")
        else:
            by_task.setdefault(task_id, []).append((candidate_id, k, score))
    for task_id, group in by_task.items():
        reasons.update(_of_one_task(task_id, group, config))
    rows = [(arm, candidate_id, *reasons[candidate_id]) for candidate_id in pool["candidate_id"]]
    table = pl.DataFrame(
        rows, schema={"arm": pl.String, "candidate_id": pl.String, "kept": pl.Boolean, "reason": pl.String}, orient="row"
    )
    drops = [reason for kept, reason in reasons.values() if not kept]
    return table, entry("select", arm, rows_in=len(pool), kept=len(pool) - len(drops), drops=drops)


def _unwanted(pool: "pl.DataFrame", config: Select) -> dict[str, tuple[bool, str]]:
    """Candidates without a label that they must have, with what they have in its place."""
    reasons: dict[str, tuple[bool, str]] = {}
    for judge, labels in config.labels.items():
        for candidate_id, label in pool.select("candidate_id", f"{judge}.label").iter_rows():
            if label not in labels:
                reasons.setdefault(candidate_id, (False, f"{judge}: {'no label' if label is None else label}"))
    return reasons


def _of_one_task(task_id: str, group: list[tuple[str, int, float | None]], config: Select) -> dict[str, tuple[bool, str]]:
    """`random` and `best` within one task. Ties, and `random` itself, go by a hash of what is drawn, never by order."""

    def place(row: tuple[str, int, float | None]) -> tuple[float, float]:
        _, k, score = row
        draw = uniform("select", config.seed, task_id, k)
        return (-score if config.keep == "best" and score is not None else 0.0, draw)

    ordered = sorted(group, key=place)
    kept = {
        candidate_id: (True, f"{config.keep} {rank} of {len(group)}")
        for rank, (candidate_id, _, _) in enumerate(ordered[: config.per_task], 1)
    }
    dropped = {
        candidate_id: (False, f"not among the {config.keep} {config.per_task}")
        for candidate_id, _, _ in ordered[config.per_task :]
    }
    return kept | dropped
