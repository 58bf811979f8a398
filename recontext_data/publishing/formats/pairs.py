"""Preference pairs of an arm: a kept answer against a dropped one of the same task, both under the training prompt.

A dropped answer is rejected only where the judge scored it below the kept one: a tie is no preference, and an answer without
a score has not been found worse. Arms that kept everything, or kept at random, have nothing to prefer, and where reasoning was
dropped or rewritten in the kept answers the two sides would differ by that too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import DataError
from recontext_data.core.records import Message, uniform

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.publishing.runs import FinishedRun


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt, the answer that was kept and one that was not."""

    row_id: str
    """`<kept candidate_id>+<dropped candidate_id>`"""
    prompt: list[Message]
    chosen: str
    rejected: str

    def as_row(self) -> dict[str, Any]:
        """As the formats read it."""
        return {
            "candidate_id": self.row_id,
            "prompt": self.prompt,
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
        }


def pairs(run: "FinishedRun", arm: str, split: str) -> Iterator[Pair]:
    """One pair for each training row whose task has a dropped answer with a lower score, drawn by a hash of both ids.

    The dropped answers of the arm's pool are held in memory; the rows stream.

    Raises:
        DataError: the run's selection has nothing to prefer, or a table is missing.
    """
    dropped = _dropped(run, arm)
    for row in run.rows(arm, split):
        worse = [
            (candidate_id, text)
            for candidate_id, text, score in dropped.get(row["task_id"], ())
            if row["score"] is not None and score < row["score"] and text != row["completion"][0]["content"]
        ]
        if worse:
            kept = row["candidate_id"]
            candidate_id, text = min(worse, key=lambda one: uniform("pair", kept, one[0]))
            yield Pair(f"{kept}+{candidate_id}", row["prompt"], row["completion"][0]["content"], text)


def _dropped(run: "FinishedRun", arm: str) -> dict[str, list[tuple[str, str, float]]]:
    """Task -> (candidate, text, score) of what was dropped in this arm and has a score."""
    import polars as pl

    _require_preference(run.manifest["recipe"])
    select = run.manifest["recipe"]["select"]
    tables = {name: run.path / f"{name}.parquet" for name in ("candidates", "judgements", "selection")}
    for path in tables.values():
        if not path.exists():
            raise DataError(f"{path}: is missing, and preferences are made of it; build the run again")
    scores = pl.scan_parquet(tables["judgements"])
    if select.get("judge"):
        scores = scores.filter(pl.col("judge") == select["judge"])
    found = (
        pl.scan_parquet(tables["selection"])
        .filter((pl.col("arm") == arm) & ~pl.col("kept"))
        .join(pl.scan_parquet(tables["candidates"]).select("candidate_id", "task_id", "completion"), on="candidate_id")
        .join(scores.select("candidate_id", "score").drop_nulls(), on="candidate_id")
        .select("task_id", "candidate_id", "completion", "score")
        .collect()
    )
    return _by_task(found)


def _require_preference(recipe: Mapping[str, Any]) -> None:
    """Raises DataError where what was kept is not better than what was dropped, or not of the same kind."""
    select, reasoning = recipe["select"], recipe.get("completion", {}).get("reasoning", "keep")
    if select["keep"] != "best" and select.get("min_score") is None:
        raise DataError(
            f"select.keep={select['keep']}: nothing was dropped for being worse, so there is no preference in this run; "
            "build it with select.keep=best and a judge that scores"
        )
    if reasoning != "keep":
        raise DataError(
            f"completion.reasoning={reasoning}: the kept answers were changed and the dropped ones were not, so they would "
            "differ in more than what was preferred; build with completion.reasoning=keep"
        )


def _by_task(found: "pl.DataFrame") -> dict[str, list[tuple[str, str, float]]]:
    tasks: dict[str, list[tuple[str, str, float]]] = {}
    for task_id, candidate_id, text, score in found.iter_rows():
        tasks.setdefault(task_id, []).append((candidate_id, text, score))
    return tasks
