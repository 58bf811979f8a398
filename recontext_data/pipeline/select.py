"""Stage select: an arm's pool in, the pool with kept or dropped and the reason out. The rules are `selection.query`."""

import tempfile
from typing import TYPE_CHECKING, Any

from recontext_data.config.selection import Select, query
from recontext_data.core.row_ledger import LedgerEntry, entry

if TYPE_CHECKING:
    import polars as pl

MEMORY = "1GB"
"""What the query may hold; beyond it DuckDB goes on in temporary files."""


def select(pool: "pl.DataFrame", *, config: Select, arm: str) -> "tuple[pl.DataFrame, LedgerEntry]":
    """Decides on each candidate of one pool: columns arm, candidate_id, kept, reason, in the pool's order.

    `pool` has candidate_id, task_id, k, finish_reason, score (the selecting judge's, null where it gave none) and
    `NAME.label` for every judge that `require` and `veto` name.
    """
    import duckdb
    import polars as pl

    columns = ["candidate_id", "task_id", "k", "finish_reason", "score", *(f"{name}.label" for name in config.label_judges)]
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(config=limits(spill)) as connection:
        connection.register("pool", pool.select(columns).to_arrow())
        decided = connection.sql(query(config, source="pool")).pl()
    table = pool.select(pl.lit(arm).alias("arm"), "candidate_id").join(
        decided, on="candidate_id", how="left", maintain_order="left", validate="1:1"
    )
    drops = table.filter(~pl.col("kept"))["reason"].to_list()
    return table, entry("select", arm, rows_in=len(pool), kept=len(pool) - len(drops), drops=drops)


def limits(spill: str) -> dict[str, Any]:
    """DuckDB's settings for a selection of any size; what does not fit in memory goes to the folder `spill`."""
    return {"memory_limit": MEMORY, "temp_directory": spill}


def with_outcome(pool: "pl.DataFrame", judged: "pl.DataFrame", *, judge: str) -> "pl.DataFrame":
    """The pool with this judge's word as `label`, whoever gave the score."""
    return with_labels(pool, judged, judges=[judge]).drop("label").rename({f"{judge}.label": "label"})


def with_labels(pool: "pl.DataFrame", judged: "pl.DataFrame", *, judges: list[str]) -> "pl.DataFrame":
    """The pool with a column `NAME.label` for each of these judges; `judged` has a row per candidate and judge."""
    import polars as pl

    for name in judges:
        words = judged.filter(pl.col("judge") == name).select("candidate_id", pl.col("label").alias(f"{name}.label"))
        pool = pool.join(words, on="candidate_id", how="left", maintain_order="left", validate="1:1")
    return pool
