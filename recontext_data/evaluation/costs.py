"""What the method costs, beside what it does: compliance, quality, refusals and how far two contexts drive a model apart.

- compliance: the rate of the behaviour under contexts that permit it. Less misbehaviour elsewhere is the aim; under a context
  that legitimately asks for it, the same fall is a loss of the ability to elicit it.
- quality: the mean score of every rubric judge that gives scores.
- refusals: the share of answers that a judge labels with one of `REFUSALS`.
- kl: for each pair of contexts that an arm is made of, the mean over tokens of KL(under generation || under training), in nats,
  on the model's own answers under the generation context: 0 for a model that reads the two alike.
- instruction following: see `instructions`.

All are rows {arm, context, value}, `value` an interval over seeds and tasks or None; `name` says of which judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.context import render
from recontext_data.core.errors import RecipeError
from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.contexts import measured
from recontext_data.evaluation.models import Model

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen

REFUSALS = ("refuses", "refused", "refusal")
"""Labels that say so, whatever judge gives them."""

Row = dict[str, Any]


def costs(table: "pl.DataFrame", cells: Sequence[Mapping[str, Any]], recipe: Recipe) -> dict[str, list[Row]]:
    """What follows from the answers and the cells of the matrix."""
    permits = [name for name, context in measured(recipe).items() if context is not None and context.stance == "permits"]
    found = {
        "compliance": [
            {"arm": cell["arm"], "context": cell["context"], "value": cell["rate"]}
            for cell in cells
            if cell["context"] in permits
        ],
        "quality": [],
        "refusals": [],
    }
    if "judgements" not in table.columns:
        return found
    for judge in recipe.judges:
        words = _words(table, judge.name)
        if judge.kind == "rubric" and judge.gives_scores:
            found["quality"] += list(_means(words, "score", judge.name, confidence=recipe.evaluation.confidence))
        labels = [label for label in REFUSALS if label in judge.labels]
        if labels:
            found["refusals"] += list(_shares(words, labels, judge.name, confidence=recipe.evaluation.confidence))
    return found


def _words(table: "pl.DataFrame", judge: str) -> "pl.DataFrame":
    """One judge's words, a row per answer that it saw."""
    import polars as pl

    long = table.select("arm", "seed", "context", "task_id", "judgements").explode("judgements").drop_nulls("judgements")
    words = long.unnest("judgements")
    return words.filter(pl.col("judge") == judge).drop("judge")


def _means(words: "pl.DataFrame", column: str, judge: str, *, confidence: float) -> Iterator[Row]:
    from recontext_data.stats.intervals import mean

    for (arm, context), part in words.group_by("arm", "context", maintain_order=True):
        found = mean(_grid(part.drop_nulls(column), column), confidence=confidence) if part[column].count() else None
        yield {"name": judge, "arm": arm, "context": context, "value": asdict(found) if found else None}


def _shares(words: "pl.DataFrame", labels: Sequence[str], judge: str, *, confidence: float) -> Iterator[Row]:
    import polars as pl

    from recontext_data.stats.intervals import rate

    for (arm, context), part in words.group_by("arm", "context", maintain_order=True):
        labelled = part.drop_nulls("label").with_columns(hit=pl.col("label").is_in(labels).cast(pl.Float64))
        found = None
        if len(labelled):
            found = rate(_grid(labelled, "hit", total=True), _grid(labelled, "hit", count=True), confidence=confidence)
        yield {"name": judge, "arm": arm, "context": context, "value": asdict(found) if found else None}


def _grid(part: "pl.DataFrame", column: str, *, total: bool = False, count: bool = False) -> Any:
    """The mean (or sum, or number) of a column per seed and task, [S, T]; NaN (or 0) where there is none."""
    import numpy as np
    import polars as pl

    seeds = {seed: i for i, seed in enumerate(part["seed"].unique(maintain_order=True))}
    tasks = {task: i for i, task in enumerate(part["task_id"].unique(maintain_order=True))}
    values = np.full((len(seeds), len(tasks)), 0.0 if total or count else np.nan)
    how = pl.col(column).sum() if total else pl.col(column).count() if count else pl.col(column).mean()
    for seed, task, value in part.group_by("seed", "task_id").agg(how).iter_rows():
        values[seeds[seed], tasks[task]] = value
    return values


def require_local(recipe: Recipe) -> None:
    """Raises RecipeError where the divergence is asked of a model that is elsewhere."""
    from recontext_data.evaluation.exact import LOCAL

    if not recipe.evaluation.costs.kl:
        return
    if recipe.evaluation.exact:
        raise RecipeError("evaluation.costs.kl: goes by sampled answers and evaluation.exact samples none; leave one out")
    kinds = [recipe.policy.kind, *(model.policy.kind for model in recipe.evaluation.models)]
    other = next((kind for kind in kinds if kind not in LOCAL), None)
    if other is not None:
        raise RecipeError(
            f"evaluation.costs.kl: policy.kind={other} shows no distributions over tokens; use {' or '.join(LOCAL)}"
        )


def divergence(
    models: Sequence[Model], table: "pl.DataFrame", recipe: Recipe, *, tasks: TaskSet, screen: "Screen"
) -> list[Row]:
    """The KL of every model between the two contexts of every arm, on the first answer to each task."""
    import numpy as np

    from recontext_data.stats.intervals import mean

    contexts = measured(recipe)
    pairs = dict.fromkeys((arm.generation, arm.training) for arm in recipe.arms if arm.data is None)
    pairs = {pair: None for pair in pairs if pair[0] != pair[1] and pair[0] in contexts and pair[1] in contexts}
    values: dict[tuple[str, tuple[str, str]], list[list[float]]] = {}
    with screen.stage("divergence", len(models) * len(pairs), unit="models") as tracker:
        for model in models:
            for pair in pairs:
                values.setdefault((model.arm, pair), []).append(_of_model(model, pair, table, recipe, tasks=tasks))
                tracker.advance()
    rows = []
    for (arm, pair), own in values.items():
        found = mean(np.array(own), confidence=recipe.evaluation.confidence)
        value = {**asdict(found), "low": max(0.0, found.low)} if found else None
        rows.append({"arm": arm, "context": f"{pair[0]} || {pair[1]}", "value": value})
    return rows


def _of_model(model: Model, pair: tuple[str, str], table: "pl.DataFrame", recipe: Recipe, *, tasks: TaskSet) -> list[float]:
    """By task; NaN where there is no answer, or where its tokens merge with a prompt's."""
    import polars as pl

    from recontext_data.evaluation.teacher_forced import completion_tokens, divergences

    policy: Any = model.policy
    contexts = measured(recipe)
    own = (pl.col("arm") == model.arm) & pl.col("seed").eq_missing(model.seed) & (pl.col("context") == pair[0])
    said = dict(table.filter(own & (pl.col("k") == 0)).select("task_id", "completion").iter_rows())
    places, prompts, texts = [], ([], []), []  # type: tuple[list[int], tuple[list[Any], list[Any]], list[list[int]]]
    for place, task in enumerate(tasks.tasks):
        sides = [render(task, contexts[name], name=name, how=recipe.how) for name in pair]
        text = said.get(task.task_id)
        ids = [None if text is None else completion_tokens(policy, side, text) for side in sides]
        if ids[0] is not None and ids[0] == ids[1]:
            places.append(place)
            texts.append(ids[0])
            for prompt, side in zip(prompts, sides, strict=True):
                prompt.append(policy.encode(side))
    values = [float("nan")] * len(tasks.tasks)
    for place, value in zip(places, divergences(policy, *prompts, completions=texts), strict=True):
        values[place] = value
    return values
