"""Measures every model of a recipe under every context: `python -m recontext_data.evaluate recipe=code_mc [key=value ...]`.

    recontext evaluate recipe=code_mc                         # the policy before, and each trained arm and seed
    recontext evaluate recipe=code_mc evaluation.tasks=300 evaluation.n=4
    recontext evaluate recipe=code_mc dry_run=true            # what would be sampled

Tasks are those of `evaluation.split`, which no arm was trained on. Answers are kept in the reply store, so a second run
counts again and samples nothing.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.cli import Arguments, guarded, parse
from recontext_data.errors import RecipeError
from recontext_data.loading import Loaded, load

if TYPE_CHECKING:
    pass

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
    command = shlex.join(["recontext", "evaluate", *words])
    return evaluate(load(arguments.recipe, arguments.overrides), arguments, models=models, command=command)


def evaluate(loaded: Loaded, arguments: Arguments, *, models: str = "models", command: str = "") -> int:
    """Samples, judges and counts; writes `evaluation/` in the run's folder. `command`: as typed, for the report.

    Raises:
        RecontextError: of any kind; what was sampled is kept.
    """
    from recontext_data.evaluation import matrix
    from recontext_data.evaluation.costs import divergence
    from recontext_data.evaluation.exact import exact_outcomes
    from recontext_data.evaluation.inspect_logs import FOLDER, remove_logs, write_logs
    from recontext_data.evaluation.instructions import ifeval_prompts, instruction_following
    from recontext_data.evaluation.models import Place, models_to_measure, remarks
    from recontext_data.evaluation.results import write_results
    from recontext_data.evaluation.tasks import measured_tasks, require_measurable
    from recontext_data.reports.screen import Screen
    from recontext_data.stages.gating import held_out
    from recontext_data.stages.prepared import prepared
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import RunFolder, require_writable, taken_back

    recipe, screen = loaded.recipe, Screen()
    require_writable(arguments.output)
    require_measurable(recipe)
    prompts = ifeval_prompts(recipe.evaluation.costs)
    job = prepared(loaded.name, recipe, output=arguments.output, screen=screen)
    folder = RunFolder(arguments.output, recipe=loaded.name, fingerprint=job.fingerprint)
    tasks = held_out(
        measured_tasks(recipe, output=arguments.output), trained=list(job.by_id.values()), gates=recipe.gates, screen=screen
    )
    place = Place(run=folder.path, folder=models, state=arguments.output / "replies" / "batches")
    measured = models_to_measure(job, tasks, place=place)
    remarks(measured, job, screen=screen, folder=folder.path / models)
    if arguments.dry_run and prompts:
        screen.note(f"evaluation.costs.ifeval: {len(prompts):,} prompts more for each of {len(measured)} models")
    if arguments.dry_run and recipe.evaluation.exact:
        screen.note("evaluation.exact: nothing would be sampled; the models compute the probabilities of listed answers")
        return 0
    if arguments.dry_run:
        screen.dry_run(matrix.forecast(measured, job, tasks=tasks, store=ReplyStore(arguments.output / "replies")))
        return 0
    with (
        taken_back(arguments.output, folder.path),
        folder.locked(),
        ReplyStore(arguments.output / "replies") as store,
    ):
        if recipe.evaluation.exact:
            table = exact_outcomes(measured, recipe, tasks=tasks, screen=screen)
        else:
            table = matrix.outcomes(measured, job, tasks=tasks, store=store, screen=screen)
        more = {"kl": divergence(measured, table, recipe, tasks=tasks, screen=screen)} if recipe.evaluation.costs.kl else {}
        if recipe.evaluation.costs.ifeval is not None:
            more |= {"instruction_following": instruction_following(measured, prompts, job, store=store, screen=screen)}
        place_of_logs = folder.path / "evaluation" / FOLDER
        remove_logs(place_of_logs)
        results = write_results(table, job=job, models=measured, tasks=tasks, run=folder, command=command, more=more)
        if recipe.evaluation.inspect:
            write_logs(table, measured, recipe, tasks=tasks, results=results, folder=place_of_logs)
    screen.results(results, folder=folder.path / "evaluation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
