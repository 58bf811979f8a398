"""What a build found, counted from its tables, for the manifest, the screen, the report and the cards."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.core.records import Task

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.config.recipe import Recipe
    from recontext_data.judges.base import AnyJudge

ARITHMETIC_CAVEAT = (
    "Part of recontextualization's effect is arithmetic: the data's misbehaviour rate is that of the generation context, "
    "which lies below the training context's own, so imitating the data lowers it there. Compare arms with the standard "
    "arm under every context before reading more into it."
)
SCRIPTED_CAVEAT = "The policy is scripted: these rates are its script's, and say nothing about any model."


def scripted_judges(judges: "Sequence[AnyJudge]") -> list[str]:
    """The judges that stand for one that asks a model, and ask a script."""
    return [one.name for one in judges if getattr(getattr(one, "policy", None), "kind", None) == "fake"]


def scripted_judges_caveat(names: Sequence[str]) -> str:
    """What a reader must know of their scores."""
    return (
        f"Scripted judges, behind which there is no model: {', '.join(names)}. Their scores are a script's and measure nothing."
    )


def rates(judged: "pl.DataFrame", *, labels: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Label counts and the mean score per generation context and judge.

    `judged`: candidates joined with judgements; `labels`: each judge's, in the order of reports.
    """
    import polars as pl

    out = []
    keys = judged.select("generation_context", "judge").unique(maintain_order=True)
    for context, judge in keys.iter_rows():
        part = judged.filter((pl.col("generation_context") == context) & (pl.col("judge") == judge))
        unscored = (
            part.filter(pl.col("unscored_reason").is_not_null()).group_by("unscored_reason").len().sort("unscored_reason")
        )
        out.append(
            {
                "context": context,
                "role": part["role"][0],
                "judge": judge,
                "labels": list(labels[judge]),
                "counts": label_counts(part, labels[judge]),
                "mean_score": part["score"].mean(),
                "unscored": dict(unscored.iter_rows()),
                "total": len(part),
                "tasks": part["task_id"].n_unique(),
            }
        )
    return out


def judge_labels(recipe: "Recipe") -> dict[str, list[str]]:
    """Each judge's labels, the environment's order first where it gives the environment's word for misbehaviour."""
    own = recipe.environment
    return {
        judge.name: list(dict.fromkeys([*(own.labels if own.misbehaviour in judge.labels else ()), *judge.labels]))
        for judge in recipe.judges
    }


def label_counts(frame: "pl.DataFrame", labels: Sequence[str]) -> dict[str, int]:
    """Rows per label, every known label present."""
    found = dict(frame.filter(frame["label"].is_not_null()).group_by("label").len().iter_rows())
    return {label: found.pop(label, 0) for label in labels} | found


def by_position(judged: "pl.DataFrame", tasks: Mapping[str, Task], *, misbehaviour: str) -> dict[str, dict[str, int]]:
    """Misbehaviour by where the misbehaving option stood: a policy that only likes a letter shows here."""
    import polars as pl

    places = {task_id: task.payload["hack_option"] for task_id, task in tasks.items() if "hack_option" in task.payload}
    if not places:
        return {}
    placed = judged.with_columns(place=pl.col("task_id").replace_strict(places, return_dtype=pl.String))
    table: dict[str, dict[str, int]] = {}
    for (place,), part in placed.group_by("place", maintain_order=True):
        table[f"{misbehaviour} shown as {place}"] = {
            "tasks": part["task_id"].n_unique(),
            misbehaviour: int((part["label"] == misbehaviour).sum()),
            "total": len(part),
        }
    return dict(sorted(table.items()))
