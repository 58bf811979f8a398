"""Measures every model of a recipe under every context: `python -m recontext_data.evaluate recipe=code_mc [key=value ...]`.

    recontext evaluate recipe=code_mc                         # the policy before, and each trained arm and seed
    recontext evaluate recipe=code_mc evaluation.tasks=300 evaluation.n=4
    recontext evaluate recipe=code_mc dry_run=true            # what would be sampled

Tasks are those of `evaluation.split`, which no arm was trained on. Answers are kept in the reply store, so a second run
counts again and samples nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.cli import Arguments, guarded, parse
from recontext_data.errors import RecipeError
from recontext_data.loading import Loaded, load

if TYPE_CHECKING:
    from recontext_data.environments.base import TaskSet
    from recontext_data.evaluation.matrix import Model
    from recontext_data.stages.prepared import Prepared

MODELS = ("text", "the folder in the run that the trained models are in; `models` unless train was told another")


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    folders = [word.partition("=")[2] for word in arguments.overrides if word.startswith("models=")]
    arguments.overrides = [word for word in arguments.overrides if not word.startswith("models=")]
    models = folders[-1] if folders else "models"
    if models != Path(models).name:
        raise RecipeError(f"models={models}: is no folder of the run; give the name that train was given, without its path")
    if arguments.help:
        from recontext_data.options import verb_help

        return verb_help("evaluate", arguments, section="evaluation", own={"models": MODELS})
    if arguments.recipe is None:
        raise RecipeError(
            "recipe: missing; write recipe=NAME or recipe=path/to/mine.yaml (`recontext build` alone lists the recipes)"
        )
    words = [word for word in words if not word.startswith("output=")]
    return evaluate(load(arguments.recipe, arguments.overrides), arguments, models=models, words=words)


def evaluate(loaded: Loaded, arguments: Arguments, *, models: str = "models", words: Sequence[str] = ()) -> int:
    """Samples, judges and counts; writes `evaluation/` in the run's folder. `words`: the command line, for the report.

    Raises:
        RecontextError: of any kind; what was sampled is kept.
    """
    from recontext_data.evaluation import matrix
    from recontext_data.evaluation.models import measured_tasks, require_other_tasks
    from recontext_data.evaluation.results import write_results
    from recontext_data.reports.screen import Screen
    from recontext_data.stages.gating import held_out
    from recontext_data.stages.prepared import prepared
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import RunFolder, require_writable, taken_back

    recipe, screen = loaded.recipe, Screen()
    require_writable(arguments.output)
    require_other_tasks(recipe)
    job = prepared(loaded.name, recipe, output=arguments.output, screen=screen)
    folder = RunFolder(arguments.output, recipe=loaded.name, fingerprint=job.fingerprint)
    tasks = held_out(
        measured_tasks(recipe, output=arguments.output), trained=list(job.by_id.values()), gates=recipe.gates, screen=screen
    )
    measured = _models(job, tasks, folder.path, models)
    if len(measured) == 1:
        screen.note(
            f"no trained model is in {folder.path / models}: measuring the policy as it is (recontext train makes some)"
        )
    if arguments.dry_run:
        screen.dry_run(matrix.forecast(measured, job, tasks=tasks, store=ReplyStore(arguments.output / "replies")))
        return 0
    with (
        taken_back(arguments.output, folder.path),
        folder.locked(),
        ReplyStore(arguments.output / "replies") as store,
    ):
        table = matrix.outcomes(measured, job, tasks=tasks, store=store, screen=screen)
        results = write_results(table, job=job, models=measured, tasks=tasks, run=folder, words=words)
    screen.results(results, folder=folder.path / "evaluation")
    return 0


def _models(job: "Prepared", tasks: "TaskSet", run: Path, models: str) -> "list[Model]":
    """The policy before, then the trained models by arm and seed; each one found by what its record says it is."""
    from recontext_data.evaluation.matrix import Model
    from recontext_data.evaluation.models import before, policy_of, trained_policy
    from recontext_data.training.models import models_of

    known = {arm.name for arm in job.arms}
    trained = [model for model in models_of(run, models=models) if model.arm in known]
    return [
        before(job, tasks),
        *(
            Model(arm=model.arm, seed=model.seed, policy=policy_of(job, tasks, trained_policy(job.recipe.policy, model)))
            for model in trained
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
