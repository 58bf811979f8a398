"""Expert iteration as a whole: checks before anything is spent, the rounds with their workers, and the closing table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recontext_data.config.loading import Loaded
from recontext_data.config.recipe import Recipe
from recontext_data.core.errors import RecipeError
from recontext_data.experiments import rounds
from recontext_data.experiments.rounds_page import table
from recontext_data.reports.screen import Screen
from recontext_data.store.run_folder import require_writable
from recontext_data.training.arguments import check_extra, micro_batch, num_processes
from recontext_data.training.device import has_cuda, say_device
from recontext_data.training.kl import require_one_process
from recontext_data.training.libraries import require_libraries
from recontext_data.training.sharing import helped


def iterate_rounds(
    loaded: Loaded,
    *,
    output: Path = Path(),
    models: str = "models",
    workers: int = 1,
    dry_run: bool = False,
    words: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Makes the rounds that are asked for and are not there yet; returns the facts of all, None after a dry run.

    `words`: the options of the command, for the other workers and the report.

    Raises:
        RecontextError: of any kind; what is finished stays, and the same call continues.
    """
    screen, config = Screen(), loaded.recipe.training
    rounds.check(loaded.recipe)
    require_libraries(config.method)
    if num_processes() > 1:
        raise RecipeError("iterate: is not run by `accelerate launch`; use workers=, or several machines with the same command")
    micro_batch(config)
    require_one_process(config)
    if dry_run:
        _show_plan(loaded.name, loaded.recipe)
        return None
    require_writable(output)
    check_extra(config.extra, cuda=has_cuda())
    say_device(config, screen)
    told = [word for word in words if not word.startswith(("output=", "workers="))]
    with helped(words, workers=min(workers, len(rounds.chains_of(loaded))), verb="iterate"):
        folder, facts = rounds.iterate(loaded, output=output, screen=screen, words=told, models=models)
    screen.table(*table(facts, intervals=False))
    print(f"\nrounds    {folder / 'rounds.json'}\nreport    {folder / 'report.html'}")
    return facts


def _show_plan(name: str, recipe: Recipe) -> None:
    assert recipe.rounds is not None
    print(f"would make (nothing is written): {recipe.rounds.count} rounds, each from the {recipe.rounds.start} model")
    for number in range(1, recipe.rounds.count + 1):
        source = "the recipe's policy" if number == 1 else f"its own model of round {number - 1}"
        print(f"  round {number}  {len(recipe.arms)} arms x {len(recipe.training.seeds)} seeds, each sampled from {source}")
    print(f"what round 1 would sample: recontext build recipe={name} dry_run=true; the others sample as much for every seed")
