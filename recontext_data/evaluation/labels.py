"""Labels that people gave: a Parquet or JSON Lines file, one row per answer and reviewer.

    candidate_id, label, reviewer                    answers of a run that is built
    prompt, completion, label, reviewer              any answers; also reasoning, and payload (JSON) where a rubric uses it
    ... score in place of label                      where people graded

Several reviewers of one answer count as one: their most frequent label, their mean score. A tie between labels is no label, and
the answer is left out and counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import DataError
from recontext_data.core.records import Task, content_hash
from recontext_data.store.files import file_digest

if TYPE_CHECKING:
    import polars as pl

CONTEXT = "labels"
"""Stands for the generation context of answers that are in no run."""


@dataclass(frozen=True)
class Labelled:
    """Labelled answers as the judge stage takes them, and what people said of each."""

    candidates: "pl.DataFrame"
    """candidate_id, task_id, generation_context, reply_key, completion, reasoning."""
    tasks: dict[str, Task]
    truth: dict[str, str | float]
    """By candidate_id: a label, or a score."""
    facts: dict[str, Any] = field(default_factory=dict)
    """About the file: its name, hash, rows, reviewers, answers that reviewers disagreed on and that were left out."""

    @property
    def is_graded(self) -> bool:
        """Whether people gave scores."""
        return all(isinstance(value, float) for value in self.truth.values())


def read_labels(path: Path, *, run: Path | None) -> Labelled:
    """The labels in a file; `run` is the folder of the built run that candidate_ids are looked up in.

    Raises:
        DataError: the file cannot be read, lacks columns, or is about answers that are not there.
    """
    rows = _rows(path)
    named = "candidate_id" in rows.columns
    if not named and not {"prompt", "completion"} <= set(rows.columns):
        raise DataError(f"{path.name}: has neither candidate_id nor prompt and completion; columns: {', '.join(rows.columns)}")
    if ("label" in rows.columns) == ("score" in rows.columns):
        raise DataError(f"{path.name}: give exactly one of the columns label and score; columns: {', '.join(rows.columns)}")
    if named:
        candidates, tasks = _of_run(rows, path, run)
        ids = rows["candidate_id"].to_list()
    else:
        candidates, tasks, ids = _free(rows, path)
    truth, facts = _truth(rows, ids, path)
    kept = candidates.filter([candidate_id in truth for candidate_id in candidates["candidate_id"]])
    if kept.is_empty():
        raise DataError(f"{path.name}: no answer in it has a label; fill the column label or score")
    return Labelled(kept, tasks, truth, {"file": path.name, "sha256": file_digest(path), **facts})


def _rows(path: Path) -> "pl.DataFrame":
    import polars as pl

    if not path.is_file():
        raise DataError(f"labels={path}: there is no such file")
    try:
        rows = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path.name}: cannot be read as {path.suffix or 'JSON Lines'}: {str(error).splitlines()[0]}") from None
    if rows.is_empty():
        raise DataError(f"{path.name}: has no rows")
    return rows


def _of_run(rows: "pl.DataFrame", path: Path, run: Path | None) -> "tuple[pl.DataFrame, dict[str, Task]]":
    import orjson
    import polars as pl

    if run is None or not (run / "candidates.parquet").is_file():
        raise DataError(
            f"{path.name}: names candidates, and {'no recipe is given' if run is None else f'{run} is not built'}; "
            "build the recipe first, or give prompt and completion"
        )
    wanted = rows["candidate_id"].cast(pl.String).unique(maintain_order=True)
    columns = ["candidate_id", "task_id", "generation_context", "reply_key", "completion", "reasoning"]
    found = pl.read_parquet(run / "candidates.parquet", columns=columns)
    lost = wanted.filter(~wanted.is_in(found["candidate_id"].implode()))
    if len(lost):
        raise DataError(f"{path.name}: candidate_id {lost[0]!r} (and {len(lost) - 1} more) is not in the run {run}")
    tasks = {
        row["task_id"]: Task(
            task_id=row["task_id"], messages=row["messages"], payload=orjson.loads(row["payload"]), split=row["split"]
        )
        for row in pl.read_parquet(run / "tasks.parquet").iter_rows(named=True)
    }
    return found.filter(found["candidate_id"].is_in(wanted.implode())), tasks


def _free(rows: "pl.DataFrame", path: Path) -> "tuple[pl.DataFrame, dict[str, Task], list[str]]":
    import polars as pl

    tasks: dict[str, Task] = {}
    ids: list[str] = []
    table: dict[str, tuple[str | None, ...]] = {}
    for index, row in enumerate(rows.iter_rows(named=True)):
        if not isinstance(row["prompt"], str) or not isinstance(row["completion"], str):
            raise DataError(f"{path.name}: row {index}: prompt and completion must be texts")
        payload = _payload(row.get("payload"), f"{path.name}: row {index}")
        task_id = content_hash([row["prompt"], payload])[:24]
        reasoning = row.get("reasoning")
        candidate_id = content_hash([task_id, row["completion"], reasoning])[:24]
        turns: Any = [{"role": "user", "content": row["prompt"]}]
        tasks[task_id] = Task(task_id=task_id, messages=turns, payload=payload, split=CONTEXT)
        table[candidate_id] = (candidate_id, task_id, CONTEXT, candidate_id, row["completion"], reasoning)
        ids.append(candidate_id)
    schema = ["candidate_id", "task_id", "generation_context", "reply_key", "completion", "reasoning"]
    frame = pl.DataFrame(list(table.values()), schema=dict.fromkeys(schema, pl.String), orient="row")
    return frame, tasks, ids


def _payload(value: Any, where: str) -> dict[str, Any]:
    import orjson

    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise DataError(f"{where}: payload is not JSON") from None
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{where}: payload must be a mapping")
    return {key: inner for key, inner in (value or {}).items() if inner is not None}


def _truth(rows: "pl.DataFrame", ids: Sequence[str], path: Path) -> tuple[dict[str, str | float], dict[str, Any]]:
    """What people said of each answer, several reviewers taken together."""
    column = "label" if "label" in rows.columns else "score"
    said: dict[str, list[str | float]] = {}
    for index, (candidate_id, value) in enumerate(zip(ids, rows[column].to_list(), strict=True)):
        if value is not None:
            said.setdefault(candidate_id, []).append(_one(value, column, f"{path.name}: row {index}"))
    truth = {candidate_id: _together(values) for candidate_id, values in said.items()}
    ties = sum(value is None for value in truth.values())
    facts = {
        "rows": len(rows),
        "reviewers": sorted({str(name) for name in rows["reviewer"].drop_nulls()}) if "reviewer" in rows.columns else [],
        "disagreements": sum(len(set(values)) > 1 for values in said.values()),
        "left_out": {"no label": len(set(ids)) - len(said), "reviewers tie": ties},
    }
    return {candidate_id: value for candidate_id, value in truth.items() if value is not None}, facts


def _one(value: Any, column: str, where: str) -> str | float:
    if column == "label":
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise DataError(f"{where}: score {value!r} is not a finite number")
    return float(value)


def _together(values: Sequence[str | float]) -> str | float | None:
    if isinstance(values[0], float):
        return sum(float(value) for value in values) / len(values)
    ranked = Counter(values).most_common(2)
    return None if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]
