"""Measures every model of a recipe under every context: `python -m recontext_data.evaluate recipe=code_mc [key=value ...]`.

    recontext evaluate recipe=code_mc                         # the policy before, and each trained arm and seed
    recontext evaluate recipe=code_mc evaluation.tasks=300 evaluation.n=4
    recontext evaluate recipe=code_mc dry_run=true            # what would be sampled
    recontext evaluate recipe=code_mc open=true               # and the report opens in a browser

Tasks are those of `evaluation.split`, which no arm was trained on. Answers are kept in the reply store, so a second run
counts again and samples nothing.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.cli import Arguments, flag, guarded, parse
from recontext_data.config.loading import Loaded, load
from recontext_data.core.browser import show
from recontext_data.core.errors import RecipeError

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.core.records import Task
    from recontext_data.environments.base import TaskSet
    from recontext_data.evaluation.models import Model
    from recontext_data.pipeline.preparation import Prepared
    from recontext_data.reports.screen import Screen
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import RunFolder

OWN = {
    "models": ("text", "the folder in the run that the trained models are in; `models` unless train was told another"),
    "open": ("true | false", "opens the report in a browser where there is a screen; false unless set"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    pairs = [word.partition("=") for word in arguments.overrides]
    own = {key: value for key, _, value in pairs if key in OWN}
    arguments.overrides = [key + equals + value for key, equals, value in pairs if key not in OWN]
    models, opens = own.get("models", "models"), flag("open", own.get("open", "false"))
    if models != Path(models).name:
        raise RecipeError(f"models={models}: is no folder of the run; give the name that train was given, without its path")
    if arguments.help:
        from recontext_data.config.help import verb_help

        return verb_help("evaluate", arguments, section="evaluation", own=OWN)
    if arguments.recipe is None:
        raise RecipeError(
            "recipe: missing; write recipe=NAME or recipe=path/to/mine.yaml (`recontext build` alone lists the recipes)"
        )
    words = [word for word in words if not word.startswith(("output=", "open="))]
    command = shlex.join(["recontext", "evaluate", *words])
    return evaluate(load(arguments.recipe, arguments.overrides), arguments, models=models, command=command, opens=opens)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured, on what and into which folder: settled before anything is sampled."""

    job: "Prepared"
    run: "RunFolder"
    models: "Sequence[Model]"
    tasks: "TaskSet"
    """Held out: no arm was trained on them."""
    prompts: "Sequence[Task]"
    """Those of `evaluation.costs.ifeval`; none where it is not asked for."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run.path / "evaluation"


def evaluate(loaded: Loaded, arguments: Arguments, *, models: str = "models", command: str = "", opens: bool = False) -> int:
    """Samples, judges and counts; writes `evaluation/` in the run's folder. `command`: as typed, for the report;
    `opens`: whether that is shown in a browser.

    Raises:
        RecontextError: of any kind; what was sampled is kept.
    """
    from recontext_data.reports.screen import Screen
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import remove_empty_on_error

    screen = Screen()
    what = _settled(loaded, arguments, models, screen)
    if arguments.dry_run:
        return _dry_run(what, arguments.output, screen)
    with (
        remove_empty_on_error(arguments.output, what.run.path),
        what.run.locked(),
        ReplyStore(arguments.output / "replies") as store,
    ):
        table = _outcomes(what, store, screen)
        results = _written(what, table, _costs(what, table, store, screen), command)
    screen.results(results, folder=what.folder)
    if opens:
        show((what.folder / "report.html").resolve().as_uri())
    return 0


def _settled(loaded: Loaded, arguments: Arguments, models: str, screen: "Screen") -> Measurement:
    """Everything that can be refused is refused here, before a model is asked."""
    from recontext_data.evaluation.instructions import ifeval_prompts
    from recontext_data.evaluation.models import ModelsFolder, models_to_measure, remarks
    from recontext_data.evaluation.tasks import measured_tasks, require_measurable
    from recontext_data.pipeline.arm_gates import held_out
    from recontext_data.pipeline.preparation import prepared
    from recontext_data.store.run_folder import RunFolder, require_writable

    recipe, output = loaded.recipe, arguments.output
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
    remarks(measured, job, screen=screen, folder=run.path / models)
    return Measurement(job=job, run=run, models=measured, tasks=tasks, prompts=prompts)


def _dry_run(what: Measurement, output: Path, screen: "Screen") -> int:
    """Says what would be sampled; asks nobody and writes nothing."""
    from recontext_data.evaluation.matrix import forecast
    from recontext_data.store.replies import ReplyStore

    if what.prompts:
        screen.note(f"evaluation.costs.ifeval: {len(what.prompts):,} prompts more for each of {len(what.models)} models")
    if what.job.recipe.evaluation.exact:
        screen.note("evaluation.exact: nothing would be sampled; the models compute the probabilities of listed answers")
    else:
        screen.dry_run(forecast(what.models, what.job, tasks=what.tasks, store=ReplyStore(output / "replies")))
    return 0


def _outcomes(what: Measurement, store: "ReplyStore", screen: "Screen") -> "pl.DataFrame":
    """A row per answer of every model under every context, or per probability where they are exact."""
    from recontext_data.evaluation.exact import exact_outcomes
    from recontext_data.evaluation.matrix import outcomes

    if what.job.recipe.evaluation.exact:
        return exact_outcomes(what.models, what.job.recipe, tasks=what.tasks, screen=screen)
    return outcomes(what.models, what.job, tasks=what.tasks, store=store, screen=screen)


def _costs(what: Measurement, table: "pl.DataFrame", store: "ReplyStore", screen: "Screen") -> dict[str, Any]:
    """What of the method's costs takes more than counting the outcomes; an entry for each that the recipe asks for."""
    from recontext_data.evaluation.costs import divergence
    from recontext_data.evaluation.instructions import instruction_following

    costs = what.job.recipe.evaluation.costs
    found: dict[str, Any] = {}
    if costs.kl:
        found["kl"] = divergence(what.models, table, what.job.recipe, tasks=what.tasks, screen=screen)
    if costs.ifeval is not None:
        found["instruction_following"] = instruction_following(what.models, what.prompts, what.job, store=store, screen=screen)
    return found


def _written(what: Measurement, table: "pl.DataFrame", costs: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The results, once they and the logs for Inspect are on disk; logs of an earlier evaluation are gone."""
    from recontext_data.evaluation.inspect_logs import FOLDER, remove_logs, write_logs
    from recontext_data.evaluation.results import write_results

    remove_logs(what.folder / FOLDER)
    results = write_results(
        table, job=what.job, models=what.models, tasks=what.tasks, run=what.run, command=command, more=costs
    )
    if what.job.recipe.evaluation.inspect:
        write_logs(table, what.models, what.job.recipe, tasks=what.tasks, results=results, folder=what.folder / FOLDER)
    return results


if __name__ == "__main__":
    sys.exit(main())
