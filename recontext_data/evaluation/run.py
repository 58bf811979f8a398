"""Measures every model of a recipe under every context and writes the results into the run's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recontext_data.config.loading import Loaded
from recontext_data.core.browser import show
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Task
from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.costs import divergence
from recontext_data.evaluation.exact import exact_outcomes
from recontext_data.evaluation.inspect_logs import FOLDER, remove_logs, write_logs
from recontext_data.evaluation.instructions import ifeval_prompts, instruction_following
from recontext_data.evaluation.matrix import forecast, outcomes
from recontext_data.evaluation.models import Model, ModelsFolder, models_to_measure, remarks
from recontext_data.evaluation.results import write_results
from recontext_data.evaluation.tasks import measured_tasks, require_measurable
from recontext_data.pipeline.arm_gates import held_out
from recontext_data.pipeline.preparation import Prepared, prepared
from recontext_data.reports.screen import Screen
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder, remove_empty_on_error, require_writable


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The models, tasks and prompts of an evaluation, and its folder; complete before anything is sampled."""

    job: Prepared
    run: RunFolder
    models: Sequence[Model]
    tasks: TaskSet
    """Held out: no arm was trained on them."""
    prompts: Sequence[Task]
    """Those of `evaluation.costs.ifeval`; none where it is not asked for."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run.path / "evaluation"


def evaluate_models(
    loaded: Loaded,
    *,
    output: Path = Path(),
    models: str = "models",
    seeds: Sequence[int] = (),
    dry_run: bool = False,
    opens: bool = False,
    command: str = "",
) -> dict[str, Any] | None:
    """Samples, judges and counts; writes `evaluation/` in the run's folder and returns the results, None after a dry run.

    `models`: the folder in the run that the trained models are in. `seeds`: some of the trained models; none means all.
    `opens`: shows the report in a browser. `command`: as typed, for the report.

    Raises:
        RecontextError: of any kind; what was sampled is kept.
    """
    screen = Screen()
    what = _settled(loaded, output, models, seeds, screen)
    if dry_run:
        _forecast(what, output, screen)
        return None
    with (
        remove_empty_on_error(output, what.run.path),
        what.run.locked(),
        ReplyStore(output / "replies") as store,
    ):
        table = _outcomes(what, store, screen)
        results = _written(what, table, _costs(what, table, store, screen), command)
    screen.results(results, folder=what.folder)
    if opens:
        show((what.folder / "report.html").resolve().as_uri())
    return results


def _settled(loaded: Loaded, output: Path, models: str, seeds: Sequence[int], screen: Screen) -> Measurement:
    """Everything that can be refused is refused here, before a model is asked."""
    recipe = loaded.recipe
    require_writable(output)
    require_measurable(recipe)
    prompts = ifeval_prompts(recipe.evaluation.costs)
    job = prepared(loaded.name, recipe, output=output, screen=screen)
    run = RunFolder(output, recipe=loaded.name, fingerprint=job.fingerprint)
    trained_on = list(job.by_id.values())
    tasks = held_out(measured_tasks(recipe, output=output), trained=trained_on, gates=recipe.gates, screen=screen)
    measured = models_to_measure(
        job, tasks, place=ModelsFolder(run=run.path, folder=models, state=output / "replies" / "batches")
    )
    measured = _of_seeds(measured, seeds)
    remarks(measured, job, screen=screen, folder=run.path / models)
    return Measurement(job=job, run=run, models=measured, tasks=tasks, prompts=prompts)


def _of_seeds(models: Sequence[Model], seeds: Sequence[int]) -> list[Model]:
    """The models without a seed, and of the trained ones those of some seeds; all where none is named."""
    trained = {model.seed for model in models if model.seed is not None}
    for seed in seeds:
        if seed not in trained:
            known = f"there are {', '.join(map(str, sorted(trained)))}" if trained else "none is trained"
            raise RecipeError(f"seeds={seed}: no trained model has this seed; {known}")
    return [model for model in models if not seeds or model.seed is None or model.seed in seeds]


def _forecast(what: Measurement, output: Path, screen: Screen) -> None:
    """Says what would be sampled; asks nobody and writes nothing."""
    if what.prompts:
        screen.note(f"evaluation.costs.ifeval: {len(what.prompts):,} prompts more for each of {len(what.models)} models")
    if what.job.recipe.evaluation.exact:
        screen.note("evaluation.exact: nothing would be sampled; the models compute the probabilities of listed answers")
    else:
        screen.dry_run(forecast(what.models, what.job, tasks=what.tasks, store=ReplyStore(output / "replies")))


def _outcomes(what: Measurement, store: ReplyStore, screen: Screen) -> pl.DataFrame:
    """A row per answer of every model under every context, or per probability where they are exact."""
    if what.job.recipe.evaluation.exact:
        return exact_outcomes(what.models, what.job.recipe, tasks=what.tasks, screen=screen)
    return outcomes(what.models, what.job, tasks=what.tasks, store=store, screen=screen)


def _costs(what: Measurement, table: pl.DataFrame, store: ReplyStore, screen: Screen) -> dict[str, Any]:
    """The costs of the method that need more than the outcomes; an entry for each that the recipe asks for."""
    costs = what.job.recipe.evaluation.costs
    found: dict[str, Any] = {}
    if costs.kl:
        found["kl"] = divergence(what.models, table, what.job.recipe, tasks=what.tasks, screen=screen)
    if costs.ifeval is not None:
        found["instruction_following"] = instruction_following(what.models, what.prompts, what.job, store=store, screen=screen)
    return found


def _written(what: Measurement, table: pl.DataFrame, costs: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The results, once they and the logs for Inspect are on disk; logs of an earlier evaluation are gone."""
    remove_logs(what.folder / FOLDER)
    results = write_results(
        table, job=what.job, models=what.models, tasks=what.tasks, run=what.run, command=command, more=costs
    )
    if what.job.recipe.evaluation.inspect:
        write_logs(table, what.models, what.job.recipe, tasks=what.tasks, results=results, folder=what.folder / FOLDER)
    return results
