"""The answers of an evaluation as logs of Inspect, one file per model: `inspect view --log-dir .../evaluation/inspect`.

A sample is a task under a context: its prompt as it was sent, the completion, and the outcome judge's word as the score. The
context, the arm and the seed are in its metadata; so is why an answer is unscored, which then has no score.
Needs the extra `inspect` (`inspect_ai`).
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.context import render
from recontext_data.core.errors import RecipeError, SetupError
from recontext_data.core.records import content_hash
from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.contexts import measured
from recontext_data.evaluation.models import Model

if TYPE_CHECKING:
    import polars as pl

FOLDER = "inspect"


def require_inspect(recipe: Recipe) -> None:
    """Raises SetupError where the library is missing, RecipeError where there would be no answers to write."""
    if not recipe.evaluation.inspect:
        return
    if recipe.evaluation.exact:
        raise RecipeError("evaluation.inspect: a log is of answers and evaluation.exact samples none; leave one out")
    if find_spec("inspect_ai") is None:
        raise SetupError("evaluation.inspect=true needs inspect_ai: pip install 'recontext_data[inspect]'")


def write_logs(
    table: "pl.DataFrame", models: Sequence[Model], recipe: Recipe, *, tasks: TaskSet, results: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Writes `<arm>.eval` or `<arm>.seed-<n>.eval` for each model into `folder`, each whole or not at all."""
    from inspect_ai.log import write_eval_log

    from recontext_data.store.files import replace_file

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    prompts = _prompts(recipe, tasks)
    for model in models:
        log = _log(model, table, recipe, prompts=prompts, results=results)
        path = folder / f"{model.name.replace('/', '.')}.eval"
        replace_file(path, lambda target, log=log: write_eval_log(log, str(target), format="eval"))  # type: ignore[misc]
        written.append(path)
    return written


def remove_logs(folder: Path) -> None:
    """Removes the logs of an earlier evaluation, which would say other things than the results beside them."""
    for path in folder.glob("*.eval"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _prompts(recipe: Recipe, tasks: TaskSet) -> dict[tuple[str, str], Any]:
    return {
        (name, task.task_id): render(task, context, name=name, how=recipe.how)
        for name, context in measured(recipe).items()
        for task in tasks.tasks
    }


def _log(
    model: Model, table: "pl.DataFrame", recipe: Recipe, *, prompts: Mapping[tuple[str, str], Any], results: Mapping[str, Any]
) -> Any:
    import polars as pl
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec

    own = table.filter((pl.col("arm") == model.arm) & pl.col("seed").eq_missing(model.seed))
    judge = recipe.outcome_judge.name
    samples = [_sample(row, prompts[row["context"], row["task_id"]], judge=judge) for row in own.iter_rows(named=True)]
    created = results["created"].replace("Z", "+00:00")
    run = content_hash([results["fingerprint"], model.name])[:22]
    spec = EvalSpec(
        eval_id=run, run_id=run, task_id=run, created=created, task=f"{results['recipe_name']}/{model.name}", model=model.name,
        dataset=EvalDataset(name=results["environment"]["kind"], samples=len(prompts)),
        config=EvalConfig(epochs=recipe.evaluation.n),
        metadata={"arm": model.arm, "seed": model.seed, "recipe": results["recipe_name"], "run": results["fingerprint"]},
    )  # fmt: skip
    return EvalLog(status="success", eval=spec, samples=samples, results=_results(own, results, judge=judge))


def _sample(row: Mapping[str, Any], prompt: Sequence[Mapping[str, str]], *, judge: str) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    kinds: dict[str, Any] = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    said = [kinds[turn["role"]](content=turn["content"]) for turn in prompt]
    word = row["label"] if row["label"] is not None else row["score"]
    answered = row["completion"] is not None
    return EvalSample(
        id=f"{row['context']}/{row['task_id']}",
        epoch=row["k"] + 1,
        input=said,
        target="",
        messages=[*said, *([ChatMessageAssistant(content=row["completion"])] if answered else [])],
        output=ModelOutput.from_content(model=row["arm"], content=row["completion"]) if answered else ModelOutput(),
        scores=None if word is None else {judge: Score(value=word, answer=row["completion"])},
        metadata={name: row[name] for name in ("context", "task_id", "arm", "seed", "unscored_reason")},
    )


def _results(own: "pl.DataFrame", results: Mapping[str, Any], *, judge: str) -> Any:
    """The rate of the misbehaviour under each context, as metrics; none where nothing was scored."""
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    bad = results["environment"]["misbehaviour"]
    metrics = {}
    for (context,), part in own.drop_nulls("label").group_by("context", maintain_order=True):
        name = f"{bad} under {context}"
        metrics[name] = EvalMetric(name=name, value=float((part["label"] == bad).mean()))
    score = EvalScore(name=judge, scorer=judge, metrics=metrics)
    return EvalResults(total_samples=len(own), completed_samples=own["completion"].count(), scores=[score])
