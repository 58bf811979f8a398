"""What judging and selecting did to a pool, counted from its tables: every judge's words by context, how far judges agree,
and how the selected rows differ from all. For the manifest, the report and the cards; decides nothing.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.judges.base import AnyJudge
from recontext_data.stats.agreement import agreement
from recontext_data.stats.student import quantile

if TYPE_CHECKING:
    import polars as pl

ANSWERS = 1 << 16
"""Completions that are looked through at once."""

REFUSES = r"(?i)^\W*(i'?m|i am) (sorry|unable|not able)|^\W*(sorry|i (can'?t|cannot|won'?t|will not))\b"
"""How a refusal begins, in English and roughly: a shift between all and selected is what it is for, not a rate to cite."""


def judge_facts(judged: "pl.DataFrame", judges: Sequence[AnyJudge]) -> list[dict[str, Any]]:
    """Each judge under each generation context. `judged`: candidates joined with judgements, a row per candidate and judge."""

    order = {judge.name: judge for judge in judges}
    facts = []
    for (name, context), part in judged.group_by("judge", "generation_context", maintain_order=True):
        judge = order[str(name)]
        counts = dict(part.drop_nulls("label").group_by("label").len().iter_rows())
        reasons = part.drop_nulls("unscored_reason").group_by("unscored_reason").len().sort("unscored_reason")
        facts.append(
            {
                "judge": name,
                "kind": judge.kind,
                "context": context,
                "role": part["role"][0],
                "total": len(part),
                "labels": {label: counts.pop(label, 0) for label in judge.labels} | counts,
                "unscored": dict(reasons.iter_rows()),
                "score": _mean(part.select("task_id", "score").drop_nulls("score").rename({"score": "value"})),
            }
        )
    places = list(order)
    return sorted(facts, key=lambda fact: places.index(fact["judge"])) if judged.height else facts


def _mean(values: "pl.DataFrame") -> dict[str, Any] | None:
    """Mean of `value` with a 95 % interval from the spread between tasks, since answers to one task are not independent;
    None of nothing, and no interval of one task."""
    import polars as pl

    if values.is_empty():
        return None
    mean = float(values.select(pl.col("value").mean()).item())
    tasks = values.group_by("task_id").agg((pl.col("value") - mean).sum().alias("excess"), pl.len())
    fact: dict[str, Any] = {"n": len(values), "tasks": len(tasks), "mean": mean, "low": None, "high": None}
    if len(tasks) > 1:
        count = len(tasks)
        # The ratio estimator's variance: sums of residuals by task (Cochran, Sampling Techniques, 3rd ed., section 6.3).
        squares = float(tasks.select((pl.col("excess") ** 2).sum()).item())
        half = quantile(0.95, count - 1) * (squares * count / (count - 1)) ** 0.5 / len(values)
        fact |= {"low": mean - half, "high": mean + half}
    return fact


def agreement_facts(judged: "pl.DataFrame", judges: Sequence[AnyJudge]) -> list[dict[str, Any]]:
    """How far each two judges with labels in common agree, over the candidates that both labelled."""
    import polars as pl

    facts = []
    for one, other in itertools.combinations([judge for judge in judges if judge.labels], 2):
        if not set(one.labels) & set(other.labels):
            continue
        mine, theirs = (
            judged.filter(pl.col("judge") == judge.name).select("candidate_id", "label").drop_nulls("label")
            for judge in (one, other)
        )
        both = mine.join(theirs, on="candidate_id", suffix="_other", how="inner")
        facts.append({"judges": [one.name, other.name], **agreement(both["label"].to_list(), both["label_other"].to_list())})
    return facts


def answer_facts(path: Path) -> "pl.DataFrame":
    """What `selection_facts` goes by of each completion in candidates.parquet, in its order; texts are held batch by batch."""
    import polars as pl
    import pyarrow.parquet as pq

    batches = pq.ParquetFile(path, buffer_size=1 << 20).iter_batches(ANSWERS, columns=["completion"])
    texts = (pl.Series(pl.from_arrow(batch.column("completion")), dtype=pl.String) for batch in batches)
    return pl.concat([described(pl.Series(dtype=pl.String)), *map(described, texts)])


def described(completions: "pl.Series") -> "pl.DataFrame":
    """Of each completion its words, whether it refuses, and a hash."""
    import polars as pl

    return completions.to_frame("text").select(
        words=pl.col("text").str.split(" ").list.len(),
        refuses=pl.col("text").str.contains(REFUSES),
        answer=pl.col("text").hash(seed=13),
    )


def selection_facts(pool: "pl.DataFrame", table: "pl.DataFrame", *, per_task: int) -> dict[str, Any]:
    """All of a pool beside what was selected of it. `pool` as in `pipeline.select`, with what `described` gives; `table` what
    it gave."""
    tagged = pool.join(table.select("candidate_id", "kept"), on="candidate_id", how="left", validate="1:1")
    return {
        "all": _describe(tagged),
        "selected": _describe(tagged.filter("kept")),
        "unscored_rate": _share(tagged["score"].is_null()),
        "tie_rate": _tie_rate(tagged, per_task),
    }


def _describe(rows: "pl.DataFrame") -> dict[str, Any]:
    import polars as pl

    return {
        "n": len(rows),
        "score": _mean(rows.select("task_id", value="score").drop_nulls("value")),
        "words": _mean(rows.select("task_id", value="words")),
        "refusal_rate": _share(rows["refuses"]),
        "duplicate_rate": _share(rows.select(pl.struct("task_id", "answer").is_duplicated()).to_series()),
    }


def _share(values: "pl.Series") -> float | None:
    return float(values.cast(int).sum()) / len(values) if len(values) else None


def _tie_rate(rows: "pl.DataFrame", per_task: int) -> float | None:
    """Share of tasks in which the score of the last place to be had is shared across the border, so that a draw decided."""
    import polars as pl

    scored = rows.drop_nulls("score")
    if scored.is_empty():
        return None
    tasks = scored.group_by("task_id").agg(pl.col("score").sort(descending=True).alias("scores"))
    inside = pl.col("scores").list.get(per_task - 1, null_on_oob=True)
    outside = pl.col("scores").list.get(per_task, null_on_oob=True)
    return float(tasks.select((inside == outside).fill_null(False).mean()).item())
